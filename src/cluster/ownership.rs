//! Owners of the shards of work: a replica's own part as a plain value. No I/O and no clock.
//!
//! A shard belongs to the active replica that rendezvous hashing names, so a replica that comes or
//! goes moves only its own shards. A move is one compare-and-set of the shard's key:
//!
//! - **Handed over.** The owner is alive and the shard belongs to another: the owner begins no
//!   effect, waits for those under way, and writes the new owner. The new owner begins at once.
//! - **Taken.** The owner failed or left: the replica to which the shard belongs writes itself, and
//!   waits for the failover timeout from the answer of the store before it begins.
//!
//! # Why a shard never has two active owners
//!
//! A single watch tells all keys in the order of revisions. An owner acts only while a heartbeat
//! that was sent within the lease has come back on that watch, so the owner has then seen each move
//! that the store took before. A move that the owner has not seen is younger than that heartbeat,
//! and the wait after a move is longer than the lease.

mod input;
mod rendezvous;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::{
    input::{Effect, Input, Watched},
    rendezvous::place,
};
use super::{
    lease::WriteError,
    moment::Moment,
    timing::{Timing, mix},
};
use crate::domain::fleet::{
    Epoch, MemberState, MoveReason, Ownership, ReplicaName, Revision, ShardKey, StoreRevision, View,
};

/// The most writes that wait for the store's answers.
const MOST_WRITES: usize = 16;

/// The newest entry of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    revision: StoreRevision,
    ownership: Option<Ownership>,
    is_listed: bool,
}

/// How far this replica is with a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// Not the owner, as far as this replica knows.
    #[default]
    None,
    /// The owner, waiting for the time of the owner before to run out.
    Waiting { token: StoreRevision, until: Moment },
    /// The owner.
    Owner { token: StoreRevision },
    /// The owner, ending the effects to hand the shard over.
    Stopping { token: StoreRevision },
    /// The owner without an effect under way: may hand over, may not begin.
    Stopped { token: StoreRevision },
    /// Not the owner any more, with effects under way.
    Lost,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    seen: Option<Seen>,
    part: Part,
    /// The request under way: its number and whether it is a read.
    pending: Option<(u64, bool)>,
    wants_read: bool,
    next_try: Moment,
    /// The replica to which the shard belongs in the newest view.
    place: Option<ReplicaName>,
}

/// The part of a replica in the ownership of all shards.
#[derive(Clone, Debug)]
pub struct Shards {
    me: ReplicaName,
    timing: Timing,
    epoch: Option<Epoch>,
    sure_until: Option<Moment>,
    view: View,
    is_synced: bool,
    sequence: u64,
    shards: BTreeMap<ShardKey, Shard>,
}

impl Shards {
    /// The part of a replica that owns nothing yet.
    pub fn new(me: ReplicaName, timing: Timing) -> Self {
        let shards = ShardKey::all_senders().map(|shard| (shard, Shard::default())).collect();
        Self { me, timing, epoch: None, sure_until: None, view: View::default(), is_synced: false, sequence: 0, shards }
    }

    /// Takes an input of the moment `now`.
    #[must_use]
    pub fn input(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Watch(watched) => self.watched(&mut effects, now, watched),
            Input::Wrote { shard, sequence, outcome } => self.wrote(&mut effects, now, &shard, sequence, outcome),
            Input::Read { shard, sequence, outcome } => self.read(&mut effects, now, &shard, sequence, outcome),
            Input::View(view) => {
                self.view = view;
                for (shard, known) in &mut self.shards {
                    known.place = place(shard, &self.view).cloned();
                }
            }
            Input::Life(epoch) => {
                if self.epoch.is_some() && self.epoch != epoch {
                    self.lose_all(&mut effects);
                }
                self.epoch = epoch;
            }
            Input::Sure(until) => self.sure_until = until,
            Input::Drained(shard) => {
                if let Some(known) = self.shards.get_mut(&shard) {
                    known.part = match known.part {
                        Part::Stopping { token } => Part::Stopped { token },
                        Part::Lost => Part::None,
                        other => other,
                    };
                }
            }
            Input::Queues(queues) => {
                for shard in queues {
                    let place = place(&shard, &self.view).cloned();
                    self.shards.entry(shard).or_default().place = place;
                }
            }
            Input::Tick => {}
        }
        self.act(&mut effects, now);
        effects
    }

    /// Whether an effect of the shard may begin now. To be asked before each effect, with a fresh
    /// moment. The answer is the fencing token.
    pub fn may_begin(&self, shard: &ShardKey, now: Moment) -> Option<StoreRevision> {
        match self.shards.get(shard)?.part {
            Part::Owner { token } if self.is_sure(now) => Some(token),
            _ => None,
        }
    }

    /// Each shard's owner as the store has it, with the reason.
    pub fn owners(&self) -> impl Iterator<Item = (&ShardKey, &Ownership)> {
        self.shards.iter().filter_map(|(shard, known)| Some((shard, known.seen.as_ref()?.ownership.as_ref()?)))
    }

    /// Whether this replica owns no shard and has no effect under way: a draining one may leave.
    pub fn is_empty(&self) -> bool {
        self.shards.values().all(|known| known.part == Part::None && known.pending.is_none())
            && self.owners().all(|(_, ownership)| self.epoch.is_none_or(|epoch| !ownership.is_of(&self.me, epoch)))
    }

    fn is_sure(&self, now: Moment) -> bool {
        self.epoch.is_some() && self.sure_until.is_some_and(|until| now < until)
    }

    fn watched(&mut self, effects: &mut Vec<Effect>, now: Moment, watched: Watched) {
        match watched {
            Watched::Shard { shard, revision, ownership } => self.saw(effects, now, &shard, revision, ownership, false),
            Watched::Gone { shard, revision } => {
                let known = self.shards.entry(shard.clone()).or_default();
                if known.seen.as_ref().is_some_and(|seen| seen.revision < revision) {
                    known.seen = None;
                    self.lose(effects, &shard);
                }
            }
            Watched::Synced => {
                self.is_synced = true;
                let unlisted = |known: &Shard| known.seen.as_ref().is_some_and(|seen| !seen.is_listed);
                let gone: Vec<_> = self.shards.iter().filter(|(_, known)| unlisted(known)).collect();
                let gone: Vec<_> = gone.into_iter().map(|(shard, _)| shard.clone()).collect();
                for shard in gone {
                    self.shards.entry(shard.clone()).and_modify(|known| known.seen = None);
                    self.lose(effects, &shard);
                }
            }
            Watched::Reset => {
                self.is_synced = false;
                let seen = self.shards.values_mut().filter_map(|known| known.seen.as_mut());
                seen.for_each(|seen| seen.is_listed = false);
            }
            Watched::Recreated => {
                self.lose_all(effects);
                self.is_synced = false;
                for known in self.shards.values_mut() {
                    (known.seen, known.pending, known.wants_read) = (None, None, false);
                }
            }
        }
    }

    /// An entry is known. `is_answer`: it is the answer to an own write or read.
    fn saw(
        &mut self,
        effects: &mut Vec<Effect>,
        now: Moment,
        shard: &ShardKey,
        revision: StoreRevision,
        ownership: Option<Ownership>,
        is_answer: bool,
    ) {
        let known = self.shards.entry(shard.clone()).or_insert_with(|| {
            let place = place(shard, &self.view).cloned();
            Shard { place, ..Shard::default() }
        });
        if let Some(seen) = &mut known.seen {
            seen.is_listed |= !is_answer;
            if seen.revision >= revision {
                return;
            }
        }
        let before = known.seen.take().and_then(|seen| seen.ownership);
        if let Some(new) = ownership.as_ref()
            && before.as_ref().is_none_or(|before| before.owner != new.owner || before.epoch != new.epoch)
        {
            let (from, to) = (new.from.clone(), new.owner.clone());
            effects.push(Effect::Moved { shard: shard.clone(), from, to, reason: new.reason.clone() });
        }
        let is_mine = ownership.as_ref().is_some_and(|new| self.epoch.is_some_and(|epoch| new.is_of(&self.me, epoch)));
        known.seen = Some(Seen { revision, ownership, is_listed: true });
        if !is_mine {
            return self.lose(effects, shard);
        }
        known.part = match known.part {
            Part::Waiting { until, .. } => Part::Waiting { token: revision, until },
            Part::Owner { .. } => Part::Owner { token: revision },
            // The shard was to be handed over and is kept: that write can land no more.
            Part::Stopped { .. } => Part::Waiting { token: revision, until: now },
            other => other,
        };
    }

    /// The shard is not this replica's any more.
    fn lose(&mut self, effects: &mut Vec<Effect>, shard: &ShardKey) {
        let Some(known) = self.shards.get_mut(shard) else { return };
        known.part = match known.part {
            Part::Owner { .. } => {
                effects.push(Effect::Stop { shard: shard.clone() });
                Part::Lost
            }
            Part::Stopping { .. } | Part::Lost => Part::Lost,
            Part::None | Part::Waiting { .. } | Part::Stopped { .. } => Part::None,
        };
    }

    fn lose_all(&mut self, effects: &mut Vec<Effect>) {
        let all: Vec<_> = self.shards.keys().cloned().collect();
        all.iter().for_each(|shard| self.lose(effects, shard));
    }

    fn wrote(
        &mut self,
        effects: &mut Vec<Effect>,
        now: Moment,
        shard: &ShardKey,
        number: u64,
        outcome: Result<StoreRevision, WriteError>,
    ) {
        let Some(known) = self.shards.get_mut(shard) else { return };
        if known.pending != Some((number, false)) {
            return;
        }
        known.pending = None;
        // The watch tells the new owner; what comes before that is as unsure as a lost answer.
        known.next_try = now.after(self.timing.retry_pause(mix(number)));
        match outcome {
            Ok(_) => {}
            Err(WriteError::Conflict) => {
                effects.push(Effect::CasLost);
                known.wants_read = true;
            }
            Err(WriteError::Ambiguous) => known.wants_read = true,
            Err(WriteError::Unavailable) => {}
        }
    }

    fn read(
        &mut self,
        effects: &mut Vec<Effect>,
        now: Moment,
        shard: &ShardKey,
        number: u64,
        outcome: Result<Option<(StoreRevision, Option<Ownership>)>, ()>,
    ) {
        let Some(known) = self.shards.get_mut(shard) else { return };
        if known.pending != Some((number, true)) {
            return;
        }
        known.pending = None;
        known.next_try = now.after(self.timing.retry_pause(mix(number)));
        match outcome {
            Err(()) => {}
            Ok(entry) => {
                known.wants_read = false;
                if let Some((revision, ownership)) = entry {
                    self.saw(effects, now, shard, revision, ownership, true);
                }
            }
        }
    }

    fn act(&mut self, effects: &mut Vec<Effect>, now: Moment) {
        let is_sure = self.is_sure(now);
        let mut under_way = self.shards.values().filter(|known| known.pending.is_some()).count();
        let shards: Vec<_> = self.shards.keys().cloned().collect();
        for shard in shards {
            let Some(known) = self.shards.get_mut(&shard) else { continue };
            let place = known.place.clone();
            // Effects of an earlier ownership have ended before another one waits.
            if known.part == Part::None
                && let Some(seen) = &known.seen
                && let Some(owner) = &seen.ownership
                && self.epoch.is_some_and(|epoch| owner.is_of(&self.me, epoch))
            {
                let until = if owner.handed_over { now } else { now.after(self.timing.failover) };
                known.part = Part::Waiting { token: seen.revision, until };
            }
            match known.part {
                Part::Waiting { token, until } if is_sure && now >= until => {
                    known.part = Part::Owner { token };
                    effects.push(Effect::Begin { shard: shard.clone(), token });
                }
                Part::Owner { token } if place.as_ref().is_some_and(|place| *place != self.me) => {
                    known.part = Part::Stopping { token };
                    effects.push(Effect::Stop { shard: shard.clone() });
                }
                _ => {}
            }
            if known.pending.is_some() || now < known.next_try || under_way >= MOST_WRITES {
                continue;
            }
            let (sequence, is_read) = (self.sequence + 1, known.wants_read);
            let effect = if is_read {
                Some(Effect::Read { shard: shard.clone(), sequence })
            } else {
                self.wish(&shard, place.as_ref(), sequence, is_sure)
            };
            if let (Some(effect), Some(known)) = (effect, self.shards.get_mut(&shard)) {
                effects.push(effect);
                known.pending = Some((sequence, is_read));
                self.sequence = sequence;
                under_way += 1;
            }
        }
    }

    /// The write that this replica wants to make for a shard.
    fn wish(&self, shard: &ShardKey, place: Option<&ReplicaName>, sequence: u64, is_sure: bool) -> Option<Effect> {
        let (epoch, place) = (self.epoch.filter(|_| self.is_synced && is_sure)?, place?);
        let stamp = Revision { epoch, sequence };
        let known = self.shards.get(shard)?;
        let expected = known.seen.as_ref().map(|seen| seen.revision);
        let write = |ownership| Some(Effect::Write { shard: shard.clone(), sequence, expected, ownership });
        match (known.part, *place == self.me) {
            (Part::None, true) => {
                let owner = known.seen.as_ref().and_then(|seen| seen.ownership.as_ref());
                let reason = match owner {
                    None => MoveReason::New,
                    Some(owner) => match self.view.state_of(&owner.owner, owner.epoch) {
                        // The owner hands over by itself, or is about to join.
                        Some(MemberState::Active | MemberState::Draining | MemberState::Joining) => return None,
                        Some(MemberState::Left) => MoveReason::Leaving,
                        _ => MoveReason::Failed,
                    },
                };
                let from = owner.map(|owner| owner.owner.clone());
                let mut ownership = Ownership::taken(self.me.clone(), stamp, from, reason);
                ownership.other = owner.map(|owner| owner.other.clone()).unwrap_or_default();
                write(ownership)
            }
            (Part::Stopped { .. }, false) => {
                let is_leaving = self.view.state_of(&self.me, epoch) != Some(MemberState::Active);
                let reason = if is_leaving { MoveReason::Leaving } else { MoveReason::Balancing };
                let mut ownership = Ownership::taken(place.clone(), stamp, Some(self.me.clone()), reason);
                (ownership.epoch, ownership.handed_over) = (self.view.members.get(place)?.epoch, true);
                write(ownership)
            }
            (Part::Stopped { .. }, true) => {
                // A write that handed the shard over may still land, unless the key changes first.
                write(Ownership::taken(self.me.clone(), stamp, Some(self.me.clone()), MoveReason::Balancing))
            }
            (Part::Waiting { .. }, false) => {
                // Never begun: given on without the right to begin at once.
                let mut ownership =
                    Ownership::taken(place.clone(), stamp, Some(self.me.clone()), MoveReason::Balancing);
                ownership.epoch = self.view.members.get(place)?.epoch;
                write(ownership)
            }
            _ => None,
        }
    }

    /// When time alone changes something next; [`Input::Tick`] is wanted then.
    pub fn next_due(&self, now: Moment) -> Option<Moment> {
        let is_sure = self.is_sure(now);
        let due = self.shards.iter().filter_map(|(shard, known)| {
            let begins = match known.part {
                Part::Waiting { until, .. } if is_sure => Some(until),
                _ => None,
            };
            let wishes = known.wants_read || self.wish(shard, known.place.as_ref(), 0, is_sure).is_some();
            let request = (known.pending.is_none() && wishes).then_some(known.next_try);
            begins.into_iter().chain(request).min()
        });
        due.min()
    }
}
