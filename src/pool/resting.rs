//! Rests of nodes that refuse calls for quota or load. After a rest, a single call goes as a scout,
//! then more and more calls.
//!
//! Rule: a refusal concerns one method, or one route, first: calls of that method pass the node
//! over while the method rests, all others go on. When a second method is refused, and no call was
//! answered in between, the whole node rests. A rest lasts as long as `Retry-After` says, and at
//! least for a pause that doubles with each refusal of a scout; good answers end the rest. A scout
//! that stays out holds up the next for [`SCOUTING`] only. Reason: providers limit single methods
//! as well as accounts, and a node that is called in spite of its refusals may refuse for longer.
//! Example without `Retry-After`: `eth_getLogs` is refused and rests for 1 s; the scout is refused
//! too, and the rest goes on for 2 s.
//!
//! Rule: nodes of one account rest together. Reason: a provider counts the calls of all keys and
//! networks of an account, so that a call at the second node is refused too, and lengthens the
//! refusal.
//!
//! Methods that a node fails again and again rest in the same way, with two differences: when no
//! other node is left, such methods are tried; and only that node is concerned.

mod of_a_node;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

pub use self::of_a_node::{NodeClaim, Resting};
use crate::domain::{
    backoff::doubled,
    beacon_route::{Class, Route},
    method::{Method, MethodId},
};

/// The first pause after a refusal, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The same between the second tries of calls that every node failed.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const LONGEST_AGAIN: Duration = Duration::from_secs(2);
/// A rest is longer than was asked for by a random part of this fraction, and of this time at most:
/// proxies that were refused together do not come back together.
const JITTER: f64 = 10.0;
const LONGEST_JITTER: Duration = Duration::from_secs(1);
/// A rest is dropped when no call has tested the node for so long after its end.
const LAPSE: Duration = Duration::from_secs(60);
/// A rest is dropped when more calls than this might be under way at once.
const WIDEST: u32 = 64;
/// A scout that has been out for so long keeps no other from going.
const SCOUTING: Duration = Duration::from_secs(2);
/// The most rests that are kept of one node: clients choose the paths that a node may refuse.
const MOST_RESTS: usize = 128;
/// Methods that the table does not know are hashed into so many kinds.
const UNKNOWN_KINDS: u32 = 64;

/// Which calls a rest is about: those of a method, or of a route of the beacon API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// The method, or the group of routes.
    id: u32,
    /// The route in its group; 0 for methods.
    route: u32,
}

impl Kind {
    /// The kind of calls of the method `name`, which has this id in the table.
    pub fn of_method(MethodId(index): MethodId, name: &str) -> Self {
        let place = u32::try_from(index).unwrap_or(u32::MAX);
        if index < Method::COUNT {
            return Self { id: place, route: 0 };
        }
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self { id: place.saturating_add(hash % UNKNOWN_KINDS), route: 0 }
    }

    /// The kind of requests of this route. A node may hang over signed messages and still answer
    /// all other requests of the same group, so publications are groups of their own.
    pub fn of_route(route: &Route) -> Self {
        let MethodId(index) = route.id;
        let place = if route.class == Class::Publish { Route::GROUPS.len() + index } else { index };
        Self { id: u32::try_from(place).unwrap_or(u32::MAX), route: route.name }
    }

    /// The kind of all that fails together with this one: a method, or a group of routes.
    fn group(self) -> Self {
        Self { route: 0, ..self }
    }

    /// The id in the table, or the first id behind the table for unknown methods.
    pub fn id(self) -> MethodId {
        MethodId((self.id as usize).min(Method::COUNT))
    }
}

/// The scope of a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The node: calls were refused.
    Whole,
    /// The node: probes are refused.
    Probes,
    /// A kind of calls that the node refuses.
    Refused(Kind),
    /// A group of kinds that the node fails.
    Failed(Kind),
    /// Second tries of calls that every node failed.
    Again,
}

/// Whether a call may go to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestState {
    /// Yes.
    Free,
    /// Yes, as a scout: with a [`Claim`].
    Due,
    /// Only if no other node is left.
    Last,
    /// Not before this moment, unless a scout returns before.
    Rests(Instant),
}

impl RestState {
    /// The state of a call that both concern.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rests(one), Self::Rests(other)) => Self::Rests(one.max(other)),
            (Self::Rests(until), _) | (_, Self::Rests(until)) => Self::Rests(until),
            (Self::Last, _) | (_, Self::Last) => Self::Last,
            (Self::Due, _) | (_, Self::Due) => Self::Due,
            (Self::Free, Self::Free) => Self::Free,
        }
    }
}

/// A scout's place among [`Rests`], to be given back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claim([u64; 4]);

#[derive(Clone, Copy, Debug)]
struct Rest {
    what: What,
    /// No two have had the same.
    number: u64,
    pause: Duration,
    until: Instant,
    /// When the node last refused.
    refused_at: Instant,
    /// How many calls may be under way after its end, and how many are.
    width: u32,
    out: u32,
    /// When the latest of these set out.
    scouted_at: Option<Instant>,
}

impl Rest {
    fn is_for(&self, kind: Kind, again: bool) -> bool {
        match self.what {
            What::Whole | What::Probes => true,
            What::Refused(other) => other == kind,
            What::Failed(other) => other == kind.group(),
            What::Again => again,
        }
    }

    fn admits(&self, now: Instant) -> bool {
        now >= self.until && (self.out < self.width || now >= self.next_scout())
    }

    /// When the next scout may go though those that are out have not returned.
    fn next_scout(&self) -> Instant {
        self.scouted_at.map_or(self.until, |at| self.until.max(at + SCOUTING))
    }

    fn bounds(what: What) -> (Duration, Duration) {
        if what == What::Again { (FIRST_AGAIN, LONGEST_AGAIN) } else { (FIRST_PAUSE, MAX_PAUSE) }
    }
}

#[derive(Debug, Default)]
struct Table {
    rests: Vec<Rest>,
    last_number: u64,
    /// The kind that was last refused, if nothing was answered since.
    refused: Option<Kind>,
    /// Draws the time that is added to a rest.
    jitter: Option<fastrand::Rng>,
}

impl Table {
    fn find(&mut self, what: What) -> Option<&mut Rest> {
        self.rests.iter_mut().find(|rest| rest.what == what)
    }

    /// The node refused, and asks to be left alone for `wait`. A refusal during the rest is of a
    /// call that was sent before the rest.
    fn rest(&mut self, what: What, wait: Duration, now: Instant) {
        let (first, longest) = Rest::bounds(what);
        let share = self.jitter.as_mut().map_or(0.0, fastrand::Rng::f64);
        let jittered = |rest: Duration| rest + rest.div_f64(JITTER).min(LONGEST_JITTER).mul_f64(share);
        let Some(rest) = self.find(what) else {
            self.last_number += 1;
            if self.rests.len() >= MOST_RESTS
                && let Some(soonest) = (0..self.rests.len()).min_by_key(|&place| self.rests[place].until)
            {
                self.rests.swap_remove(soonest);
            }
            let (number, until) = (self.last_number, now + jittered(first.max(wait)));
            let (refused_at, scouted_at) = (now, None);
            self.rests.push(Rest { what, number, pause: first, until, refused_at, width: 1, out: 0, scouted_at });
            return;
        };
        rest.refused_at = now;
        if now >= rest.until {
            rest.pause = if rest.width > 1 { first } else { doubled(rest.pause, 1, longest) };
            rest.width = 1;
            rest.until = now + jittered(rest.pause.max(wait));
        } else if now + wait > rest.until {
            rest.until = now + jittered(wait);
        }
    }

    fn forget(&mut self, over: impl Fn(&Rest) -> bool) {
        self.rests.retain(|rest| !over(rest));
    }
}

/// Rests after refusals, which all nodes of an account share, or those after failures, which
/// are a node's own. The cost is one atomic load while there are none.
#[derive(Debug, Default)]
pub(super) struct Rests {
    any: AtomicBool,
    table: Mutex<Table>,
}

impl Rests {
    /// No rests yet. Their jitter follows from `seed`.
    pub(super) fn jittered(seed: u64) -> Self {
        let table = Table { jitter: Some(fastrand::Rng::with_seed(seed)), ..Table::default() };
        Self { any: AtomicBool::new(false), table: Mutex::new(table) }
    }

    /// Whether anything may rest.
    pub(super) fn is_any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether a call of this kind may go to the node; `again`: every node failed the call before.
    pub(super) fn state(&self, kind: Kind, again: bool, now: Instant) -> RestState {
        if !self.is_any() {
            return RestState::Free;
        }
        let mut table = self.lock();
        table.forget(|rest| rest.out == 0 && now >= rest.until + LAPSE);
        if !table.rests.iter().any(|rest| matches!(rest.what, What::Refused(_))) {
            table.refused = None;
        }
        self.any.store(!table.rests.is_empty(), Relaxed);
        let mut state = RestState::Free;
        for rest in table.rests.iter().filter(|rest| rest.is_for(kind, again)) {
            let this = match (rest.admits(now), rest.what) {
                (true, _) => RestState::Due,
                (false, What::Failed(_)) => RestState::Last,
                (false, _) => RestState::Rests(rest.next_scout()),
            };
            state = state.and(this);
        }
        state
    }

    /// Takes a scout's place, if there is one.
    pub(super) fn claim(&self, kind: Kind, again: bool, now: Instant) -> Option<Claim> {
        let mut table = self.lock();
        if table.rests.iter().any(|rest| rest.is_for(kind, again) && !rest.admits(now)) {
            return None;
        }
        let mut claim = Claim::default();
        let rests = table.rests.iter_mut().filter(|rest| rest.is_for(kind, again));
        for (rest, place) in rests.zip(&mut claim.0) {
            rest.out += 1;
            rest.scouted_at = Some(now);
            *place = rest.number;
        }
        Some(claim)
    }

    /// Gives a scout's place back.
    pub(super) fn release(&self, Claim(numbers): Claim) {
        for rest in &mut self.lock().rests {
            if numbers.contains(&rest.number) {
                rest.out = rest.out.saturating_sub(1);
            }
        }
    }

    /// The node refused a call for quota, and asked to be left for `wait`.
    pub(super) fn refused(&self, kind: Kind, wait: Option<Duration>, now: Instant) {
        let mut table = self.lock();
        if table.find(What::Whole).is_some() {
            table.rest(What::Whole, wait.unwrap_or_default(), now);
        } else if table.refused.is_some_and(|other| other != kind) {
            let left = |rest: &Rest| if matches!(rest.what, What::Refused(_)) { Some(rest.until - now) } else { None };
            let longest = table.rests.iter().filter_map(left).max().unwrap_or_default();
            // The time that a node gave for one method need not be the time for all others.
            let wait = wait.unwrap_or(longest.min(MAX_PAUSE));
            table.rest(What::Whole, wait, now);
            let end = table.find(What::Whole).map_or(now, |rest| rest.until);
            table.forget(|rest| matches!(rest.what, What::Refused(_)) && rest.until <= end);
        } else {
            table.refused = Some(kind);
            table.rest(What::Refused(kind), wait.unwrap_or_default(), now);
        }
        self.any.store(true, Relaxed);
    }

    /// The node refused a probe for quota.
    pub(super) fn probe_refused(&self, wait: Option<Duration>, now: Instant) {
        self.lock().rest(What::Probes, wait.unwrap_or_default(), now);
        self.any.store(true, Relaxed);
    }

    /// A probe that was sent at `asked` was answered well, which says nothing of calls, and nothing
    /// where another was refused since.
    pub(super) fn probe_answered(&self, asked: Instant) {
        if self.is_any() {
            self.lock().forget(|rest| rest.what == What::Probes && asked > rest.refused_at);
        }
    }

    /// The node fails one call of this kind after the other, which others answer.
    pub(super) fn failed(&self, kind: Kind, now: Instant) {
        self.lock().rest(What::Failed(kind.group()), Duration::ZERO, now);
        self.any.store(true, Relaxed);
    }

    /// Notes that the node gave no answer to a call, as other nodes may not either. Such calls are
    /// tried again, but not all at once.
    pub(super) fn failed_again(&self, now: Instant) {
        self.lock().rest(What::Again, Duration::ZERO, now);
        self.any.store(true, Relaxed);
    }

    /// A call was answered well. `sent`: when the call was sent, if that may have been in a rest.
    /// The answer counts for a rest that is over, and for a rest after refusals if the call was
    /// sent after the last of these. Such an answer ends a rest after failures; of a rest after
    /// refusals the answer doubles the calls that may be under way, and the rest ends when these
    /// are more than [`WIDEST`]. Returns whether that changed anything.
    pub(super) fn answered(&self, kind: Kind, sent: Option<Instant>, now: Instant) -> bool {
        if !self.is_any() {
            return false;
        }
        let mut table = self.lock();
        table.refused = None;
        let mut changed = false;
        table.rests.retain_mut(|rest| {
            let is_of_calls = matches!(rest.what, What::Whole | What::Refused(_));
            let is_later = is_of_calls && sent.is_some_and(|sent| sent > rest.refused_at);
            // Otherwise the answer may be to a call that was sent before the rest. A rest that a
            // probe began, only a probe ends.
            if !rest.is_for(kind, true) || (now < rest.until && !is_later) || rest.what == What::Probes {
                return true;
            }
            changed = true;
            rest.until = rest.until.min(now);
            rest.width *= 2;
            is_of_calls && rest.width <= WIDEST
        });
        self.any.store(!table.rests.is_empty(), Relaxed);
        changed
    }

    /// Whether the whole node rests, or has yet to be found well after a rest.
    pub(super) fn is_whole(&self, now: Instant) -> bool {
        self.is_any() && self.whole(now).next().is_some()
    }

    /// When the rest of the whole node ends, if the whole node rests.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        if self.is_any() { self.whole(now).map(|rest| rest.until).max() } else { None }
    }

    /// For how long probes are to be left out.
    pub(super) fn probes_rest_until(&self) -> Option<Instant> {
        if self.is_any() { self.lock().find(What::Probes).map(|rest| rest.until) } else { None }
    }

    /// The kinds that are passed over now, while the node as a whole is not.
    pub(super) fn kinds(&self, now: Instant) -> Vec<Kind> {
        let kind = |rest: &Rest| match rest.what {
            What::Refused(kind) | What::Failed(kind) if rest.width == 1 && now < rest.until + LAPSE => Some(kind),
            _ => None,
        };
        if self.is_any() { self.lock().rests.iter().filter_map(kind).collect() } else { Vec::new() }
    }

    fn whole(&self, now: Instant) -> impl Iterator<Item = Rest> {
        let is_whole = move |rest: &Rest| {
            matches!(rest.what, What::Whole | What::Probes) && rest.width == 1 && now < rest.until + LAPSE
        };
        self.lock().rests.clone().into_iter().filter(is_whole)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
