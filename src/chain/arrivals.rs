//! The chain's pace as its heads come in, for chains whose timestamps do not show the pace.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Heads from which the pace is estimated, and how few are too few.
const SAMPLE: usize = 16;
const TOO_FEW: usize = 4;
/// Heads that come within a shorter span do not show the pace: they may have waited for each other.
const SPAN: Duration = Duration::from_secs(1);

/// When the latest heads came, and how high each was.
#[derive(Debug, Default)]
pub(super) struct Arrivals(VecDeque<(Instant, u64)>);

impl Arrivals {
    /// A head of this height is there.
    pub(super) fn hear(&mut self, number: u64, now: Instant) {
        match self.0.back() {
            Some((_, last)) if *last == number => return,
            // A reorganisation, another node, or another chain: the sample begins anew with this
            // head.
            Some((_, last)) if *last > number => self.0.clear(),
            _ => {}
        }
        self.0.push_back((now, number));
        if self.0.len() > SAMPLE {
            self.0.pop_front();
        }
    }

    /// The usual time between blocks, once enough heads have come.
    pub(super) fn pace(&self) -> Option<Duration> {
        let ((since, first), (now, last)) = (self.0.front()?, self.0.back()?);
        let span = Some(*now - *since).filter(|span| *span >= SPAN && self.0.len() >= TOO_FEW)?;
        span.checked_div(u32::try_from(last - first).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(heads: &[(u64, u64)]) -> Option<u128> {
        let (start, mut arrivals) = (Instant::now(), Arrivals::default());
        heads.iter().for_each(|(millis, number)| arrivals.hear(*number, start + Duration::from_millis(*millis)));
        arrivals.pace().map(|pace| pace.as_millis())
    }

    #[test]
    fn the_pace_is_learnt_from_when_heads_come() {
        assert_eq!(pace(&[(0, 5), (500, 6), (1000, 7), (1500, 8)]), Some(500));
        assert_eq!(pace(&[(0, 5), (400, 9), (800, 13), (800, 13), (1200, 17)]), Some(100), "heads may be missed");
        assert_eq!(pace(&[(0, 5), (100, 6), (200, 7), (300, 8)]), None, "too soon to tell");
        assert_eq!(pace(&[(0, 5), (1000, 6), (2000, 7)]), None);
        assert_eq!(pace(&[(0, 50), (1000, 51), (9000, 5), (9250, 6), (9500, 7), (10_000, 9)]), Some(250), "anew");
        let long: Vec<(u64, u64)> = (0..40).map(|n| (n * 12_000, n)).chain([(468_250, 40)]).collect();
        assert_eq!(pace(&long), Some(11_216), "the latest count");
    }
}
