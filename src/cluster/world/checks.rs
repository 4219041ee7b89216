//! The rules of the world.

use super::World;
use crate::{cluster::lease::State, domain::fleet::MemberState};

impl World {
    /// Asks all gates, also those of replicas that are paused: a process may wake in any moment.
    pub(super) fn check_gates(&mut self) {
        let (now, seed) = (self.now, self.seed);
        let running = || self.replicas.iter().filter(|replica| replica.process != 0);
        let leaders = running().filter_map(|replica| replica.lead.may_begin(replica.clock(now)));
        let leaders: Vec<_> = leaders.collect();
        assert!(leaders.len() <= 1, "seed {seed} at {now}: two leaders of the terms {leaders:?}");
        // Terms only grow, in one bucket: a leader that does not know of a new one has the old.
        for at in 0..self.replicas.len() {
            let replica = &self.replicas[at];
            if !replica.runs(now) {
                continue;
            }
            let clock = replica.clock(now);
            let Some(incarnation) = replica.incarnation() else { continue };
            if let Some(term) = replica.lead.may_begin(clock) {
                let newest = self.terms.entry(incarnation).or_default();
                assert!(term.0 >= *newest, "seed {seed} at {now}: term {term} after {newest}");
                *newest = term.0;
            }
        }
    }

    /// All is calm, and all replicas agree.
    pub(super) fn check_agreement(&self) {
        let seed = self.seed;
        let tail = || self.trace.iter().rev().take(40).rev().cloned().collect::<Vec<_>>().join("\n");
        let leading = self.replicas.iter().filter(|replica| replica.lead.state() == State::Leading).count();
        assert_eq!(leading, 1, "seed {seed}: {leading} leaders after the calm\n{}", tail());
        let (number, view) = self.replicas[0].member.view().expect("a view");
        for replica in &self.replicas {
            let name = &replica.name;
            assert_eq!(replica.member.state(), Some(&MemberState::Active), "seed {seed}: {name}\n{}", tail());
            assert_eq!(replica.member.view(), Some((number, view)), "seed {seed}: {name}");
        }
    }
}
