//! Rests of nodes that refuse calls for quota or load. After a rest, a single call goes as a scout,
//! then more and more calls.
//!
//! Rule: a refusal concerns one method first: calls of that method pass the node over while the
//! method rests, all others go on. When a second method is refused, and no call was answered in
//! between, the whole node rests. A rest lasts as long as `Retry-After` says, and at least for a
//! pause that doubles with each refusal of a scout; good answers end it. Reason: providers limit
//! single methods as well as accounts, and a node that is called in spite of its refusals may
//! refuse for longer. Example without `Retry-After`: `eth_getLogs` is refused and rests for 1 s;
//! the scout is refused too, and the rest goes on for 2 s.
//!
//! Methods that a node fails again and again rest in the same way, with one difference: when no
//! other node is left, they are tried.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::{
    backoff::doubled,
    beacon_route::Route,
    method::{Method, MethodId},
};

/// The first pause after a refusal, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// The same between the second tries of calls that every node failed.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const LONGEST_AGAIN: Duration = Duration::from_secs(2);
/// A rest is dropped when no call has tested the node for so long after its end.
const LAPSE: Duration = Duration::from_secs(60);
/// A rest is dropped when so many calls at once have succeeded.
const WIDEST: u32 = 64;
/// Methods that the table does not know are hashed into so many kinds.
const UNKNOWN_KINDS: u32 = 64;

/// Which calls a rest is about: those of a method, or of a group of the beacon API's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(u32);

impl Kind {
    /// The kind of calls of the method `name`, which has this id in the table.
    pub fn of_method(MethodId(index): MethodId, name: &str) -> Self {
        let place = u32::try_from(index).unwrap_or(u32::MAX);
        if index < Method::COUNT {
            return Self(place);
        }
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Self(place.saturating_add(hash % UNKNOWN_KINDS))
    }

    /// The kind of requests of the group with this id.
    pub fn of_group(MethodId(index): MethodId) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The kind of publications to the group with this id.
    pub fn of_publication(MethodId(index): MethodId) -> Self {
        Self::of_group(MethodId(Route::GROUPS.len() + index))
    }

    /// The id in the table, or the first id behind the table for unknown methods.
    pub fn id(self) -> MethodId {
        MethodId((self.0 as usize).min(Method::COUNT))
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
    /// A kind of calls that the node fails.
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
    /// Not before this moment; `None`: not before a scout has returned.
    Rests(Option<Instant>),
}

/// A scout's place at a node, to be given back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim([u64; 4]);

#[derive(Clone, Copy, Debug)]
struct Rest {
    what: What,
    /// No two have had the same.
    number: u64,
    pause: Duration,
    until: Instant,
    /// How many calls may be under way after its end, and how many are.
    width: u32,
    out: u32,
}

impl Rest {
    fn is_for(&self, kind: Kind, again: bool) -> bool {
        match self.what {
            What::Whole | What::Probes => true,
            What::Refused(other) | What::Failed(other) => other == kind,
            What::Again => again,
        }
    }

    fn admits(&self, now: Instant) -> bool {
        now >= self.until && self.out < self.width
    }

    fn bounds(what: What) -> (Duration, Duration) {
        if what == What::Again { (FIRST_AGAIN, LONGEST_AGAIN) } else { (FIRST, LONGEST) }
    }
}

#[derive(Debug, Default)]
struct Table {
    rests: Vec<Rest>,
    last_number: u64,
    /// The kind that was last refused, if nothing was answered since.
    refused: Option<Kind>,
}

impl Table {
    fn find(&mut self, what: What) -> Option<&mut Rest> {
        self.rests.iter_mut().find(|rest| rest.what == what)
    }

    /// The node refused, and asks to be left alone for `wait`. A refusal during the rest is of a
    /// call that was sent before the rest.
    fn rest(&mut self, what: What, wait: Duration, now: Instant) {
        let (first, longest) = Rest::bounds(what);
        let Some(rest) = self.find(what) else {
            self.last_number += 1;
            let until = now + first.max(wait);
            self.rests.push(Rest { what, number: self.last_number, pause: first, until, width: 1, out: 0 });
            return;
        };
        if now >= rest.until {
            rest.pause = if rest.width > 1 { first } else { doubled(rest.pause, 1, longest) };
            rest.width = 1;
            rest.until = now + rest.pause.max(wait);
        } else {
            rest.until = rest.until.max(now + wait);
        }
    }

    fn forget(&mut self, over: impl Fn(&Rest) -> bool) {
        self.rests.retain(|rest| !over(rest));
    }
}

/// The rests of one node. The cost is one atomic load while there are none.
#[derive(Debug, Default)]
pub struct Resting {
    any: AtomicBool,
    table: Mutex<Table>,
}

impl Resting {
    /// Whether anything may rest.
    pub fn is_any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether a call of this kind may go to the node; `again`: every node failed the call before.
    pub fn state(&self, kind: Kind, again: bool, now: Instant) -> RestState {
        if !self.is_any() {
            return RestState::Free;
        }
        let mut table = self.lock();
        table.forget(|rest| rest.out == 0 && now >= rest.until + LAPSE);
        if !table.rests.iter().any(|rest| matches!(rest.what, What::Refused(_))) {
            table.refused = None;
        }
        self.any.store(!table.rests.is_empty(), Relaxed);
        let mut standing = RestState::Free;
        for rest in table.rests.iter().filter(|rest| rest.is_for(kind, again)) {
            let this = match (rest.admits(now), rest.what) {
                (true, _) => RestState::Due,
                (false, What::Failed(_)) => RestState::Last,
                (false, _) => RestState::Rests((now < rest.until).then_some(rest.until)),
            };
            standing = match (standing, this) {
                (RestState::Rests(one), RestState::Rests(other)) => {
                    RestState::Rests(one.zip(other).map(|(a, b)| a.max(b)))
                }
                (RestState::Rests(until), _) | (_, RestState::Rests(until)) => RestState::Rests(until),
                (RestState::Last, _) | (_, RestState::Last) => RestState::Last,
                _ => RestState::Due,
            };
        }
        standing
    }

    /// Takes a scout's place, if there is one.
    pub fn claim(&self, kind: Kind, again: bool, now: Instant) -> Option<Claim> {
        let mut table = self.lock();
        if table.rests.iter().any(|rest| rest.is_for(kind, again) && !rest.admits(now)) {
            return None;
        }
        let mut claim = Claim::default();
        let rests = table.rests.iter_mut().filter(|rest| rest.is_for(kind, again));
        for (rest, place) in rests.zip(&mut claim.0) {
            rest.out += 1;
            *place = rest.number;
        }
        Some(claim)
    }

    /// Gives a scout's place back.
    pub fn release(&self, Claim(numbers): Claim) {
        for rest in &mut self.lock().rests {
            if numbers.contains(&rest.number) {
                rest.out = rest.out.saturating_sub(1);
            }
        }
    }

    /// The node refused a call for quota, and asked to be left for `wait`.
    pub fn refused(&self, kind: Kind, wait: Option<Duration>, now: Instant) {
        let wait = wait.unwrap_or_default();
        let mut table = self.lock();
        if table.find(What::Whole).is_some() {
            table.rest(What::Whole, wait, now);
        } else if table.refused.is_some_and(|other| other != kind) {
            let left = |rest: &Rest| if matches!(rest.what, What::Refused(_)) { Some(rest.until - now) } else { None };
            let longest = table.rests.iter().filter_map(left).max().unwrap_or_default();
            table.forget(|rest| matches!(rest.what, What::Refused(_)));
            table.rest(What::Whole, wait.max(longest), now);
        } else {
            table.refused = Some(kind);
            table.rest(What::Refused(kind), wait, now);
        }
        self.any.store(true, Relaxed);
    }

    /// The node refused a probe for quota.
    pub fn probe_refused(&self, wait: Option<Duration>, now: Instant) {
        self.lock().rest(What::Probes, wait.unwrap_or_default(), now);
        self.any.store(true, Relaxed);
    }

    /// A probe was answered well, which says nothing of calls.
    pub fn probe_answered(&self) {
        if self.is_any() {
            self.lock().forget(|rest| rest.what == What::Probes);
        }
    }

    /// The node fails one call of this kind after the other, which others answer.
    pub fn failed(&self, kind: Kind, now: Instant) {
        self.lock().rest(What::Failed(kind), Duration::ZERO, now);
        self.any.store(true, Relaxed);
    }

    /// Notes that the node gave no answer to a call, as other nodes may not either. Such calls are
    /// tried again, but not all at once.
    pub fn failed_again(&self, now: Instant) {
        self.lock().rest(What::Again, Duration::ZERO, now);
        self.any.store(true, Relaxed);
    }

    /// A call was answered well. Returns whether that changed anything.
    pub fn answered(&self, kind: Kind, now: Instant) -> bool {
        if !self.is_any() {
            return false;
        }
        let mut table = self.lock();
        table.refused = None;
        let mut changed = false;
        table.rests.retain_mut(|rest| {
            // An answer during the rest is to a call that was sent before the rest. A rest that a
            // probe began, a probe ends.
            if !rest.is_for(kind, true) || now < rest.until || rest.what == What::Probes {
                return true;
            }
            changed = true;
            rest.width *= 2;
            matches!(rest.what, What::Whole | What::Refused(_)) && rest.width <= WIDEST
        });
        self.any.store(!table.rests.is_empty(), Relaxed);
        changed
    }

    /// Whether the whole node rests, or has yet to be found well after a rest.
    pub fn is_whole(&self, now: Instant) -> bool {
        self.is_any() && self.whole(now).next().is_some()
    }

    /// When the rest of the whole node ends, if the whole node rests.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        if self.is_any() { self.whole(now).map(|rest| rest.until).max() } else { None }
    }

    /// For how long probes are to be left out.
    pub fn probes_rest_until(&self) -> Option<Instant> {
        if self.is_any() { self.lock().find(What::Probes).map(|rest| rest.until) } else { None }
    }

    /// The kinds that are passed over now, while the node as a whole is not.
    pub fn kinds(&self, now: Instant) -> Vec<Kind> {
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
mod tests {
    use super::*;

    const CALL: Kind = Kind(1);
    const LOGS: Kind = Kind(2);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The only scout that there may be.
    fn scout(resting: &Resting, kind: Kind, now: Instant) -> Claim {
        assert_eq!(resting.state(kind, false, now), RestState::Due);
        let claim = resting.claim(kind, false, now).unwrap();
        assert_eq!(resting.state(kind, false, now), RestState::Rests(None));
        assert!(resting.claim(kind, false, now).is_none());
        claim
    }

    #[test]
    fn a_refused_method_rests_and_each_refused_scout_doubles_it() {
        let (resting, mut now) = (Resting::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            resting.refused(CALL, None, now);
            // A refusal of a call that was under way when the rest began does not lengthen the
            // rest.
            resting.refused(CALL, None, now);
            assert_eq!(resting.state(LOGS, false, now), RestState::Free);
            assert!(!resting.is_whole(now));
            let RestState::Rests(Some(until)) = resting.state(CALL, false, now) else { panic!("no rest") };
            pauses.push((until - now).as_secs());
            now = until;
            let claim = scout(&resting, CALL, now);
            resting.release(claim);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_second_refused_method_has_the_node_rest_without_an_answer() {
        let (resting, now) = (Resting::default(), Instant::now());
        resting.refused(CALL, Some(seconds(5)), now);
        resting.answered(LOGS, now);
        resting.refused(LOGS, None, now);
        assert!(!resting.is_whole(now));
        assert_eq!(resting.kinds(now), [CALL, LOGS]);
        resting.refused(CALL, None, now);
        assert!(resting.is_whole(now));
        assert_eq!((resting.until(now), resting.kinds(now)), (Some(now + seconds(5)), vec![]));
        assert_eq!(resting.state(Kind(3), false, now), RestState::Rests(Some(now + seconds(5))));
    }

    #[test]
    fn a_rest_lasts_as_asked_and_good_answers_let_more_calls_go() {
        let (resting, mut now) = (Resting::default(), Instant::now());
        resting.refused(CALL, Some(seconds(30)), now);
        assert_eq!(resting.state(CALL, false, now + seconds(29)), RestState::Rests(Some(now + seconds(30))));
        now += seconds(30);
        let mut width = 1;
        while resting.is_any() {
            let mut claims = Vec::new();
            while resting.state(CALL, false, now) == RestState::Due {
                claims.push(resting.claim(CALL, false, now).unwrap());
            }
            assert_eq!(claims.len(), width);
            claims.into_iter().for_each(|claim| resting.release(claim));
            assert!(resting.answered(CALL, now));
            width *= 2;
        }
        assert_eq!(width as u32, 2 * WIDEST);
        // The next refusal is a first one.
        resting.refused(CALL, None, now);
        assert_eq!(resting.state(CALL, false, now), RestState::Rests(Some(now + FIRST)));
    }

    #[test]
    fn good_probes_end_only_the_rests_that_probes_began() {
        let (resting, now) = (Resting::default(), Instant::now());
        resting.probe_refused(Some(seconds(3)), now);
        assert!(resting.is_whole(now));
        assert_eq!(resting.probes_rest_until(), Some(now + seconds(3)));
        resting.answered(CALL, now + seconds(4));
        assert!(resting.is_whole(now));
        resting.probe_answered();
        assert!(!resting.is_whole(now));
        resting.refused(CALL, None, now);
        resting.probe_answered();
        assert_eq!(resting.kinds(now), [CALL]);
    }

    #[test]
    fn a_failing_method_is_tried_last_until_its_first_good_answer() {
        let (resting, now) = (Resting::default(), Instant::now());
        resting.failed(CALL, now);
        assert_eq!(resting.state(CALL, false, now), RestState::Last);
        assert!(!resting.is_whole(now));
        resting.answered(CALL, now + FIRST);
        assert_eq!(resting.state(CALL, false, now + FIRST), RestState::Free);
    }

    #[test]
    fn second_tries_go_one_by_one_and_hold_no_first_try_up() {
        let (resting, now) = (Resting::default(), Instant::now());
        resting.failed_again(now);
        assert_eq!(resting.state(CALL, false, now), RestState::Free);
        assert_eq!(resting.state(CALL, true, now), RestState::Rests(Some(now + FIRST_AGAIN)));
        let claim = resting.claim(CALL, true, now + FIRST_AGAIN).unwrap();
        assert!(resting.claim(CALL, true, now + FIRST_AGAIN).is_none());
        resting.release(claim);
        resting.answered(LOGS, now + FIRST_AGAIN);
        assert_eq!(resting.state(CALL, true, now), RestState::Free);
    }

    #[test]
    fn a_rest_that_no_call_puts_to_the_test_is_over_in_the_end() {
        let (resting, now) = (Resting::default(), Instant::now());
        resting.refused(CALL, None, now);
        resting.refused(LOGS, None, now);
        assert!(resting.is_whole(now + FIRST));
        assert!(!resting.is_whole(now + FIRST + LAPSE));
        assert_eq!(resting.state(CALL, false, now + FIRST + LAPSE), RestState::Free);
    }

    #[test]
    fn a_refusal_is_forgotten_with_the_rest_that_it_began() {
        for (after, is_whole) in [(FIRST, true), (FIRST + LAPSE, false)] {
            let (resting, now) = (Resting::default(), Instant::now());
            resting.refused(CALL, None, now);
            resting.failed(Kind(3), now + after);
            assert_ne!(resting.state(Kind(3), false, now + after), RestState::Free);
            resting.refused(LOGS, None, now + after);
            assert_eq!(resting.is_whole(now + after), is_whole, "{after:?} later");
        }
    }

    #[test]
    fn methods_that_the_table_does_not_know_are_told_apart() {
        let kind = |name| Kind::of_method(Method::of(name).id, name);
        assert_ne!(kind("zks_getBridgeContracts"), kind("zks_estimateFee"));
        assert_eq!(kind("zks_estimateFee").id(), MethodId(Method::COUNT));
        assert_eq!(kind("eth_call").id(), Method::of("eth_call").id);
    }
}
