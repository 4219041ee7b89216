//! Membership in the cluster: a replica's own part as a plain value. No I/O and no clock.
//!
//! A replica joins in two steps. The first is the registration: a write of the own key, whose
//! revision is the [`Epoch`]. The second follows when the replica has read all copies: the view
//! gets the replica as active. The view is one key under compare-and-set, so the revision is the
//! view's number, and a replica that was cut off takes the newest number with the next news.
//!
//! A replica is failed by any active other that has not heard of it for the failover timeout. To
//! judge others a replica must hear itself: the own heartbeat came back on the watch within the
//! lease, and so did all that the store took before. A replica that was paused judges nobody.

mod input;
mod peers;
mod silence;
mod standing;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc};

pub use self::{
    input::{Effect, Input, Transition, Turn, Watched},
    standing::{Illegal, MemberChange, can_become, changes, with},
};
use self::{
    peers::{Peer, Peers},
    silence::is_there,
};
use super::{lease::WriteError, moment::Moment};
use crate::domain::fleet::{
    Epoch, Heartbeat, MemberState, ReplicaName, StoreRevision, View, ViewNumber,
    timing::{Timing, mix},
};

/// The heartbeats whose sending is remembered, for the watch to confirm.
const REMEMBERED_BEATS: usize = 8;

/// The least time between two heartbeats, in milliseconds.
const BEAT_GAP: u64 = 50;

/// The membership of a replica.
#[derive(Clone, Debug)]
pub struct Membership {
    me: ReplicaName,
    /// Changes with each life, so that an earlier life's entry is not taken for the own one.
    process: u64,
    timing: Timing,
    state: Option<MemberState>,
    epoch: Option<Epoch>,
    peers: Peers,
    /// Rises with the news of the watch: heartbeats and view may be others.
    news: u64,
    view: Option<(ViewNumber, View)>,
    synced_at: Option<Moment>,
    /// The own key's newest revision that is known.
    revision: Option<StoreRevision>,
    sequence: u64,
    pending: Option<(u64, bool)>,
    pending_view: Option<u64>,
    /// Sendings of the newest heartbeats, by their count.
    sent: VecDeque<(u64, Moment)>,
    echoed: Option<Moment>,
    wants_read: bool,
    is_ready: bool,
    is_draining: bool,
    is_empty: bool,
    replaced_by: Option<Epoch>,
    /// When the newest heartbeat was sent.
    last_beat: Moment,
    next_beat: Moment,
    next_try: Moment,
    next_view: Moment,
    next_forget: Moment,
}

impl Membership {
    /// The membership of a process that has not registered. `process` is a number that no other
    /// process has.
    pub fn new(me: ReplicaName, process: u64, timing: Timing, now: Moment) -> Self {
        Self {
            me,
            process,
            timing,
            state: None,
            epoch: None,
            peers: Peers::default(),
            news: 0,
            view: None,
            synced_at: None,
            revision: None,
            sequence: 0,
            pending: None,
            pending_view: None,
            sent: VecDeque::new(),
            echoed: None,
            wants_read: false,
            is_ready: false,
            is_draining: false,
            is_empty: false,
            replaced_by: None,
            last_beat: Moment::default(),
            next_beat: now,
            next_try: now,
            next_view: now,
            next_forget: now,
        }
    }

    /// Takes an input of the moment `now`.
    pub fn input(&mut self, now: Moment, input: Input) -> Turn {
        let mut turn = Turn::default();
        match input {
            Input::Watch(watched) => self.watched(&mut turn, now, watched),
            Input::Wrote { sequence, outcome } => self.wrote(&mut turn, now, sequence, outcome),
            Input::Read { sequence, outcome } => self.read(&mut turn, now, sequence, outcome),
            Input::WroteView { sequence, outcome } => self.wrote_view(&mut turn, now, sequence, outcome),
            Input::Tick => {}
            Input::Ready => self.is_ready = true,
            Input::Beat => {
                self.next_beat = self.next_beat.min(now.max(self.last_beat.after(BEAT_GAP)));
            }
            Input::Drain => self.is_draining = true,
            Input::Emptied => self.is_empty = true,
        }
        self.decide(&mut turn);
        self.act(&mut turn, now);
        turn
    }

    /// Other times count from now on.
    pub fn reload(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// The own standing; none before the first registration.
    pub fn state(&self) -> Option<&MemberState> {
        self.state.as_ref()
    }

    /// The own life.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The newest view.
    pub fn view(&self) -> Option<(ViewNumber, &View)> {
        self.view.as_ref().map(|(number, view)| (*number, view))
    }

    /// The newest heartbeats, with the moments at which they were seen.
    pub fn heartbeats(&self) -> impl Iterator<Item = (&ReplicaName, &Arc<Heartbeat>, Moment)> {
        self.peers.iter().filter_map(|(name, peer)| Some((name, peer.heartbeat.as_ref()?, peer.since)))
    }

    /// Another number whenever the heartbeats or the view may be others.
    pub fn news(&self) -> u64 {
        self.news
    }

    /// The later process of this name that took the place.
    pub fn replaced_by(&self) -> Option<Epoch> {
        self.replaced_by
    }

    /// Until when this replica is a member beyond doubt: a heartbeat sent within the lease was
    /// stored and came back. After that moment others may have failed it.
    pub fn sure_until(&self) -> Option<Moment> {
        let is_member = matches!(self.state, Some(MemberState::Active | MemberState::Draining));
        Some(self.echoed.filter(|_| is_member)?.after(self.timing.lease))
    }

    fn watched(&mut self, turn: &mut Turn, now: Moment, watched: Watched) {
        self.news += 1;
        match watched {
            Watched::Heartbeat { replica, revision, heartbeat } => {
                if replica == self.me {
                    self.saw_own(turn, revision, heartbeat.as_deref(), true);
                }
                let fresh = Peer::new(revision, heartbeat.map(Arc::from), now);
                let (me, view) = (&self.me, self.view.as_ref().map(|(_, view)| view));
                let is_member =
                    |name: &ReplicaName| view.is_some_and(|view| view.members.get(name).is_some_and(is_there));
                if !self.peers.heard(replica, fresh, |name| name == me || is_member(name)) {
                    turn.effects.push(Effect::Unheard);
                }
            }
            Watched::Gone { replica, revision } => {
                self.peers.gone(&replica, revision);
                if replica == self.me && self.revision.is_some_and(|own| own < revision) {
                    self.revision = None;
                }
            }
            Watched::View { revision, view } => self.saw_view(turn, revision.into(), view.unwrap_or_default()),
            Watched::ViewGone { revision } => {
                // Without a standing in a view this life is over, and the next one writes a view.
                if self.view.as_ref().is_some_and(|(number, _)| number.0 < revision.0) {
                    self.view = None;
                }
            }
            Watched::Synced => {
                self.synced_at = Some(now);
                self.peers.synced();
                if self.peers.get(&self.me).is_none() {
                    self.revision = None;
                }
            }
            Watched::Reset => {
                self.synced_at = None;
                self.peers.reset();
            }
            Watched::Recreated => {
                self.peers = Peers::default();
                self.sent.clear();
                (self.view, self.synced_at, self.revision, self.echoed) = (None, None, None, None);
                (self.pending, self.pending_view, self.wants_read) = (None, None, false);
                self.epoch = None;
            }
        }
    }

    /// The own key has this value. An echo came by the watch.
    fn saw_own(&mut self, turn: &mut Turn, revision: StoreRevision, heartbeat: Option<&Heartbeat>, is_echo: bool) {
        if self.revision.is_some_and(|own| revision < own) {
            return;
        }
        let Some(heartbeat) = heartbeat else {
            // A value that speaks for no process: the next heartbeat is written over the value.
            self.revision = Some(revision);
            return;
        };
        if heartbeat.process != self.process {
            self.revision = Some(revision);
            // Before the first registration, a foreign life is the one that this process follows.
            if self.epoch.is_some_and(|epoch| epoch.0 < revision.0) && self.replaced_by.is_none() {
                let by = heartbeat.epoch_at(revision);
                self.replaced_by = Some(by);
                turn.effects.push(Effect::Replaced { by });
            }
            return;
        }
        self.revision = Some(revision);
        let epoch = heartbeat.epoch_at(revision);
        if heartbeat.sequence == 0 && self.state != Some(MemberState::Active) && self.epoch.is_none() {
            self.epoch = Some(epoch);
            turn.effects.push(Effect::Registered(epoch));
        }
        if self.epoch == Some(epoch)
            && is_echo
            && let Some((_, sent)) = self.sent.iter().find(|(sequence, _)| *sequence == heartbeat.sequence)
        {
            self.echoed = self.echoed.max(Some(*sent));
        }
    }

    fn saw_view(&mut self, turn: &mut Turn, number: ViewNumber, view: View) {
        match &self.view {
            Some((known, _)) if *known > number => {}
            Some((known, same)) if *known == number => {
                if *same != view {
                    turn.effects.push(Effect::Violation { number });
                }
            }
            before => {
                let changes = changes(before.as_ref().map_or(&View::default(), |(_, view)| view), &view);
                self.view = Some((number, view));
                turn.effects.push(Effect::View { number, changes });
            }
        }
    }

    fn wrote(&mut self, turn: &mut Turn, now: Moment, number: u64, outcome: Result<StoreRevision, WriteError>) {
        let Some((_, is_registration)) = self.pending.filter(|(sequence, _)| *sequence == number) else { return };
        self.pending = None;
        let is_ok = !matches!(outcome, Err(WriteError::Ambiguous | WriteError::Unavailable));
        turn.effects.push(Effect::Link { is_ok });
        if outcome.is_err() {
            self.next_try = now.after(self.timing.retry_pause(self.process ^ number));
        }
        match outcome {
            Ok(revision) => {
                self.revision = self.revision.max(Some(revision));
                if is_registration && self.epoch.is_none() {
                    self.epoch = Some(revision.into());
                    turn.effects.push(Effect::Registered(revision.into()));
                }
            }
            Err(WriteError::Conflict) => {
                turn.effects.push(Effect::CasLost);
                self.wants_read = true;
            }
            Err(WriteError::Ambiguous) => self.wants_read = true,
            Err(WriteError::Unavailable) => {}
        }
    }

    fn read(
        &mut self,
        turn: &mut Turn,
        now: Moment,
        number: u64,
        outcome: Result<Option<(StoreRevision, Option<Heartbeat>)>, ()>,
    ) {
        if self.pending.is_none_or(|(sequence, _)| sequence != number) {
            return;
        }
        self.pending = None;
        turn.effects.push(Effect::Link { is_ok: outcome.is_ok() });
        match outcome {
            Err(()) => self.next_try = now.after(self.timing.retry_pause(self.process ^ number)),
            Ok(entry) => {
                self.wants_read = false;
                match entry {
                    Some((revision, heartbeat)) => self.saw_own(turn, revision, heartbeat.as_ref(), false),
                    None => self.revision = None,
                }
            }
        }
    }

    fn wrote_view(&mut self, turn: &mut Turn, now: Moment, number: u64, outcome: Result<StoreRevision, WriteError>) {
        if self.pending_view != Some(number) {
            return;
        }
        self.pending_view = None;
        // The watch tells the view, whoever wrote it; after a failure its news may take a moment.
        self.next_view = now.after(self.timing.retry_pause(self.process ^ number));
        if outcome == Err(WriteError::Conflict) {
            turn.effects.push(Effect::CasLost);
        }
    }

    /// The standing of this life in the newest view.
    fn standing(&self) -> Option<MemberState> {
        self.view.as_ref()?.1.state_of(&self.me, self.epoch?)
    }

    /// Changes the own standing at most once.
    fn decide(&mut self, turn: &mut Turn) {
        use MemberState::{Active, Draining, Failed, Joining, Left};
        let to = match &self.state {
            None | Some(Left) if self.epoch.is_some() && !self.is_draining => Joining,
            Some(Joining) if self.epoch.is_none() || self.replaced_by.is_some() => Failed,
            Some(Joining) if matches!(self.standing(), Some(Failed | Left)) => Failed,
            Some(Joining) if self.standing() == Some(Active) => Active,
            Some(Joining) if self.is_draining => Left,
            Some(Active | Draining) if self.epoch.is_none() || self.replaced_by.is_some() => Failed,
            Some(Active | Draining) if matches!(self.standing(), None | Some(Failed)) => Failed,
            Some(Active) if self.standing() == Some(Draining) => Draining,
            Some(Draining) if self.standing() == Some(Left) => Left,
            Some(Failed) if self.replaced_by.is_none() => Left,
            _ => return,
        };
        debug_assert!(self.state.as_ref().is_none_or(|from| can_become(from, &to)), "{:?} to {to}", self.state);
        let is_member = |state: Option<&MemberState>| state == Some(&Active);
        if is_member(self.state.as_ref()) != is_member(Some(&to)) {
            turn.effects.push(Effect::Eligible(to == Active));
        }
        if to == Failed {
            // A life that is over comes back by a new registration only. The one before may still
            // stand in the store, and is none of the next life.
            (self.epoch, self.echoed, self.process) = (None, None, mix(self.process));
        }
        turn.transition = Some(Transition { from: self.state.replace(to.clone()), to });
    }

    fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn act(&mut self, turn: &mut Turn, now: Moment) {
        if self.replaced_by.is_some() {
            return;
        }
        if self.pending.is_none() && now >= self.next_try {
            self.write_own(turn, now);
        }
        if now >= self.next_forget {
            self.forget(turn, now);
        }
        if self.pending_view.is_none()
            && now >= self.next_view
            && let Some(view) = self.proposal(now)
        {
            let sequence = self.number();
            self.pending_view = Some(sequence);
            let expected = self.view.as_ref().map(|(number, _)| StoreRevision(number.0));
            turn.effects.push(Effect::WriteView { sequence, expected, view });
        }
    }

    fn write_own(&mut self, turn: &mut Turn, now: Moment) {
        if self.wants_read {
            let sequence = self.number();
            self.pending = Some((sequence, false));
            turn.effects.push(Effect::Read { sequence });
            return;
        }
        let registers = self.wants_registration();
        let beats = matches!(self.state, Some(MemberState::Active | MemberState::Draining)) && now >= self.next_beat;
        if !registers && !beats {
            return;
        }
        let sequence = self.number();
        let mut heartbeat = Heartbeat::registration(self.process);
        if let (false, Some(epoch), Some(state)) = (registers, self.epoch, &self.state) {
            (heartbeat.epoch, heartbeat.sequence, heartbeat.state) = (Some(epoch), sequence, state.clone());
            heartbeat.view = self.view.as_ref().map(|(number, _)| *number).unwrap_or_default();
            self.sent.push_back((sequence, now));
            if self.sent.len() > REMEMBERED_BEATS {
                self.sent.pop_front();
            }
        }
        self.pending = Some((sequence, registers));
        (self.last_beat, self.next_beat) = (now, now.after(self.timing.heartbeat));
        turn.effects.push(Effect::Write { sequence, expected: self.revision, heartbeat: Box::new(heartbeat) });
    }

    fn wants_registration(&self) -> bool {
        let is_out = matches!(self.state, None | Some(MemberState::Left));
        is_out && self.epoch.is_none() && !self.is_draining && self.synced_at.is_some()
    }

    /// The view as this replica wants the view to be, if that is another.
    fn proposal(&self, now: Moment) -> Option<View> {
        use MemberState::{Active, Draining, Failed, Joining, Left};
        self.synced_at?;
        let empty = View::default();
        let view = self.view.as_ref().map_or(&empty, |(_, view)| view);
        let own = |to| with(view, &self.me, self.epoch?, to).ok();
        match self.state.as_ref()? {
            Joining if self.is_ready && !self.is_draining => own(Active),
            Active if self.is_draining => own(Draining),
            Draining if self.is_empty => own(Left),
            Active => {
                let (silent, epoch) = self.silent(now).next()?;
                with(view, silent, epoch, Failed).ok()
            }
            _ => None,
        }
    }

    /// When time alone changes something next; [`Input::Tick`] is wanted then.
    pub fn next_due(&self, now: Moment) -> Option<Moment> {
        if self.replaced_by.is_some() {
            return None;
        }
        let is_member = matches!(self.state, Some(MemberState::Active | MemberState::Draining));
        let beat = is_member.then_some(self.next_beat);
        let request = match (self.pending, self.wants_read || self.wants_registration()) {
            (Some(_), _) => None,
            (None, true) => Some(self.next_try),
            (None, false) => beat.map(|at| at.max(self.next_try)),
        };
        let steps = (self.state == Some(MemberState::Failed)).then_some(now);
        let silent = self.deadlines().map(|(_, _, at)| at).min().filter(|_| self.state == Some(MemberState::Active));
        let silent = silent.filter(|at| *at > now || self.judges(now)).map(|at| at.max(self.next_view));
        let wishes = self.proposal(now).map(|_| self.next_view);
        let view = silent.into_iter().chain(wishes).min().filter(|_| self.pending_view.is_none());
        request.into_iter().chain(steps).chain(view).min()
    }
}
