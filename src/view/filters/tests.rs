//! Which calls look again at what happens. Counts, since times depend on the machine.

use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::{
    chain,
    chain::Follower,
    domain::{layer::Layer, node_id::NodeId},
    pool::Pool,
    view::WorkerJobs,
};

const NAME: B256 = B256::repeat_byte(7);

fn account() -> Arc<Account> {
    Account::open(&Budget::new(1 << 20))
}

/// Filters without a node, and the tasks behind them.
fn filters() -> (Arc<Filters>, impl Sized) {
    let (metrics, health) = (Arc::new(Metrics::new()), config::Health::default());
    let wall = Arc::new(|| 0);
    let (pool, probing) = Pool::start("x", Layer::El, Vec::new(), &health, None, metrics.clone(), wall);
    let (follower, changes, following) = Follower::start(pool.clone(), &config::Chain::default(), metrics.clone());
    let topics = Topics::new(pool, Duration::from_secs(1), WorkerJobs::new(1).0, metrics.clone());
    let interest = Interest::new(follower);
    let (settings, memory) = (config::Filters::default(), Budget::new(1 << 20));
    let filters = Filters::new(interest, Arc::new(topics), &settings, &memory, [0; 32], metrics);
    (filters, (changes, probing, following))
}

impl Filters {
    fn add(&self, kind: Kind) -> SubscriptionId {
        let interested = kind.is_of_the_chain().then(|| Interested::new(&self.interest));
        self.change_registry(|registry| registry.add(kind, None, interested, Instant::now())).unwrap()
    }

    async fn poll_of(&self, id: SubscriptionId) -> Answer {
        let params = format!("[\"{id}\"]");
        let method = "eth_getFilterChanges".into();
        let request = Request { raw: b"", id: Some(b"1"), method, params: Some(params.as_bytes()) };
        self.poll(&request, &account(), AnswerRoom::ENDLESS).await.unwrap()
    }

    fn looks(&self) -> u64 {
        self.looks.load(Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_look_again_for_news_of_their_own_alone() {
    let (filters, _running) = filters();
    let all = Kind::Logs { filter: Arc::new(Filter::read("{}").unwrap()), range: "".into() };
    let (logs, pending) = (filters.add(all), Kind::Transactions { full: false });
    let [busy, polled] = [(); 2].map(|()| filters.add(pending.clone()));
    let header = "{}".into();
    let block = chain::Block { number: 7, hash: NAME, parent: B256::default(), timestamp: 0, header, bloom: None };
    let change = Change { seq: 1, node: NodeId(0), removed: Vec::new(), added: vec![Arc::new(block)], skipped: false };
    let came = Block { number: 7, hash: NAME, change: 1, bloom: None };
    filters.changed(&change, Vec::new(), std::iter::once(Arc::new(came)));
    filters.heard(false, "\"0x1\"".into());
    let mut under_way = filters.poll_of(polled).await;

    // A poll that waits for the block's logs, the end of its filter, and a poll that waits for the
    // answer under way.
    let mut waiting = JoinSet::new();
    let before = filters.looks();
    let of = filters.clone();
    waiting.spawn(async move { _ = of.poll_of(logs).await });
    let of = filters.clone();
    waiting.spawn(async move { _ = of.poll_of(polled).await });
    while filters.looks() < before + 3 {
        yield_now().await;
    }
    let of = filters.clone();
    waiting.spawn(async move { _ = of.end(logs).await });
    while filters.looks() < before + 4 {
        yield_now().await;
    }

    // Other clients' polls, with answers that arrive.
    for _ in 0..100 {
        filters.heard(false, "\"0x2\"".into());
        filters.poll_of(busy).await.take_receipt().expect("news").has_left();
        yield_now().await;
    }
    assert_eq!(filters.looks(), before + 4 + 100, "each poll looks once, and those that wait do not");

    let began = Instant::now();
    filters.found(NAME, Some(&[].into()));
    under_way.take_receipt().expect("news").has_left();
    waiting.join_all().await;
    assert_eq!(began.elapsed(), Duration::ZERO, "their own news wakes them");
    assert!(!filters.lock().is_polled(logs) && filters.lock().look_up(logs, false, began).is_none());
}
