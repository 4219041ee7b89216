//! Reports a side of a network without any node that may serve: an error when the outage begins,
//! again while it lasts, and a message when it is over. Sums up lines about nodes that came and
//! went too often for a line each.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::Pool;
use crate::domain::verdict::{Down, Verdict};

/// How often an outage that lasts is told.
const AGAIN: Duration = Duration::from_secs(60);
/// Outages that follow one another are told no more often than this.
const APART: Duration = Duration::from_secs(10);

/// The news for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutageNews {
    /// No node serves, for so long now.
    Lasts(Duration),
    /// A node serves again, after so long.
    Over(Duration),
}

/// The outages of one side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OutageLog {
    since: Option<Instant>,
    /// When an outage was last told.
    told: Option<Instant>,
    /// Whether the present one was.
    is_told: bool,
}

impl OutageLog {
    /// Takes note of whether a node serves at `now`.
    fn step(&mut self, serves: bool, now: Instant) -> Option<OutageNews> {
        if serves {
            let since = self.since.take()?;
            return std::mem::take(&mut self.is_told).then(|| OutageNews::Over(now.saturating_duration_since(since)));
        }
        let since = *self.since.get_or_insert(now);
        if self.due().is_some_and(|due| now < due) {
            return None;
        }
        (self.told, self.is_told) = (Some(now), true);
        Some(OutageNews::Lasts(now.saturating_duration_since(since)))
    }

    /// When the present outage is to be told; `None` when there is none, or at once.
    fn due(&self) -> Option<Instant> {
        self.since?;
        Some(self.told? + if self.is_told { AGAIN } else { APART })
    }
}

/// Watches for outages for as long as the pool runs.
pub(super) async fn watch(pool: Arc<Pool>) {
    let mut changes = pool.subscribe();
    let mut is_known = false;
    loop {
        // Before every node was asked, nothing is known to be out.
        is_known |= pool.is_known();
        let is_ours = is_known && pool.is_in_charge();
        let word = is_ours.then(|| pool.outage().step(pool.snapshot().serves(), Instant::now())).flatten();
        if let Some(word) = word {
            pool.tell_outage(word);
        }
        if let Some(left_out) = pool.lines.sum_up() {
            pool.tell_nodes(left_out);
        }
        let due = pool.outage().due().filter(|_| is_ours).into_iter().chain(pool.lines.due()).min();
        // Both arms are cancel-safe; the pool itself holds the sender.
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

impl Pool {
    /// The outages so far.
    fn outage(&self) -> MutexGuard<'_, OutageLog> {
        // Each change is whole, so a panic elsewhere cannot have spoilt the state.
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the log was told by an earlier pool: pools may be replaced each second, when
    /// a name has other addresses each time.
    pub(super) fn inherit_lines(&self, earlier: &Self) {
        self.lines.inherit(&earlier.lines);
        let outage = *earlier.outage();
        *self.outage() = outage;
    }

    /// Whether a node serves, or every node was asked.
    fn is_known(&self) -> bool {
        let snapshot = self.snapshot();
        snapshot.serves() || snapshot.nodes.iter().all(|node| node.verdict != Verdict::Down(Down::Unknown))
    }

    /// Tells the present state of the nodes, after lines about them were left out.
    fn tell_nodes(&self, left_out: u64) {
        let (network, layer, nodes) = (&*self.network, self.layer.as_str(), self.states());
        warn!(network, layer, nodes, left_out, "nodes change too often for a line each");
    }

    /// Each node with its state.
    fn states(&self) -> String {
        let snapshot = self.snapshot();
        let nodes = self.nodes.iter().zip(&snapshot.nodes);
        nodes.map(|(node, known)| format!("{}: {}", node.name, known.state())).collect::<Vec<_>>().join("; ")
    }

    fn tell_outage(&self, word: OutageNews) {
        let (network, layer) = (&*self.network, self.layer.as_str());
        match word {
            OutageNews::Lasts(length) => {
                let (seconds, nodes) = (length.as_secs(), self.states());
                error!(network, layer, seconds, nodes, "no node can serve: calls wait, and then fail");
            }
            OutageNews::Over(length) => {
                let seconds = length.as_secs_f64();
                info!(network, layer, seconds = format!("{seconds:.1}"), "a node serves again: the outage is over");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_at_once_each_minute_and_at_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = OutageLog::default();
        assert_eq!(outage.step(true, start), None);
        let lasts = |seconds| Some(OutageNews::Lasts(Duration::from_secs(seconds)));
        let mut told = Vec::new();
        for second in 5..=130 {
            told.extend(outage.step(false, at(second)).map(|word| (second, word)));
        }
        assert_eq!(
            told.iter().map(|(at, word)| (*at, Some(*word))).collect::<Vec<_>>(),
            [(5, lasts(0)), (65, lasts(60)), (125, lasts(120)),]
        );
        assert_eq!(outage.step(true, at(131)), Some(OutageNews::Over(Duration::from_secs(126))));
        assert_eq!(outage.step(true, at(132)), None);
    }

    #[test]
    fn nodes_that_flap_do_not_fill_the_log() {
        let start = Instant::now();
        let mut outage = OutageLog::default();
        let mut told = 0;
        for tenth in 0..600 {
            told += u32::from(outage.step(tenth % 2 == 0, start + Duration::from_millis(100 * tenth)).is_some());
        }
        // Six outages of a minute are told, each with its end.
        assert_eq!(told, 12);
    }
}
