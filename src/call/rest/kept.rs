//! What all nodes were told in this epoch and the one before, for the nodes that were away then: a node forgets it when it restarts,
//! and may propose a minute later.
//!
//! It is told again in the order in which it came, so what was told later counts. The same told twice is kept once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use super::{
    Request,
    upload::{Upload, Whole},
};
use crate::{memory::Claim, pool::Pool};

/// Bytes that are kept, at most.
const MOST: usize = 32 << 20;
/// Bodies that are kept, at most.
const MOST_BODIES: usize = 4096;
/// What one takes beside its bytes.
const EACH: usize = 512;
/// The kinds of what is told. When there is too much of it all, the kind goes that there is most of, so that many registrations leave
/// the fee recipients.
const KINDS: [&str; 4] =
    ["prepare_beacon_proposer", "register_validator", "proposer_preferences", "beacon_committee_subscriptions"];

/// Headers that say what a body means, or who says it. The others differ from one request to the next.
const MEANING: [&str; 4] = ["content-type", "content-encoding", "eth-consensus-version", "authorization"];

/// What is kept.
pub(super) struct Kept {
    state: Mutex<State>,
    /// Rung when there is something new.
    pub(super) bell: Notify,
    most: usize,
}

struct State {
    told: VecDeque<Told>,
    /// Of the clients' memory; there is none before the first.
    claim: Option<Claim>,
    bytes: usize,
    last: u64,
    /// How often each node has begun anew.
    lives: Vec<u64>,
    /// Until when a node that did not take something is left alone.
    pauses: Vec<Option<Instant>>,
}

struct Told {
    id: u64,
    request: Arc<Request>,
    body: Bytes,
    at: Instant,
    /// In which of its lives each node was told; `None` for one that was not.
    nodes: Vec<Option<u64>>,
}

impl Told {
    /// Its place among the kinds; those that have no name stand behind them.
    fn kind(&self) -> usize {
        let path = self.request.target.as_str().split('?').next().unwrap_or_default();
        let last = path.trim_end_matches('/').rsplit('/').next();
        KINDS.iter().position(|kind| last == Some(kind)).unwrap_or(KINDS.len())
    }

    fn weight(&self) -> usize {
        let headers = self.request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        EACH + self.body.len() + headers.sum::<usize>()
    }
}

/// One thing that a node is to be told again.
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

    /// Keeps what all nodes are told now, for twice an `epoch`; the others make room for it. Returns its number. `nodes` are being
    /// told.
    pub(super) fn keep(&self, request: &Arc<Request>, body: &Whole, nodes: &[usize], epoch: Duration) -> u64 {
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
        let body = match state.told.iter().position(is_same) {
            Some(place) => state.remove(place).map(|told| told.body),
            None => None,
        }
        // The client's buffer may be larger than what is in it.
        .unwrap_or_else(|| Bytes::copy_from_slice(body.bytes()));
        state.last += 1;
        let id = state.last;
        let mut told =
            Told { id, request: request.clone(), body, at: Instant::now(), nodes: vec![None; state.lives.len()] };
        for &node in nodes {
            told.nodes[node] = Some(state.lives[node]);
        }
        state.bytes += told.weight();
        state.told.push_back(told);
        state.make_room(self.most);
        id
    }

    /// Whether there is anything.
    pub(super) fn is_empty(&self) -> bool {
        self.state().told.is_empty()
    }

    /// Bytes that are kept now.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// A node began anew: it knows nothing of this.
    pub(super) fn begins_anew(&self, node: usize) {
        let mut state = self.state();
        state.lives[node] += 1;
        state.pauses[node] = None;
    }

    /// A node has not been told it after all, and is left alone for so long.
    pub(super) fn failed(&self, id: u64, node: usize, pause: Duration) {
        let mut state = self.state();
        state.pauses[node] = Some(Instant::now() + pause);
        if let Some(told) = state.told.iter_mut().find(|told| told.id == id) {
            told.nodes[node] = None;
        }
    }

    /// Whether there is anything to tell the node now.
    pub(super) fn has_due(&self, node: usize) -> bool {
        let state = self.state();
        let is_left_alone = state.pauses[node].is_some_and(|until| Instant::now() < until);
        !is_left_alone && state.told.iter().any(|told| told.nodes[node] != Some(state.lives[node]))
    }

    /// The first thing that the node does not know yet, of those after number `after`. It counts as told from now on.
    pub(super) fn next(&self, node: usize, after: u64, epoch: Duration) -> Option<Due> {
        let mut state = self.state();
        state.forget(epoch);
        let life = state.lives[node];
        let due = state.told.iter_mut().find(|told| told.id > after && told.nodes[node] != Some(life))?;
        due.nodes[node] = Some(life);
        Some(Due { id: due.id, request: due.request.clone(), upload: Upload::whole(due.body.clone()) })
    }

    /// Takes over what is kept for an earlier pool, whose nodes are known by their names.
    pub(super) fn inherit(&self, pool: &Pool, earlier: &Self, of: &Pool) {
        let mut taken = {
            let mut earlier = earlier.state();
            let empty = State::empty(earlier.lives.clone());
            std::mem::replace(&mut *earlier, empty)
        };
        let place = |name: &str| of.nodes.iter().position(|node| *node.name == *name);
        let places: Vec<Option<usize>> = pool.nodes.iter().map(|node| place(&node.name)).collect();
        let lives: Vec<u64> = places.iter().map(|place| place.map_or(0, |place| taken.lives[place])).collect();
        for told in &mut taken.told {
            told.nodes = places.iter().map(|place| place.and_then(|place| told.nodes[place])).collect();
        }
        let mut state = self.state();
        // What came here meanwhile is newer.
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
        // Whatever was done to it was done whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn empty(lives: Vec<u64>) -> Self {
        let pauses = vec![None; lives.len()];
        Self { told: VecDeque::new(), claim: None, bytes: 0, last: 0, lives, pauses }
    }

    fn remove(&mut self, place: usize) -> Option<Told> {
        let told = self.told.remove(place)?;
        self.bytes -= told.weight();
        Some(told)
    }

    fn forget(&mut self, epoch: Duration) {
        let now = Instant::now();
        while self.told.front().is_some_and(|told| now.saturating_duration_since(told.at) > epoch.saturating_mul(2)) {
            self.remove(0);
        }
        self.count();
    }

    /// Keeps no more than may be kept, and than clients may make us hold.
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

    /// Removes the oldest of the kind that there is most of by this measure; `false` if there is none.
    fn thin(&mut self, measure: fn(&Told) -> usize) -> bool {
        let mut sums = [0; KINDS.len() + 1];
        self.told.iter().for_each(|told| sums[told.kind()] += measure(told));
        let heaviest = (0..sums.len()).max_by_key(|kind| sums[*kind]);
        let oldest = self.told.iter().position(|told| Some(told.kind()) == heaviest);
        oldest.and_then(|place| self.remove(place)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use tokio::{sync::Semaphore, time::advance};

    use super::*;
    use crate::{
        domain::{rest::Route, target::Target},
        memory::{Account, Budget},
    };

    const EPOCH: Duration = Duration::from_secs(384);

    fn request(path: &str) -> Arc<Request> {
        let (method, target) = (Method::POST, Target::parse(path).unwrap());
        Arc::new(Request { route: Route::of("POST", path), method, target, headers: HeaderMap::new(), caller: None })
    }

    async fn body(text: &str, budget: &Arc<Budget>) -> Whole {
        let piece = Bytes::copy_from_slice(text.as_bytes());
        let pieces = futures_util::stream::iter([Ok(piece)]);
        let mut upload = Upload::streamed(Box::pin(pieces), None).counted(Account::open(budget).incoming());
        upload.keep(1 << 20, &Arc::new(Semaphore::new(1 << 20))).await.unwrap();
        upload.in_memory().unwrap()
    }

    /// What the node is told now.
    fn told(kept: &Kept, node: usize) -> Vec<String> {
        let mut after = 0;
        let mut all = Vec::new();
        while let Some(due) = kept.next(node, after, EPOCH) {
            after = due.id;
            all.push(String::from_utf8(due.upload.in_memory().unwrap().bytes().to_vec()).unwrap());
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_begins_anew_is_told_all_in_order_and_once() {
        let (kept, prepare) = (Kept::new(2), request("/eth/v1/validator/prepare_beacon_proposer"));
        let budget = Budget::new(1 << 20);
        for text in ["a", "b", "a"] {
            kept.keep(&prepare, &body(text, &budget).await, &[0], EPOCH);
        }
        assert!(!kept.has_due(0) && kept.has_due(1));
        assert_eq!((told(&kept, 0), told(&kept, 1)), (vec![], vec!["b".to_owned(), "a".to_owned()]));
        kept.begins_anew(0);
        assert!(kept.has_due(0) && !kept.has_due(1));
        assert_eq!((told(&kept, 0).len(), told(&kept, 1).len()), (2, 0));
        // What did not arrive is due again, a little later.
        let id = kept.keep(&request("/eth/v1/validator/register_validator"), &body("a", &budget).await, &[0, 1], EPOCH);
        kept.failed(id, 1, Duration::from_secs(12));
        assert!(!kept.has_due(1));
        advance(Duration::from_secs(12)).await;
        assert!(kept.has_due(1));
        assert_eq!((told(&kept, 0).len(), told(&kept, 1)), (0, vec!["a".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_older_than_two_epochs_is_forgotten() {
        let (kept, prepare) = (Kept::new(1), request("/eth/v1/validator/prepare_beacon_proposer"));
        let budget = Budget::new(1 << 20);
        kept.keep(&prepare, &body("a", &budget).await, &[], EPOCH);
        advance(EPOCH).await;
        kept.keep(&prepare, &body("b", &budget).await, &[], EPOCH);
        advance(EPOCH + Duration::from_secs(1)).await;
        assert_eq!(told(&kept, 0), ["b"]);
        advance(EPOCH).await;
        assert_eq!((told(&kept, 0).len(), kept.bytes(), kept.is_empty()), (0, 0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_and_the_clients_memory_has_it() {
        let (kept, prepare) = (Kept::up_to(4 * EACH, 1), request("/eth/v1/validator/prepare_beacon_proposer"));
        let budget = Budget::new(1 << 20);
        for text in ["a", "b", "c", "d"] {
            kept.keep(&prepare, &body(text, &budget).await, &[], EPOCH);
        }
        assert_eq!(told(&kept, 0), ["b", "c", "d"]);
        // What there is most of makes room first, and the other kinds stay.
        let register = request("/eth/v1/validator/register_validator");
        let long = "r".repeat(3 * EACH);
        kept.keep(&register, &body(&long, &budget).await, &[], EPOCH);
        kept.begins_anew(0);
        assert_eq!(told(&kept, 0), ["b", "c", "d"]);
        // Where clients hold all that they may, three quarters of this, less is kept.
        let (large, budget) = (Kept::new(1), Budget::new(400_000));
        for (letter, held) in [("x", 1), ("y", 2), ("z", 2)] {
            large.keep(&prepare, &body(&letter.repeat(100_000), &budget).await, &[], EPOCH);
            assert!((90_000 * held..110_000 * held).contains(&budget.held()), "{letter}: {}", budget.held());
        }
        assert_eq!(told(&large, 0), ["y", "z"].map(|letter| letter.repeat(100_000)));
        drop(large);
        assert_eq!(budget.held(), 0);
    }
}
