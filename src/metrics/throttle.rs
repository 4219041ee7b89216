//! Keeps log lines that clients or nodes can bring about from filling the log.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How often such a line is written at most.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Lets one line pass in a while, and counts the others.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the last line was written.
    last: Option<Instant>,
    since: u64,
}

impl Throttle {
    /// `None` when nothing is to be written now; otherwise how many lines were not written since
    /// the last one.
    pub fn pass(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < LINE_INTERVAL) {
            state.since += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.since))
    }
}

/// The lines that may come at once.
const BURST: u32 = 30;
/// After how long one more may come.
const REFILL: Duration = Duration::from_secs(20);
/// How long lines that were left out may wait for a line that sums them up.
const SUMMARY: Duration = Duration::from_secs(60);

/// Lets a burst of different lines pass, then one in a while, and counts the others, which are
/// summed up later.
#[derive(Debug)]
pub struct Burst {
    most: u32,
    refill: Duration,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    lines: u32,
    /// Since when lines come back.
    since: Option<Instant>,
    left_out: u64,
    /// When the first of those was left out.
    first: Option<Instant>,
}

impl Default for Burst {
    fn default() -> Self {
        Self::new(BURST, REFILL)
    }
}

impl Burst {
    /// Lets `most` lines pass at once, and one more after each `refill`.
    pub fn new(most: u32, refill: Duration) -> Self {
        Self { most, refill, spent: Mutex::default() }
    }

    /// Whether a line may be written now.
    pub fn pass(&self) -> bool {
        let (mut spent, now) = (self.lock(), Instant::now());
        let since = *spent.since.get_or_insert(now);
        let back = u32::try_from((now - since).as_millis() / self.refill.as_millis()).unwrap_or(u32::MAX);
        if back >= spent.lines {
            (spent.lines, spent.since) = (0, Some(now));
        } else {
            spent.lines -= back;
            spent.since = Some(since + self.refill * back);
        }
        if spent.lines == self.most {
            spent.left_out += 1;
            spent.first.get_or_insert(now);
            return false;
        }
        spent.lines += 1;
        true
    }

    /// When lines that were left out are to be summed up; `None`: none were.
    pub fn due(&self) -> Option<Instant> {
        self.lock().first.map(|first| first + SUMMARY)
    }

    /// The number of lines that were left out, if these are to be summed up now.
    pub fn sum_up(&self) -> Option<u64> {
        let mut spent = self.lock();
        spent.first.take_if(|first| first.elapsed() >= SUMMARY)?;
        Some(std::mem::take(&mut spent.left_out))
    }

    /// Goes on where an earlier one is, whose lines are summed up here.
    pub fn inherit(&self, earlier: &Self) {
        let spent = {
            let mut earlier = earlier.lock();
            let (left_out, first) = (std::mem::take(&mut earlier.left_out), earlier.first.take());
            Spent { lines: earlier.lines, since: earlier.since, left_out, first }
        };
        *self.lock() = spent;
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_passes_in_a_while_and_tells_of_the_others() {
        let throttle = Throttle::default();
        assert_eq!(throttle.pass(), Some(0));
        (0..5).for_each(|_| assert_eq!(throttle.pass(), None));
        advance(LINE_INTERVAL).await;
        assert_eq!(throttle.pass(), Some(5));
        advance(LINE_INTERVAL).await;
        assert_eq!(throttle.pass(), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_then_one_in_a_while_and_the_rest_is_summed_up() {
        let burst = Burst::default();
        let passed = |tries: u32| (0..tries).filter(|_| burst.pass()).count();
        assert_eq!((passed(BURST), burst.due()), (BURST as usize, None));
        assert_eq!(passed(5), 0);
        assert_eq!((burst.due(), burst.sum_up()), (Some(Instant::now() + SUMMARY), None));
        advance(SUMMARY).await;
        assert_eq!((burst.sum_up(), burst.due()), (Some(5), None));
        assert_eq!(passed(5), (SUMMARY.as_secs() / REFILL.as_secs()) as usize);
        advance(REFILL * BURST).await;
        assert_eq!(passed(2 * BURST), BURST as usize);
    }
}
