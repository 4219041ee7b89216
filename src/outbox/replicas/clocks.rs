//! The clock of this replica beside those of the bucket and of the other replicas.
//!
//! Rule: a replica whose clock is further than [`MOST_SKEW`] from the middle one of all these takes
//! no transaction and sees none through. Of two in the middle, the nearer to the bucket's counts.
//!
//! Reason: the deadline of a transaction is a time by the clock of the replica that took it. A
//! clock that is a day ahead would end the transactions of all others at once.
//!
//! Example: a replica is set 25 hours ahead, and starts. The others go on as if it were not there,
//! and its clients hear why it takes nothing. Where the bucket's servers alone are a minute behind,
//! all replicas go on.

use tokio::time::{Duration, Instant};

use super::{
    Link,
    row::Place,
    task::{Outcome, Task},
};
use crate::{
    cluster::store::{Entry, Prefix},
    outbox::{desk::NotDone, record::Millis, webhook::Clock},
};

/// The most by which the clock may differ from the middle one, in milliseconds.
const MOST_SKEW: u64 = 30_000;
/// From one look at the clocks to the next.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after a look without an answer.
const AGAIN: Duration = Duration::from_secs(1);
/// The pause after a look that found the clock wrong.
const WRONG: Duration = Duration::from_secs(5);
/// A look that took longer tells nothing, in milliseconds.
const LONGEST: u64 = 5_000;
/// An entry that is older, by the bucket's clock, tells nothing of a replica's clock any more, in
/// milliseconds.
const OLD: u64 = 180_000;

/// How far a clock is from the middle one, at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skew {
    is_ahead: bool,
    millis: u64,
}

impl Skew {
    /// The skew of a clock that stood between these times when the middle one stood at `middle`.
    fn of((before, after): (Millis, Millis), middle: Millis) -> Self {
        match before.since(middle) {
            0 => Self { is_ahead: false, millis: middle.since(after) },
            millis => Self { is_ahead: true, millis },
        }
    }

    fn is_too_much(self) -> bool {
        self.millis > MOST_SKEW
    }
}

impl Task {
    /// Compares the clocks, once in a while.
    pub(super) fn look_at_clocks(&mut self, link: &Link) {
        if self.is_looking_at_clocks || Instant::now() < self.next_clocks {
            return;
        }
        self.is_looking_at_clocks = true;
        let (link, place, clock) = (link.clone(), Place::Clock(self.me.clone()), self.shared.clock.clone());
        self.requests.push(Box::pin(async move { Outcome::Clocks(compare(&link, &place, &clock).await) }));
    }

    /// The clocks are compared; `None`: the bucket did not tell, or took too long.
    pub(super) fn compared(&mut self, skew: Option<Skew>) {
        self.is_looking_at_clocks = false;
        let is_wrong = skew.map(Skew::is_too_much);
        self.next_clocks = Instant::now()
            + match is_wrong {
                Some(false) => LOOK,
                Some(true) => WRONG,
                None => AGAIN,
            };
        if let Some(skew) = skew {
            let why = NotDone::WrongClock { seconds: skew.millis / 1000, is_ahead: skew.is_ahead };
            self.replicas.clock.note(skew.is_too_much().then_some(why));
        }
    }
}

/// Writes an entry of this replica's own, and compares the time that the bucket gives to it, and to
/// the entries of the others.
async fn compare(link: &Link, place: &Place, clock: &Clock) -> Option<Skew> {
    let key = place.key().ok()?;
    let known = link.store.read(&key).await.ok()?;
    let before = clock();
    let value = before.0.to_string().into();
    match known {
        Some(known) => link.store.compare_and_set(&key, known.revision, value, None).await.ok()?,
        None => link.store.create(&key, value, None).await.ok()?,
    };
    let after = clock();
    let entries = link.store.list(&Prefix::of(&["clock"]).ok()?).await.ok()?.entries;
    let bucket = created(entries.iter().find(|entry| entry.key == key)?);
    let is_new = |entry: &&Entry| bucket.since(created(entry)) <= OLD;
    let middle = middle(entries.iter().filter(is_new).filter_map(ahead).collect());
    let middle = Millis(bucket.0.saturating_add_signed(middle));
    (after.since(before) <= LONGEST).then(|| Skew::of((before, after), middle))
}

fn created(entry: &Entry) -> Millis {
    Millis(entry.created.as_nanos() / 1_000_000)
}

/// By how many milliseconds the clock of a replica is ahead of the bucket's.
fn ahead(entry: &Entry) -> Option<i64> {
    let clock: u64 = std::str::from_utf8(&entry.value).ok()?.parse().ok()?;
    clock.checked_signed_diff(created(entry).0)
}

/// The middle one of these clocks and the bucket's.
fn middle(mut ahead: Vec<i64>) -> i64 {
    ahead.push(0);
    ahead.sort_unstable();
    let (low, high) = (ahead[(ahead.len() - 1) / 2], ahead[ahead.len() / 2]);
    if low.saturating_abs() <= high.saturating_abs() { low } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A28: the clock that most agree with counts.
    #[test]
    fn one_clock_that_is_wrong_moves_no_other() {
        const DAY: i64 = 86_400_000;
        for (replicas, expected) in [
            (vec![], 0),
            (vec![DAY], 0),
            (vec![20, DAY], 20),
            (vec![-DAY, 0, 5], 0),
            (vec![-60_000, -60_010], -60_000),
            (vec![-60_000, -60_010, -59_990], -59_990),
            (vec![-60_000, DAY], 0),
        ] {
            assert_eq!(middle(replicas.clone()), expected, "{replicas:?}");
        }
    }

    /// A28: only what is sure counts, for the write took its time.
    #[test]
    fn a_clock_is_wrong_beyond_the_time_of_the_look() {
        let skew = |middle| Skew::of((Millis(100_000), Millis(104_000)), Millis(middle));
        for (middle, is_ahead, millis) in [
            (100_000, false, 0),
            (103_000, false, 0),
            (104_001, false, 1),
            (99_000, true, 1000),
            (140_000, false, 36_000),
        ] {
            assert_eq!(skew(middle), Skew { is_ahead, millis }, "{middle}");
        }
        assert!(!skew(70_000).is_too_much() && skew(69_999).is_too_much());
        assert!(!skew(134_000).is_too_much() && skew(134_001).is_too_much());
    }
}
