//! Requests that all nodes were told in this epoch and the one before, kept for nodes that were
//! away; subscriptions to sync committees until their end.
//!
//! Rule: a node that comes back is told these requests again, those of each kind in the order of
//! their arrival, so the latest word counts. The same request twice is kept once. A later body
//! about the same validators replaces an earlier one when a usable node has taken the later one and
//! no node has refused that; a body that nodes only refused is not kept. A request that a node
//! could not take holds up no other. Where too much is kept, the client that has the most makes
//! room. Reason: a node forgets fee recipients when it restarts, and may propose a minute later.
//! Example: fee recipients for the same validators came at slots 10 and 30, and node B restarts at
//! slot 40. B is told those of slot 30 again.

mod about;
mod node_record;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

pub(super) use self::node_record::TellOutcome;
use self::{
    about::About,
    node_record::{Knows, NodeRecord},
};
use super::{
    Request,
    upload::{Upload, Whole},
};
use crate::{
    domain::{client::Peer, node_id::NodeId},
    memory::Claim,
    pool::Pool,
};

/// Bytes that are kept, at most.
const MAX_BYTES: usize = 32 << 20;
/// Bodies that are kept, at most.
const MAX_BODIES: usize = 4096;
/// For how many epochs a request is kept.
const EPOCHS: u32 = 2;
/// The same for a request that names its end, at most: a sync committee's period.
const MAX_EPOCHS: u32 = 256;
/// Bytes that a kept request takes besides its body.
const EACH: usize = 512;
/// Kinds of requests, with that of all that have no name here.
pub(super) const LANES: usize = 6;
/// The kinds of requests. Where too much is kept, the kind with the most makes room, so that many
/// registrations leave the fee recipients; and of that kind the client with the most, so that no
/// client drives out the others.
const KINDS: [&str; LANES - 1] = [
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
pub(super) struct ToldMessages {
    state: Mutex<State>,
    /// Notified when a request is added, and when a node has confirmed a request.
    pub(super) bell: Notify,
    most: usize,
}

struct State {
    told: VecDeque<ToldMessage>,
    /// A claim on the clients' memory; `None` before the first request.
    claim: Option<Claim>,
    bytes: usize,
    last: u64,
    /// How often each node has begun anew.
    lives: Vec<u64>,
    /// Until when each node that did not take requests of a kind is left alone with that kind.
    pauses: Vec<[Option<Instant>; LANES]>,
}

struct ToldMessage {
    id: u64,
    /// The place of the request's kind; unnamed kinds stand behind the named ones.
    kind: usize,
    /// A hash of the target and of the headers that count.
    form: u64,
    /// The same with the body.
    text: u64,
    request: Arc<Request>,
    body: Bytes,
    at: Instant,
    /// For how many epochs from then on the request is kept.
    epochs: u32,
    client: Option<Peer>,
    /// The validators that the body names, as far as known.
    about: Option<Arc<About>>,
    nodes: Vec<NodeRecord>,
    /// The nodes that are being told the request for the first time.
    under_way: usize,
    /// A usable node has taken the request.
    is_taken: bool,
    /// A node has refused the request.
    is_refused: bool,
    /// A usable node has refused the request.
    is_at_fault: bool,
}

impl ToldMessage {
    /// Whether the node, which is in this life, is to be told this now. A request whose first round
    /// is under way waits for a good word: the nodes may refuse it.
    fn is_due(&self, node: NodeId, life: u64, now: Instant) -> bool {
        (self.is_taken || self.under_way == 0) && self.nodes[node].is_due(life, now)
    }

    fn weight(&self) -> usize {
        let headers = self.request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        let about = self.about.as_ref().map_or(0, |about| about.weight());
        EACH + self.body.len() + about + headers.sum::<usize>()
    }
}

/// The place of a request's kind; unnamed kinds stand behind the named ones.
fn kind(request: &Request) -> usize {
    let last = request.target.path().trim_end_matches('/').rsplit('/').next();
    KINDS.iter().position(|kind| last == Some(kind)).unwrap_or(KINDS.len())
}

/// Hashes of the request's target and of the headers that count, and of these with the body. Many
/// thousands of requests are compared by them first.
fn hashes(request: &Request, body: &[u8]) -> (u64, u64) {
    let mut hasher = DefaultHasher::new();
    hasher.write(request.target.as_str().as_bytes());
    for name in MEANING {
        hasher.write(request.headers.get(name).map_or(&b""[..], |value| value.as_bytes()));
        hasher.write_u8(0);
    }
    let form = hasher.finish();
    hasher.write(body);
    (form, hasher.finish())
}

/// The requests that are due for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// The node has confirmed all requests in its present life.
    pub(super) knows_all: bool,
    /// Whether a request of each kind is due now, and the node is not left alone with the kind.
    pub(super) due: [bool; LANES],
}

/// A request that nodes are told.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    id: u64,
    kind: usize,
    about: Option<Arc<About>>,
    /// The nodes are told for the first time.
    is_first: bool,
}

impl Telling {
    /// The kind of the request, one of [`LANES`].
    pub(super) fn kind(&self) -> usize {
        self.kind
    }
}

/// A request that a node is to be told again.
pub(super) struct Due {
    pub(super) telling: Telling,
    pub(super) request: Arc<Request>,
    pub(super) upload: Upload,
}

impl ToldMessages {
    /// For so many nodes.
    pub(super) fn new(nodes: usize) -> Self {
        Self::up_to(MAX_BYTES, nodes)
    }

    fn up_to(most: usize, nodes: usize) -> Self {
        let state = State::empty(vec![0; nodes]);
        Self { state: Mutex::new(state), bell: Notify::new(), most }
    }

    /// Keeps a request that all nodes are told now, in the epoch `present`, for as long as the
    /// request counts; other requests make room. `nodes` are being told, and a word of each is due.
    pub(super) fn keep(
        &self,
        request: &Arc<Request>,
        body: &Whole,
        nodes: &[NodeId],
        (epoch, present): (Duration, u64),
    ) -> Telling {
        let about = About::of(request, body.bytes()).map(Arc::new);
        let epochs = about.as_ref().and_then(|about| about.epochs(present)).unwrap_or(EPOCHS);
        let epochs = epochs.clamp(EPOCHS, MAX_EPOCHS);
        let mut state = self.state();
        if state.claim.is_none() {
            state.claim = body.claim_beside();
        }
        state.forget(epoch);
        let (form, text) = hashes(request, body.bytes());
        let is_same = |told: &ToldMessage| {
            told.text == text
                && told.request.target == request.target
                && MEANING.iter().all(|name| told.request.headers.get(*name) == request.headers.get(*name))
                && told.body == *body.bytes()
        };
        let client = body.client().map(Peer::block);
        let same = state.told.iter().position(is_same).and_then(|place| state.remove(place));
        let is_taken = same.as_ref().is_some_and(|told| told.is_taken);
        // The client's buffer may be larger than the body.
        let body = same.map_or_else(|| Bytes::copy_from_slice(body.bytes()), |told| told.body);
        state.last += 1;
        let id = state.last;
        let known = vec![NodeRecord::default(); state.lives.len()];
        let (at, under_way) = (Instant::now(), nodes.len());
        let request = request.clone();
        let (is_refused, is_at_fault) = (false, false);
        let mut told = ToldMessage {
            id,
            kind: kind(&request),
            form,
            text,
            request,
            body,
            at,
            epochs,
            client,
            about,
            nodes: known,
            under_way,
            is_taken,
            is_refused,
            is_at_fault,
        };
        for &node in nodes {
            told.nodes[node].knows = Knows::IsTold(state.lives[node]);
        }
        let telling = Telling { id, kind: told.kind, about: told.about.clone(), is_first: true };
        state.bytes += told.weight();
        state.told.push_back(told);
        state.make_room(self.most);
        telling
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
    pub(super) fn begins_anew(&self, node: NodeId) {
        let mut state = self.state();
        state.lives[node] += 1;
        state.pauses[node] = [None; LANES];
        state.told.iter_mut().for_each(|told| told.nodes[node].forgive());
    }

    /// The word of a node on a request that the node was told, in the life in which the node was to
    /// be told. A request that the node could not take is due again after `pause` at least.
    pub(super) fn heard(&self, telling: &Telling, node: NodeId, word: TellOutcome, pause: Duration) {
        let mut state = self.state();
        let is_taken = word.is_taken();
        if let Some(place) = state.told.iter().position(|told| told.id == telling.id) {
            let told = &mut state.told[place];
            told.nodes[node].heard(word, pause);
            told.is_taken |= word == TellOutcome::Taken { is_usable: true };
            told.is_refused |= matches!(word, TellOutcome::Refused { .. });
            told.is_at_fault |= word == TellOutcome::Refused { is_usable: true };
            told.under_way -= usize::from(telling.is_first && told.under_way > 0);
            if told.under_way == 0 {
                state.settle(place);
            }
        }
        if is_taken {
            state.tell_later_again(telling, node);
        }
        drop(state);
        self.bell.notify_one();
    }

    /// The node takes requests of this kind one after the other without success, or asks for a
    /// rest: the node is left alone with the kind for `pause` at least.
    pub(super) fn rest(&self, node: NodeId, kind: usize, pause: Duration) {
        let until = &mut self.state().pauses[node][kind];
        *until = (*until).max(Some(Instant::now() + pause));
    }

    /// Whether the node is left alone with requests of this kind.
    pub(super) fn is_left_alone(&self, node: NodeId, kind: usize) -> bool {
        self.state().pauses[node][kind].is_some_and(|until| Instant::now() < until)
    }

    /// The requests that are due for the node now.
    pub(super) fn open(&self, node: NodeId) -> Open {
        let (state, now) = (self.state(), Instant::now());
        let life = state.lives[node];
        let is_free = |kind: usize| state.pauses[node][kind].is_none_or(|until| until <= now);
        let mut open = Open { knows_all: true, due: [false; LANES] };
        for told in state.told.iter().filter(|told| told.nodes[node].knows != Knows::All(life)) {
            open.knows_all = false;
            open.due[told.kind] |= told.is_due(node, life, now) && is_free(told.kind);
        }
        open
    }

    /// Whether a request of this kind is due for the node now.
    #[cfg(test)]
    fn has_due(&self, node: NodeId, kind: usize) -> bool {
        self.open(node).due[kind]
    }

    /// Whether the node has confirmed all requests in its present life.
    #[cfg(test)]
    fn knows_all(&self, node: NodeId) -> bool {
        self.open(node).knows_all
    }

    /// The first request of this kind that is due for the node. From now on the request counts as
    /// being told.
    pub(super) fn next(&self, node: NodeId, kind: usize, epoch: Duration) -> Option<Due> {
        let mut state = self.state();
        state.forget(epoch);
        let (life, now) = (state.lives[node], Instant::now());
        let due = state.told.iter_mut().find(|told| told.kind == kind && told.is_due(node, life, now))?;
        due.nodes[node].knows = Knows::IsTold(life);
        let telling = Telling { id: due.id, kind, about: due.about.clone(), is_first: false };
        Some(Due { telling, request: due.request.clone(), upload: Upload::whole(due.body.clone()) })
    }

    /// Takes over what is kept for an earlier pool: a node at another address is another node.
    pub(super) fn inherit(&self, pool: &Pool, earlier: &Self, of: &Pool) {
        let places: Vec<Option<NodeId>> = pool.nodes.iter().map(|node| of.place_of(node)).collect();
        self.take_over(earlier, &places);
    }

    /// The same, where `places` are the nodes' places in the earlier pool.
    fn take_over(&self, earlier: &Self, places: &[Option<NodeId>]) {
        let mut taken = {
            let mut earlier = earlier.state();
            let empty = State::empty(earlier.lives.clone());
            std::mem::replace(&mut *earlier, empty)
        };
        let lives: Vec<u64> = places.iter().map(|place| place.map_or(0, |place| taken.lives[place])).collect();
        for told in &mut taken.told {
            // The earlier pool tells its nodes no further.
            let knew = |place: &Option<NodeId>| place.map(|place| told.nodes[place].inherited()).unwrap_or_default();
            told.nodes = places.iter().map(knew).collect();
            told.under_way = 0;
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
        let pauses = vec![[None; LANES]; lives.len()];
        Self { told: VecDeque::new(), claim: None, bytes: 0, last: 0, lives, pauses }
    }

    /// All nodes have answered to the request at this place, or failed: earlier requests about no
    /// other validators go if the nodes have taken this one, and this one goes if they refused.
    fn settle(&mut self, place: usize) {
        let newer = &self.told[place];
        if !newer.is_taken && newer.is_at_fault {
            self.remove(place);
            return;
        }
        let Some(about) = newer.about.clone().filter(|_| newer.is_taken && !newer.is_refused) else { return };
        let (form, request) = (newer.form, newer.request.clone());
        let is_replaced = |told: &ToldMessage| {
            told.form == form
                && told.request.target == request.target
                && MEANING.iter().all(|name| told.request.headers.get(*name) == request.headers.get(*name))
                && told.about.as_ref().is_some_and(|earlier| about.covers(earlier))
        };
        let replaced: Vec<usize> = (0..place).filter(|earlier| is_replaced(&self.told[*earlier])).collect();
        for earlier in replaced.into_iter().rev() {
            self.remove(earlier);
        }
    }

    /// The node has taken an earlier request only now: later ones about the same validators are
    /// due again, so that the last word is the latest.
    fn tell_later_again(&mut self, telling: &Telling, node: NodeId) {
        let meets = |told: &ToldMessage| match (&told.about, &telling.about) {
            (Some(later), Some(earlier)) => later.meets(earlier),
            _ => false,
        };
        for told in self.told.iter_mut().filter(|told| told.id > telling.id) {
            let is_known = matches!(told.nodes[node].knows, Knows::All(_));
            if is_known && told.kind == telling.kind && meets(told) {
                told.nodes[node].knows = Knows::Nothing;
            }
        }
    }

    fn remove(&mut self, place: usize) -> Option<ToldMessage> {
        let told = self.told.remove(place)?;
        self.bytes -= told.weight();
        Some(told)
    }

    fn forget(&mut self, epoch: Duration) {
        let now = Instant::now();
        let is_over = |told: &ToldMessage| now.saturating_duration_since(told.at) > epoch.saturating_mul(told.epochs);
        while let Some(place) = self.told.iter().position(is_over) {
            self.remove(place);
        }
        self.count();
    }

    /// Keeps no more than the limits allow, and than the clients' memory has room for.
    fn make_room(&mut self, most: usize) {
        while self.bytes > most && self.thin(ToldMessage::weight) {}
        while self.told.len() > MAX_BODIES && self.thin(|_| 1) {}
        self.count();
    }

    fn count(&mut self) {
        while let Some(claim) = &mut self.claim
            && claim.resize(self.bytes).is_err()
            && self.thin(ToldMessage::weight)
        {}
    }

    /// Removes the oldest request of the client that has the most, of the kind with the most, by
    /// this measure; `false` if there is no request.
    fn thin(&mut self, measure: fn(&ToldMessage) -> usize) -> bool {
        let mut sums = [0; KINDS.len() + 1];
        self.told.iter().for_each(|told| sums[told.kind] += measure(told));
        let heaviest = (0..sums.len()).max_by_key(|kind| sums[*kind]);
        let of_kind = || self.told.iter().filter(|told| Some(told.kind) == heaviest);
        let mut shares: BTreeMap<Option<Peer>, usize> = BTreeMap::new();
        of_kind().for_each(|told| *shares.entry(told.client).or_default() += measure(told));
        let Some((&client, _)) = shares.iter().max_by_key(|(_, share)| **share) else { return false };
        let is_it = |told: &ToldMessage| Some(told.kind) == heaviest && told.client == client;
        let oldest = self.told.iter().position(is_it);
        oldest.and_then(|place| self.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests;
