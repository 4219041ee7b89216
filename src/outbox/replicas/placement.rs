//! Which replica owns which shard: one replica's part as a plain value. No I/O and no clock.
//!
//! Rule: a shard belongs to the replica that has the highest weight for it among those that take
//! part (rendezvous hashing), so a replica that comes or goes moves its own share and nothing else.
//! A shard moves by a single compare-and-set of its row, which the new owner writes: at once where
//! the old owner has said that all effects have ended, or has left, or was failed by the view,
//! which comes later than the end of its lease. An owner that is in no view, or whose process was
//! followed by another, is waited for as long as a silent one.
//!
//! A shard without a row is waited for as long: the bucket may have been made anew, and the owner
//! of before may not know that yet.
//!
//! | phase | input | next |
//! |---|---|---|
//! | elsewhere | the shard is to be ours, and the row can be taken | claiming |
//! | elsewhere | the row is ours | preparing |
//! | claiming | the row has changed, or time is over | elsewhere, and so on |
//! | preparing | the rows of the shard are taken up | active |
//! | preparing, active | the row is not ours any more, or is to be another's | stopping |
//! | stopping | all effects have ended | releasing where the row is ours, else elsewhere |
//! | releasing | the row has changed | elsewhere |

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::row::Owner;
use crate::{
    cluster::{moment::Moment, store::Revision},
    domain::fleet::{Epoch, MemberState, ReplicaName, View, timing::mix},
    outbox::shard::{SHARDS, Shard},
};

/// From a claim or a release that met a conflict, or has no answer, to the next attempt, in
/// milliseconds.
const RETRY: u64 = 1_000;
/// From one look whether rows are still to be written to the next, in milliseconds.
const FLUSH_LOOK: u64 = 50;
/// How long a row that was written may take to come back on the watch, in milliseconds.
const ANSWER: u64 = 5_000;

/// Why a shard has another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveReason {
    /// The owner was silent for too long.
    Failed,
    /// The owner has left.
    Leaving,
    /// Replicas came or went, and the shares are made even.
    Balancing,
}

impl MoveReason {
    /// All reasons.
    pub(crate) const ALL: [Self; 3] = [Self::Failed, Self::Leaving, Self::Balancing];

    /// The reason's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Leaving => "leaving",
            Self::Balancing => "balancing",
        }
    }
}

/// The replica that is to own a shard, of those that take part.
pub(super) fn chosen<'a>(
    shard: Shard,
    candidates: impl IntoIterator<Item = &'a ReplicaName>,
) -> Option<&'a ReplicaName> {
    let weight = |name: &ReplicaName| {
        name.as_str().bytes().fold(mix(shard.index() as u64), |weight, byte| mix(weight ^ u64::from(byte)))
    };
    candidates.into_iter().max_by_key(|name| (weight(name), *name))
}

/// The cluster around the shards, as this replica knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    /// This replica's life, while it is a member.
    pub(super) life: Option<Epoch>,
    /// Whether this replica may take shards: it is a member beyond doubt, and has read all rows.
    pub(super) takes: bool,
    /// This replica ends, and gives all shards away.
    pub(super) leaves: bool,
    /// The view.
    pub(super) view: &'a View,
    /// The replicas that take part.
    pub(super) candidates: &'a BTreeSet<ReplicaName>,
    /// How long a replica is silent before another takes over, in milliseconds.
    pub(super) failover: u64,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Write the shard's row: it is ours. Over the row of that revision, or where there is none.
    Claim { shard: Shard, over: Option<Revision>, reason: Option<MoveReason> },
    /// The row is ours: take the shard's transactions up, and say so by [`Placement::prepared`].
    Prepare(Shard),
    /// Begin no effect of the shard any more, and say by [`Placement::stopped`] when all have
    /// ended.
    Stop(Shard),
    /// Write that the shard can be taken, over the row of that revision.
    Release { shard: Shard, over: Revision, row: Owner },
}

/// Where a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Elsewhere,
    Claiming { over: Option<Revision>, until: Moment },
    Preparing,
    Active,
    Stopping,
    Releasing { over: Option<Revision>, until: Moment },
}

/// A shard's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) revision: Revision,
    /// `None`: the row cannot be read.
    pub(super) row: Option<Owner>,
}

/// A shard.
#[derive(Clone, Debug)]
struct Known {
    phase: Phase,
    held: Option<Held>,
    /// Since when the owner has no standing in the view.
    strange_since: Option<Moment>,
    next_try: Moment,
}

/// The shards, and this replica's part.
#[derive(Clone, Debug)]
pub(super) struct Placement {
    me: ReplicaName,
    shards: Vec<Known>,
    /// The lives of this very process.
    lives: BTreeSet<Epoch>,
}

impl Placement {
    pub(super) fn new(me: ReplicaName) -> Self {
        let known = Known { phase: Phase::Elsewhere, held: None, strange_since: None, next_try: Moment::default() };
        Self { me, shards: vec![known; SHARDS.into()], lives: BTreeSet::new() }
    }

    /// A shard's row has come by the watch, behind all rows that were written before.
    pub(super) fn seen(&mut self, shard: Shard, held: Held) {
        let known = &mut self.shards[shard.index()];
        if known.held.as_ref().is_none_or(|before| before.revision < held.revision) {
            (known.held, known.strange_since) = (Some(held), None);
        }
    }

    /// A shard's row is gone.
    pub(super) fn gone(&mut self, shard: Shard, revision: Revision) {
        let known = &mut self.shards[shard.index()];
        if known.held.as_ref().is_some_and(|before| before.revision <= revision) {
            (known.held, known.strange_since) = (None, None);
        }
    }

    /// The bucket is another: all that was known is void.
    pub(super) fn reset(&mut self) {
        self.shards.iter_mut().for_each(|known| (known.held, known.strange_since) = (None, None));
    }

    /// The shard's transactions are taken up. Whether that was awaited still.
    pub(super) fn prepared(&mut self, shard: Shard) -> bool {
        let phase = &mut self.shards[shard.index()].phase;
        let is_due = *phase == Phase::Preparing;
        if is_due {
            *phase = Phase::Active;
        }
        is_due
    }

    /// All effects of the shard have ended. The next look gives the shard away, where it is ours.
    pub(super) fn stopped(&mut self, shard: Shard) {
        let phase = &mut self.shards[shard.index()].phase;
        if *phase == Phase::Stopping {
            *phase = Phase::Elsewhere;
        }
    }

    /// A claim or a release met a conflict, or has no answer.
    pub(super) fn failed(&mut self, now: Moment, shard: Shard) {
        let known = &mut self.shards[shard.index()];
        known.next_try = now.after(RETRY);
        if matches!(known.phase, Phase::Claiming { .. } | Phase::Releasing { .. }) {
            known.phase = Phase::Elsewhere;
        }
    }

    /// A shard is not given away yet, for want of rows that are still to be written.
    pub(super) fn postpone(&mut self, now: Moment, shard: Shard) {
        let known = &mut self.shards[shard.index()];
        (known.phase, known.next_try) = (Phase::Elsewhere, now.after(FLUSH_LOOK));
    }

    /// Whether this replica has no shard, and gives none away either.
    pub(super) fn is_empty(&self, life: Option<Epoch>) -> bool {
        let is_out = |shard| {
            !self.is_mine(life, shard) && matches!(self.phase(shard), Phase::Elsewhere | Phase::Releasing { .. })
        };
        Shard::all().all(is_out)
    }

    /// The phase of a shard.
    pub(super) fn phase(&self, shard: Shard) -> Phase {
        self.shards[shard.index()].phase
    }

    /// The replica that a shard's row names.
    pub(super) fn owner(&self, shard: Shard) -> Option<&ReplicaName> {
        let row = self.shards[shard.index()].held.as_ref()?.row.as_ref()?;
        Some(&row.replica)
    }

    /// The actions that are due by now.
    pub(super) fn look(&mut self, now: Moment, around: Around<'_>) -> Vec<Action> {
        self.lives.extend(around.life);
        Shard::all().filter_map(|shard| self.step(now, around, shard)).collect()
    }

    fn step(&mut self, now: Moment, around: Around<'_>, shard: Shard) -> Option<Action> {
        let is_chosen = !around.leaves && chosen(shard, around.candidates) == Some(&self.me);
        let is_mine = self.is_mine(around.life, shard);
        let known = &mut self.shards[shard.index()];
        let revision = known.held.as_ref().map(|held| held.revision);
        match known.phase {
            Phase::Preparing | Phase::Active if is_mine && is_chosen => return None,
            Phase::Preparing | Phase::Active => {
                known.phase = Phase::Stopping;
                return Some(Action::Stop(shard));
            }
            Phase::Stopping => return None,
            Phase::Claiming { over, until } | Phase::Releasing { over, until } if revision == over && now < until => {
                return None;
            }
            Phase::Elsewhere | Phase::Claiming { .. } | Phase::Releasing { .. } => known.phase = Phase::Elsewhere,
        }
        if is_mine && is_chosen {
            known.phase = Phase::Preparing;
            return Some(Action::Prepare(shard));
        }
        if is_mine {
            return self.release(now, around, shard);
        }
        if !is_chosen || !around.takes || now < known.next_try {
            return None;
        }
        let reason = self.taken(now, around, shard)?;
        self.shards[shard.index()].phase = Phase::Claiming { over: revision, until: now.after(ANSWER) };
        Some(Action::Claim { shard, over: revision, reason })
    }

    /// Gives a shard away that is this replica's still.
    fn release(&mut self, now: Moment, around: Around<'_>, shard: Shard) -> Option<Action> {
        let known = &mut self.shards[shard.index()];
        if now < known.next_try || !is_of(known.held.as_ref(), &self.me, around.life) {
            return None;
        }
        let (revision, mut row) = known.held.as_ref().and_then(|held| Some((held.revision, held.row.clone()?)))?;
        row.released = Some(if around.leaves { MoveReason::Leaving } else { MoveReason::Balancing });
        known.phase = Phase::Releasing { over: Some(revision), until: now.after(ANSWER) };
        Some(Action::Release { shard, over: revision, row })
    }

    /// Whether a shard can be taken now, and why it moves: not at all where it had no owner.
    fn taken(&mut self, now: Moment, around: Around<'_>, shard: Shard) -> Option<Option<MoveReason>> {
        let known = &mut self.shards[shard.index()];
        let row = known.held.as_ref().and_then(|held| held.row.as_ref());
        let standing = row.map(|row| {
            let member = around.view.members.get(&row.replica).filter(|member| member.epoch == row.epoch);
            (row, member.map(|member| &member.state))
        });
        match standing {
            Some((Owner { released: Some(reason), .. }, _)) => Some(Some(*reason)),
            // An earlier life of this process, all of whose effects have ended.
            Some((row, _)) if row.replica == self.me && self.lives.contains(&row.epoch) => {
                Some(Some(MoveReason::Failed))
            }
            Some((_, Some(MemberState::Left))) => Some(Some(MoveReason::Leaving)),
            Some((_, Some(MemberState::Failed))) => Some(Some(MoveReason::Failed)),
            Some((_, Some(_))) => None,
            Some((_, None)) | None => {
                let since = *known.strange_since.get_or_insert(now);
                let reason = known.held.as_ref().map(|_| MoveReason::Failed);
                (now.since(since) >= around.failover).then_some(reason)
            }
        }
    }

    /// Whether a shard is of this life of this replica, and not given away.
    pub(super) fn is_mine(&self, life: Option<Epoch>, shard: Shard) -> bool {
        is_of(self.shards[shard.index()].held.as_ref(), &self.me, life)
    }
}

/// Whether the row names this life of the replica, which has not given the shard away.
fn is_of(held: Option<&Held>, me: &ReplicaName, life: Option<Epoch>) -> bool {
    let row = held.and_then(|held| held.row.as_ref());
    row.is_some_and(|row| row.replica == *me && Some(row.epoch) == life && row.released.is_none())
}

#[cfg(test)]
mod tests;
