//! Requests that all nodes were told in this epoch and the one before, kept for nodes that were
//! away; subscriptions to sync committees until their end.
//!
//! Rule: a node that comes back is told these requests again, in the order of their arrival, so the
//! latest word counts. The same request twice is kept once, and a later body about the same
//! validators replaces an earlier one. Where too much is kept, the client that has the most makes
//! room. Reason: a node forgets fee recipients when it restarts, and may propose a minute later.
//! Example: fee recipients for the same validators came at slots 10 and 30, and node B restarts at
//! slot 40. B is told those of slot 30 again.

mod about;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use self::about::About;
use super::{
    Request,
    upload::{Upload, Whole},
};
use crate::{domain::client::block_of, memory::Claim, pool::Pool};

/// Bytes that are kept, at most.
const MOST: usize = 32 << 20;
/// Bodies that are kept, at most.
const MOST_BODIES: usize = 4096;
/// For how many epochs a request is kept.
const EPOCHS: u32 = 2;
/// The same for a request that names its end, at most: a sync committee's period.
const MOST_EPOCHS: u32 = 256;
/// Bytes that a kept request takes besides its body.
const EACH: usize = 512;
/// The kinds of requests. Where too much is kept, the kind with the most makes room, so that many
/// registrations leave the fee recipients; and of that kind the client with the most, so that no
/// client drives out the others.
const KINDS: [&str; 5] = [
    "prepare_beacon_proposer",
    "register_validator",
    "proposer_preferences",
    "beacon_committee_subscriptions",
    "sync_committee_subscriptions",
];

/// Headers that change the meaning of a body, or name its sender. Other headers differ from one
/// request to the next.
const MEANING: [&str; 4] = ["content-type", "content-encoding", "eth-consensus-version", "authorization"];

/// The requests that are kept.
pub(super) struct Kept {
    state: Mutex<State>,
    /// Notified when a request is added, and when a node has confirmed a request.
    pub(super) bell: Notify,
    most: usize,
}

struct State {
    told: VecDeque<Told>,
    /// A claim on the clients' memory; `None` before the first request.
    claim: Option<Claim>,
    bytes: usize,
    last: u64,
    /// How often each node has begun anew.
    lives: Vec<u64>,
    /// Until when a node that did not take a request is left alone.
    pauses: Vec<Option<Instant>>,
}

struct Told {
    id: u64,
    request: Arc<Request>,
    body: Bytes,
    at: Instant,
    /// For how many epochs from then on the request is kept.
    epochs: u32,
    client: Option<IpAddr>,
    /// The validators that the body names, as far as known.
    about: Option<About>,
    nodes: Vec<Knows>,
}

/// A node's knowledge of a request. A life begins each time that the node begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knows {
    /// The node has not been told.
    Nothing,
    /// The node is being told in this life, and has not confirmed.
    IsTold(u64),
    /// The node has confirmed the request in this life.
    All(u64),
}

impl Knows {
    /// Whether the node, which is in this life, is still to be told.
    fn is_due(self, life: u64) -> bool {
        !matches!(self, Self::IsTold(of) | Self::All(of) if of == life)
    }
}

impl Told {
    /// The place of the request's kind; unnamed kinds stand behind the named ones.
    fn kind(&self) -> usize {
        let path = self.request.target.as_str().split('?').next().unwrap_or_default();
        let last = path.trim_end_matches('/').rsplit('/').next();
        KINDS.iter().position(|kind| last == Some(kind)).unwrap_or(KINDS.len())
    }

    fn weight(&self) -> usize {
        let headers = self.request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        let about = self.about.as_ref().map_or(0, About::weight);
        EACH + self.body.len() + about + headers.sum::<usize>()
    }
}

/// A request that a node is to be told again.
pub(super) struct Due {
    pub(super) id: u64,
    pub(super) request: Arc<Request>,
    pub(super) upload: Upload,
}

impl Kept {
    /// For so many nodes.
    pub(super) fn new(nodes: usize) -> Self {
        Self::up_to(MOST, nodes)
    }

    fn up_to(most: usize, nodes: usize) -> Self {
        let state = State::empty(vec![0; nodes]);
        Self { state: Mutex::new(state), bell: Notify::new(), most }
    }

    /// Keeps a request that all nodes are told now, in the epoch `present`, for as long as the
    /// request counts; other requests make room. Returns its number. `nodes` are being told.
    pub(super) fn keep(
        &self,
        request: &Arc<Request>,
        body: &Whole,
        nodes: &[usize],
        (epoch, present): (Duration, u64),
    ) -> u64 {
        let about = About::of(request, body.bytes());
        let epochs = about.as_ref().and_then(|about| about.epochs(present)).unwrap_or(EPOCHS);
        let epochs = epochs.clamp(EPOCHS, MOST_EPOCHS);
        let mut state = self.state();
        if state.claim.is_none() {
            state.claim = body.claim_beside();
        }
        state.forget(epoch);
        let is_same = |told: &Told| {
            told.request.target == request.target
                && MEANING.iter().all(|name| told.request.headers.get(*name) == request.headers.get(*name))
                && told.body == *body.bytes()
        };
        let client = body.client().map(block_of);
        let body = match state.told.iter().position(is_same) {
            Some(place) => state.remove(place).map(|told| told.body),
            None => None,
        }
        // The client's buffer may be larger than the body.
        .unwrap_or_else(|| Bytes::copy_from_slice(body.bytes()));
        state.last += 1;
        let id = state.last;
        let known = vec![Knows::Nothing; state.lives.len()];
        let at = Instant::now();
        let mut told = Told { id, request: request.clone(), body, at, epochs, client, about, nodes: known };
        state.replace(&told);
        for &node in nodes {
            told.nodes[node] = Knows::IsTold(state.lives[node]);
        }
        state.bytes += told.weight();
        state.told.push_back(told);
        state.make_room(self.most);
        id
    }

    /// Whether no request is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.state().told.is_empty()
    }

    /// Bytes that are kept now.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// A node began anew: the node has forgotten all requests.
    pub(super) fn begins_anew(&self, node: usize) {
        let mut state = self.state();
        state.lives[node] += 1;
        state.pauses[node] = None;
    }

    /// A node has been told the request, in the life in which the node was to be told.
    pub(super) fn confirmed(&self, id: u64, node: usize) {
        if let Some(told) = self.state().told.iter_mut().find(|told| told.id == id)
            && let Knows::IsTold(life) = told.nodes[node]
        {
            told.nodes[node] = Knows::All(life);
        }
        self.bell.notify_one();
    }

    /// A node could not be told the request, and is left alone for `pause`.
    pub(super) fn failed(&self, id: u64, node: usize, pause: Duration) {
        let mut state = self.state();
        state.pauses[node] = Some(Instant::now() + pause);
        if let Some(told) = state.told.iter_mut().find(|told| told.id == id) {
            told.nodes[node] = Knows::Nothing;
        }
    }

    /// Whether a request is due for the node now.
    pub(super) fn has_due(&self, node: usize) -> bool {
        let state = self.state();
        let is_left_alone = state.pauses[node].is_some_and(|until| Instant::now() < until);
        !is_left_alone && state.told.iter().any(|told| told.nodes[node].is_due(state.lives[node]))
    }

    /// Whether the node has confirmed all requests in its present life.
    pub(super) fn knows_all(&self, node: usize) -> bool {
        let state = self.state();
        state.told.iter().all(|told| told.nodes[node] == Knows::All(state.lives[node]))
    }

    /// The first request after number `after` that the node does not know yet. From now on the
    /// request counts as being told.
    pub(super) fn next(&self, node: usize, after: u64, epoch: Duration) -> Option<Due> {
        let mut state = self.state();
        state.forget(epoch);
        let life = state.lives[node];
        let due = state.told.iter_mut().find(|told| told.id > after && told.nodes[node].is_due(life))?;
        due.nodes[node] = Knows::IsTold(life);
        Some(Due { id: due.id, request: due.request.clone(), upload: Upload::whole(due.body.clone()) })
    }

    /// Takes over what is kept for an earlier pool: a node at another address is another node.
    pub(super) fn inherit(&self, pool: &Pool, earlier: &Self, of: &Pool) {
        let places: Vec<Option<usize>> = pool.nodes.iter().map(|node| of.place_of(node)).collect();
        self.take_over(earlier, &places);
    }

    /// The same, where `places` are the nodes' places in the earlier pool.
    fn take_over(&self, earlier: &Self, places: &[Option<usize>]) {
        let mut taken = {
            let mut earlier = earlier.state();
            let empty = State::empty(earlier.lives.clone());
            std::mem::replace(&mut *earlier, empty)
        };
        let lives: Vec<u64> = places.iter().map(|place| place.map_or(0, |place| taken.lives[place])).collect();
        for told in &mut taken.told {
            let knew = |place: &Option<usize>| match place.map(|place| told.nodes[place]) {
                Some(Knows::All(life)) => Knows::All(life),
                // The earlier pool tells its nodes no further.
                _ => Knows::Nothing,
            };
            told.nodes = places.iter().map(knew).collect();
        }
        let mut state = self.state();
        // Requests that came here meanwhile are newer.
        let (last, bytes) = (taken.last, taken.bytes);
        for told in &mut state.told {
            told.id += last;
        }
        taken.told.append(&mut state.told);
        state.told = taken.told;
        state.last += last;
        state.bytes += bytes;
        state.lives = lives;
        state.claim = state.claim.take().or(taken.claim);
        state.make_room(self.most);
        drop(state);
        self.bell.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is given up.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn empty(lives: Vec<u64>) -> Self {
        let pauses = vec![None; lives.len()];
        Self { told: VecDeque::new(), claim: None, bytes: 0, last: 0, lives, pauses }
    }

    /// Removes requests about no other validators than `newer`.
    fn replace(&mut self, newer: &Told) {
        let Some(about) = &newer.about else { return };
        let (target, headers) = (&newer.request.target, &newer.request.headers);
        let is_replaced = |told: &Told| {
            told.request.target == *target
                && MEANING.iter().all(|name| told.request.headers.get(*name) == headers.get(*name))
                && told.about.as_ref().is_some_and(|earlier| about.covers(earlier))
        };
        let mut place = 0;
        while let Some(told) = self.told.get(place) {
            if is_replaced(told) {
                self.remove(place);
            } else {
                place += 1;
            }
        }
    }

    fn remove(&mut self, place: usize) -> Option<Told> {
        let told = self.told.remove(place)?;
        self.bytes -= told.weight();
        Some(told)
    }

    fn forget(&mut self, epoch: Duration) {
        let now = Instant::now();
        let is_over = |told: &Told| now.saturating_duration_since(told.at) > epoch.saturating_mul(told.epochs);
        while let Some(place) = self.told.iter().position(is_over) {
            self.remove(place);
        }
        self.count();
    }

    /// Keeps no more than the limits allow, and than the clients' memory has room for.
    fn make_room(&mut self, most: usize) {
        while self.bytes > most && self.thin(Told::weight) {}
        while self.told.len() > MOST_BODIES && self.thin(|_| 1) {}
        self.count();
    }

    fn count(&mut self) {
        while let Some(claim) = &mut self.claim
            && claim.resize(self.bytes).is_err()
            && self.thin(Told::weight)
        {}
    }

    /// Removes the oldest request of the client that has the most, of the kind with the most, by
    /// this measure; `false` if there is no request.
    fn thin(&mut self, measure: fn(&Told) -> usize) -> bool {
        let mut sums = [0; KINDS.len() + 1];
        self.told.iter().for_each(|told| sums[told.kind()] += measure(told));
        let heaviest = (0..sums.len()).max_by_key(|kind| sums[*kind]);
        let of_kind = || self.told.iter().filter(|told| Some(told.kind()) == heaviest);
        let mut shares: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
        of_kind().for_each(|told| *shares.entry(told.client).or_default() += measure(told));
        let Some((&client, _)) = shares.iter().max_by_key(|(_, share)| **share) else { return false };
        let is_it = |told: &Told| Some(told.kind()) == heaviest && told.client == client;
        let oldest = self.told.iter().position(is_it);
        oldest.and_then(|place| self.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests;
