//! Subscribers with the same request, sharded by worker: notifications to a subscriber are made on
//! the thread that serves its client.
//!
//! Reason: waking a task of another thread is a system call, and a block may mean notifications to
//! ten thousand subscribers. So each worker gets one job for all its subscribers. Event streams of
//! consensus nodes (`events::audience`) do without: they have fewer clients and one map for all.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    mailbox::{Closing, Mailbox},
    worker_jobs::WorkerJobs,
};
use crate::metrics::Metrics;

/// The subscribers of one kind. Subscribers with equal requests get the same results.
pub(super) struct Audience<Q> {
    shards: Box<[Mutex<Shard<Q>>]>,
    worker_jobs: WorkerJobs,
    /// The number of the newest change that was announced.
    now: AtomicU64,
    /// The kind of subscription, for the metrics.
    kind: &'static str,
    metrics: Arc<Metrics>,
}

struct Shard<Q> {
    came: u64,
    /// The present state, if states are sent and one is known.
    present: Option<Arc<str>>,
    /// Set once all subscribers were closed. A later one is closed when its subscription begins.
    closed: Option<Closing>,
    /// By request, then in the order of arrival.
    subscribers: BTreeMap<Arc<Q>, BTreeMap<u64, Subscriber>>,
}

struct Subscriber {
    /// The newest change that had been announced when the subscriber came; the subscriber gets only
    /// later changes.
    since: u64,
    /// Whether the subscriber got any result.
    has_results: bool,
    /// The text of a notification up to the result.
    before_result: Arc<str>,
    mailbox: Arc<Mailbox>,
    /// Results wait here until the subscription begins.
    held: Option<Box<Held>>,
}

/// Results that a subscriber gets when its subscription begins.
#[derive(Default)]
struct Held {
    results: Vec<Arc<str>>,
    /// Set if the subscriber is to be closed behind the results.
    closing: Option<Closing>,
}

/// A subscriber's place. The subscriber leaves when this is dropped.
pub(super) struct Membership<Q: Ord> {
    audience: Arc<Audience<Q>>,
    request: Arc<Q>,
    shard: usize,
    number: u64,
    counted: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl<Q: Ord + Send + Sync + 'static> Audience<Q> {
    pub(super) fn new(kind: &'static str, worker_jobs: WorkerJobs, metrics: Arc<Metrics>) -> Arc<Self> {
        let shard = || Mutex::new(Shard { came: 0, present: None, closed: None, subscribers: BTreeMap::new() });
        let shards = (0..worker_jobs.count()).map(|_| shard()).collect();
        metrics.begin_notifications(kind);
        Arc::new(Self { shards, worker_jobs, now: AtomicU64::new(0), kind, metrics })
    }

    /// Adds a subscriber, which gets the results of all changes announced from now on.
    /// `before_result` is the text of its notifications up to the result.
    pub(super) fn join(self: &Arc<Self>, request: Q, before_result: Arc<str>, mailbox: Arc<Mailbox>) -> Membership<Q> {
        let mut membership = self.expect(request, before_result, mailbox);
        membership.begin();
        membership
    }

    /// Adds a subscriber whose answer is not on its way. Results wait for [`Membership::begin`],
    /// behind the present state, if one is known.
    pub(super) fn expect(
        self: &Arc<Self>,
        request: Q,
        before_result: Arc<str>,
        mailbox: Arc<Mailbox>,
    ) -> Membership<Q> {
        let index = self.worker_jobs.here();
        let request = Arc::new(request);
        let mut shard = self.shard(index);
        // Read under the shard's lock: a task that announces a change and then looks into the shard
        // finds this subscriber, or the subscriber has read the number of that change.
        let since = self.now.load(Relaxed);
        let mut one = Subscriber { since, has_results: false, before_result, mailbox, held: Some(Box::default()) };
        if let Some(present) = &shard.present {
            one.tell(std::slice::from_ref(present));
        }
        if let Some(why) = shard.closed {
            one.close(why);
        }
        shard.came += 1;
        let number = shard.came;
        let request = match shard.subscribers.get_key_value(&request) {
            Some((known, _)) => known.clone(),
            None => request,
        };
        shard.subscribers.entry(request.clone()).or_default().insert(number, one);
        drop(shard);
        Membership { audience: self.clone(), request, shard: index, number, counted: None }
    }

    /// Announces a change. Subscribers that join later get no results of that change.
    pub(super) fn announce(&self, change: u64) {
        self.now.store(change, Relaxed);
    }

    /// The requests of the subscribers that get results of this change, each at least once.
    pub(super) fn requests(&self, change: u64) -> Vec<Arc<Q>> {
        let mut requests = Vec::new();
        for index in 0..self.shards.len() {
            let shard = self.shard(index);
            let hear = |subscribers: &BTreeMap<u64, Subscriber>| subscribers.values().any(|one| one.since < change);
            requests.extend(
                shard
                    .subscribers
                    .iter()
                    .filter(|(_, subscribers)| hear(subscribers))
                    .map(|(request, _)| request.clone()),
            );
        }
        requests
    }

    /// Gives each subscriber to this change the results that `results` makes of its request. The
    /// jobs are in the workers' queues when this returns, so results of a later call arrive later.
    pub(super) async fn tell<R>(self: &Arc<Self>, change: u64, results: R)
    where
        R: Fn(&Q) -> Arc<[Arc<str>]> + Send + Sync + 'static,
    {
        let results = Arc::new(results);
        for index in 0..self.shards.len() {
            if self.shard(index).subscribers.is_empty() {
                continue;
            }
            let (audience, results) = (self.clone(), results.clone());
            let job = move || audience.tell_shard(index, None, |one| one.since < change, &*results);
            self.worker_jobs.send(index, Box::new(job)).await;
        }
    }

    /// Sends a state, which is the present one until the next state: to all subscribers, or only to
    /// those that got no state yet. A subscriber that is added meanwhile gets the state first.
    pub(super) async fn tell_state(self: &Arc<Self>, state: Arc<str>, to_all: bool) {
        for index in 0..self.shards.len() {
            let (audience, results): (_, Arc<[Arc<str>]>) = (self.clone(), [state.clone()].into());
            let job = move || {
                let hears = |one: &Subscriber| to_all || !one.has_results;
                audience.tell_shard(index, Some(&results[0]), hears, |_| Arc::clone(&results));
            };
            self.worker_jobs.send(index, Box::new(job)).await;
        }
    }

    /// Forgets the present state, so that later subscribers are not told an old one.
    pub(super) async fn forget_state(self: &Arc<Self>) {
        for index in 0..self.shards.len() {
            let audience = self.clone();
            self.worker_jobs.send(index, Box::new(move || audience.shard(index).present = None)).await;
        }
    }

    /// Closes the subscribers that get results of this change and have one of `these` requests.
    /// Earlier notifications still leave before the close.
    pub(super) async fn close(
        self: &Arc<Self>,
        change: u64,
        why: Closing,
        these: impl Fn(&Q) -> bool + Send + Sync + 'static,
    ) {
        let these = Arc::new(these);
        for index in 0..self.shards.len() {
            let (audience, these) = (self.clone(), these.clone());
            self.worker_jobs.send(index, Box::new(move || audience.close_shard(index, change, why, &*these))).await;
        }
    }

    /// Closes all subscribers at once, from any thread, and all later ones.
    pub(super) fn close_all(&self, why: Closing) {
        for index in 0..self.shards.len() {
            self.shard(index).closed = Some(why);
            self.close_shard(index, u64::MAX, why, &|_| true);
        }
    }

    /// Gives results to the subscribers of a shard that `hears` selects. `present` becomes the
    /// present state under the same lock.
    fn tell_shard(
        &self,
        index: usize,
        present: Option<&Arc<str>>,
        hears: impl Fn(&Subscriber) -> bool,
        results: impl Fn(&Q) -> Arc<[Arc<str>]>,
    ) {
        let mut told = 0;
        let mut shard = self.shard(index);
        if present.is_some() {
            shard.present = present.cloned();
        }
        for (request, subscribers) in &mut shard.subscribers {
            let results = results(request);
            if results.is_empty() {
                continue;
            }
            for one in subscribers.values_mut().filter(|one| hears(one)) {
                if one.tell(&results) {
                    told += results.len() as u64;
                }
            }
        }
        drop(shard);
        if told > 0 {
            self.metrics.notified(self.kind, told);
        }
    }

    fn close_shard(&self, index: usize, change: u64, why: Closing, these: &dyn Fn(&Q) -> bool) {
        let mut shard = self.shard(index);
        let meant = shard.subscribers.iter_mut().filter(|(request, _)| these(request));
        meant
            .flat_map(|(_, subscribers)| subscribers.values_mut())
            .filter(|one| one.since < change)
            .for_each(|one| one.close(why));
    }
}

impl Subscriber {
    /// Returns `false` when the client is being closed, and gets no results.
    fn tell(&mut self, results: &[Arc<str>]) -> bool {
        self.has_results = true;
        match &mut self.held {
            None => self.mailbox.push_notifications(&self.before_result, results),
            Some(held) => {
                let is_open = self.mailbox.hold(&self.before_result, results);
                if is_open {
                    held.results.extend_from_slice(results);
                } else {
                    self.mailbox.release(&self.before_result, results);
                }
                is_open
            }
        }
    }

    fn close(&mut self, why: Closing) {
        match &mut self.held {
            None => self.mailbox.close(why),
            Some(held) => _ = held.closing.get_or_insert(why),
        }
    }

    fn begin(&mut self) {
        let Some(held) = self.held.take() else { return };
        self.mailbox.release(&self.before_result, &held.results);
        self.mailbox.push_notifications(&self.before_result, &held.results);
        if let Some(why) = held.closing {
            self.mailbox.close(why);
        }
    }
}

impl<Q> Audience<Q> {
    fn shard(&self, index: usize) -> MutexGuard<'_, Shard<Q>> {
        // A shard is consistent at every moment, so a panic elsewhere cannot have spoilt it.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Q: Ord> Membership<Q> {
    /// Sends the subscriber the results that wait, and later ones as they come. To be called when
    /// the answer with the subscription's id is in the mailbox, so that no notification precedes
    /// the answer.
    pub(super) fn begin(&mut self) {
        let mut shard = self.audience.shard(self.shard);
        if let Some(one) =
            shard.subscribers.get_mut(&self.request).and_then(|subscribers| subscribers.get_mut(&self.number))
        {
            one.begin();
        }
        drop(shard);
        let count = || Box::new(self.audience.metrics.subscription(self.audience.kind)) as _;
        self.counted.get_or_insert_with(count);
    }
}

impl<Q: Ord> Drop for Membership<Q> {
    fn drop(&mut self) {
        let mut shard = self.audience.shard(self.shard);
        if let Some(subscribers) = shard.subscribers.get_mut(&self.request) {
            if let Some(Subscriber { before_result, mailbox, held: Some(held), .. }) = subscribers.remove(&self.number)
            {
                mailbox.release(&before_result, &held.results);
            }
            if subscribers.is_empty() {
                shard.subscribers.remove(&self.request);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use tokio::sync::mpsc;

    use super::{
        super::{mailbox::Outbound, worker_jobs::Job},
        *,
    };

    struct Setup {
        audience: Arc<Audience<u8>>,
        jobs: mpsc::Receiver<Job>,
    }

    impl Setup {
        fn new() -> Self {
            let (worker_jobs, mut ends) = WorkerJobs::new(1);
            let audience = Audience::new("newHeads", worker_jobs, Arc::new(Metrics::new()));
            Self { audience, jobs: ends.remove(0) }
        }

        fn join(&self, request: u8) -> (Arc<Mailbox>, Membership<u8>) {
            let mailbox = Mailbox::new(1000);
            let membership = self.audience.join(request, "".into(), mailbox.clone());
            (mailbox, membership)
        }

        /// Tells each subscriber its own request and the number of the change.
        async fn tell(&self, change: u64) {
            self.audience.announce(change);
            self.audience.tell(change, move |request| [format!("{request}:{change}").into()].into()).await;
        }

        fn work(&mut self) {
            while let Ok(job) = self.jobs.try_recv() {
                job();
            }
        }
    }

    fn heard(mailbox: &Mailbox) -> Vec<String> {
        let mut heard = Vec::new();
        while let Poll::Ready(message) = mailbox.poll_next(&mut Context::from_waker(Waker::noop())) {
            let Outbound::Notification(notification) = message else { panic!("{message:?}") };
            heard.push(String::from_utf8(notification.parts()[1].to_vec()).unwrap());
        }
        heard
    }

    #[tokio::test]
    async fn new_subscriber_hears_later_announcements_only() {
        let mut setup = Setup::new();
        let (early, _membership) = setup.join(1);
        setup.tell(1).await;
        let (late, _membership) = setup.join(1);
        assert_eq!(setup.audience.requests(1).len(), 1);
        setup.tell(2).await;
        setup.work();
        assert_eq!((heard(&early), heard(&late)), (vec!["1:1".into(), "1:2".into()], vec!["1:2".to_owned()]));
    }

    #[tokio::test]
    async fn leaving_subscriber_hears_no_announcement_under_way() {
        let mut setup = Setup::new();
        let ((one, stays), (two, leaves)) = (setup.join(1), setup.join(1));
        setup.tell(1).await;
        drop(leaves);
        setup.work();
        assert_eq!((heard(&one), heard(&two)), (vec!["1:1".into()], Vec::<String>::new()));
        drop(stays);
        assert_eq!(setup.audience.requests(2), []);
        setup.tell(2).await;
        assert!(setup.jobs.try_recv().is_err(), "nobody is there");
    }

    #[tokio::test]
    async fn results_are_made_once_for_equal_requests() {
        use std::sync::atomic::AtomicUsize;
        let mut setup = Setup::new();
        let all: Vec<_> = (0..100).map(|n| setup.join(n % 2)).collect();
        assert_eq!(setup.audience.requests(1).len(), 2);
        let worked = Arc::new(AtomicUsize::new(0));
        let count = worked.clone();
        let results = move |request: &u8| {
            count.fetch_add(1, Relaxed);
            [request.to_string().into()].into()
        };
        setup.audience.tell(1, results).await;
        setup.work();
        assert_eq!(worked.load(Relaxed), 2);
        assert!(all.iter().enumerate().all(|(n, (mailbox, _))| heard(mailbox) == [(n % 2).to_string()]));
    }

    #[tokio::test]
    async fn affected_clients_are_closed_behind_what_they_were_told() {
        let mut setup = Setup::new();
        let (early, _membership) = setup.join(1);
        setup.tell(1).await;
        setup.audience.announce(2);
        let ((late, _membership), (other, _other_membership)) = (setup.join(1), setup.join(2));
        setup.audience.close(2, Closing::Gap, |request| *request == 1).await;
        setup.audience.close(3, Closing::Gap, |request| *request == 3).await;
        setup.tell(3).await;
        setup.work();
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(early.poll_next(&mut context), Poll::Ready(Outbound::Notification(_))));
        assert_eq!(early.poll_next(&mut context), Poll::Ready(Outbound::Close(Closing::Gap)));
        assert_eq!((heard(&late), heard(&other)), (vec!["1:3".into()], vec!["2:3".to_owned()]));
    }
}
