//! The clock of this replica beside that of the bucket.
//!
//! Rule: a replica whose clock is further from the bucket's than [`MOST_SKEW`] takes no transaction
//! and sees none through.
//!
//! Reason: the deadline of a transaction is a time by the clock of the replica that took it. One
//! that is a day ahead would end the transactions of all others at once.
//!
//! Example: a replica is set 25 hours ahead, and starts. The others go on as if it were not there,
//! and its clients hear why it takes nothing.

use std::sync::Arc;

use tokio::time::{Duration, Instant};
use tracing::{error, info};

use super::{
    Link,
    row::Place,
    task::{Outcome, Task},
};
use crate::outbox::{desk::NotDone, record::Millis, webhook::Clock};

/// The most by which the clock may differ from the bucket's, in milliseconds.
const MOST_SKEW: u64 = 30_000;
/// From one look at the clocks to the next.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after a look that told nothing.
const AGAIN: Duration = Duration::from_secs(1);
/// A look that took longer tells nothing, in milliseconds.
const LONGEST: u64 = 5_000;

/// How far a clock is from the bucket's, at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skew {
    is_ahead: bool,
    millis: u64,
}

impl Skew {
    /// The skew of a clock that stood between these times when the bucket's stood at `bucket`.
    fn of((before, after): (Millis, Millis), bucket: Millis) -> Self {
        match before.since(bucket) {
            0 => Self { is_ahead: false, millis: bucket.since(after) },
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
        self.next_clocks = Instant::now() + if skew.is_some() { LOOK } else { AGAIN };
        let Some(skew) = skew else { return };
        let closed =
            skew.is_too_much().then(|| NotDone::WrongClock { seconds: skew.millis / 1000, is_ahead: skew.is_ahead });
        let before = self.replicas.clock.swap(Some(Arc::new(closed.clone())));
        match (&closed, before.is_some_and(|before| before.is_some())) {
            (Some(why), false) => error!(%why, "this replica takes no part in the outbox"),
            (None, true) => info!("the clock is right again: this replica takes part in the outbox"),
            _ => {}
        }
    }
}

/// Writes an entry of this replica's own, and compares the time that the bucket gives to it.
async fn compare(link: &Link, place: &Place, clock: &Clock) -> Option<Skew> {
    let key = place.key().ok()?;
    let known = link.store.read(&key).await.ok()?;
    let before = clock();
    let value = before.to_string().into();
    match known {
        Some(known) => link.store.compare_and_set(&key, known.revision, value, None).await.ok()?,
        None => link.store.create(&key, value, None).await.ok()?,
    };
    let after = clock();
    let written = link.store.read(&key).await.ok()??;
    let bucket = Millis(written.created.as_nanos() / 1_000_000);
    (after.since(before) <= LONGEST).then(|| Skew::of((before, after), bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A28: only what is sure counts, for the write took its time.
    #[test]
    fn a_clock_is_wrong_beyond_the_time_of_the_look() {
        let skew = |bucket| Skew::of((Millis(100_000), Millis(104_000)), Millis(bucket));
        for (bucket, is_ahead, millis) in [
            (100_000, false, 0),
            (103_000, false, 0),
            (104_001, false, 1),
            (99_000, true, 1000),
            (140_000, false, 36_000),
        ] {
            assert_eq!(skew(bucket), Skew { is_ahead, millis }, "{bucket}");
        }
        assert!(!skew(70_000).is_too_much() && skew(69_999).is_too_much());
        assert!(!skew(134_000).is_too_much() && skew(134_001).is_too_much());
    }
}
