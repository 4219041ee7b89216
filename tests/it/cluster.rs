//! Several proxies as replicas over one store in memory, each as the binary builds it. In simulated
//! time.

mod shared_heights;
mod shared_verdicts;
mod wishes;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use steadfast::{
    app::{App, SetLog, Source, World},
    cluster::store::{
        Store,
        memory::{Memory, Settings},
        nats::OpenError,
    },
    devnet::{Devnet, Options},
};
use tokio::time::{Instant, sleep};

use crate::common::{
    client::call,
    proxy,
    sim::{Net, Proxy},
    simulation::run_simulated,
};

const START_UNIX: u64 = 1_800_000_000;
/// The usual `failover_timeout`.
const FAILOVER: Duration = Duration::from_secs(12);
/// `heartbeat * failure_threshold`.
const LEASE: Duration = Duration::from_secs(3);

/// Replicas over one store, before one node.
struct Fleet {
    net: Net,
    devnet: Devnet,
    store: Memory,
    /// Why the store cannot be opened, if so.
    refusal: Arc<Mutex<Option<OpenError>>>,
    start: Instant,
    /// A place for each replica that was started; none where the replica was stopped.
    replicas: Vec<Option<Proxy>>,
    settings: Vec<Arc<Mutex<String>>>,
    /// The levels that wishes gave to the logs of the first three replicas.
    levels: Arc<Mutex<[Option<String>; 3]>>,
}

impl Fleet {
    async fn new() -> Self {
        Self::before(1).await
    }

    /// A fleet without replicas yet, and a network of so many nodes.
    async fn before(nodes: usize) -> Self {
        let net = Net::default();
        let options = Options { execution: nodes, now_unix: Some(START_UNIX), ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let (store, refusal) = (Memory::new(Settings::default()), Arc::default());
        let (replicas, settings, levels) = (Vec::new(), Vec::new(), Arc::default());
        Self { net, devnet, store, refusal, start: Instant::now(), replicas, settings, levels }
    }

    /// Three replicas `r0`, `r1`, `r2`, and the place of the one that leads.
    async fn of_three() -> (Self, usize) {
        let mut fleet = Self::new().await;
        for place in 0..3 {
            fleet.launch(place, "").await;
        }
        let leader = fleet.leader_within(FAILOVER + LEASE).await;
        fleet.until_view("r0 active, r1 active, r2 active").await;
        (fleet, leader)
    }

    /// The settings of a replica before all nodes, its own one first.
    fn text(&self, place: usize, more: &str) -> String {
        let count = self.devnet.nodes().count();
        let urls: Vec<String> = (0..count).map(|at| self.devnet.el((place + at) % count).http_url()).collect();
        let nodes = proxy::nodes(urls.iter().map(String::as_str));
        format!("{nodes}[cluster]\nname = \"eu\"\nreplica = \"r{place}\"\nnats = \"nats://unused\"\n{more}")
    }

    /// Starts the replica of this place, anew where it was stopped.
    async fn launch(&mut self, place: usize, more: &str) {
        self.launch_at(START_UNIX, place, more).await;
    }

    /// The same with another time on its wall clock.
    async fn launch_at(&mut self, wall: u64, place: usize, more: &str) {
        let (memory, refusal) = (self.store.clone(), self.refusal.clone());
        let open_cluster = Arc::new(move |settings: &steadfast::config::Cluster| {
            let store = Arc::new(memory.client(settings.replica.as_str())) as Arc<dyn Store>;
            let outcome = refusal.lock().unwrap().clone().map_or(Ok(store), Err);
            Box::pin(async move { outcome }) as _
        });
        let levels = self.levels.clone();
        let set_log: SetLog = Arc::new(move |level| {
            levels.lock().unwrap()[place] = level.map(str::to_owned);
            Ok(())
        });
        // The log of the third replica, and of any further one, has a fixed level.
        let set_log = (place < 2).then_some(set_log);
        let world = World { open_cluster, set_log, ..self.net.world(wall, self.start) };
        let settings = Arc::new(Mutex::new(self.text(place, more)));
        let read = settings.clone();
        let source: Source = Arc::new(move || {
            let text = format!("listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n{}", read.lock().unwrap());
            steadfast::config::Config::parse(&text, &|_| None).map_err(|errors| errors.to_string())
        });
        let app = App::start(source().unwrap(), world, Some(source)).await.unwrap();
        let proxy = Proxy::of(&self.net, app);
        if place == self.replicas.len() {
            self.replicas.push(None);
            self.settings.push(settings.clone());
        }
        self.settings[place] = settings;
        assert!(self.replicas[place].replace(proxy).is_none(), "r{place} runs already");
    }

    fn at(&self, place: usize) -> &Proxy {
        self.replicas[place].as_ref().unwrap()
    }

    /// Ends a replica at once, as a crash does.
    fn crash(&mut self, place: usize) {
        drop(self.replicas[place].take().unwrap());
    }

    async fn cluster(&self, place: usize) -> Value {
        self.at(place).admin("/status").await.json()["cluster"].take()
    }

    /// The replicas whose `/leader` says 200. There must never be two.
    async fn leaders(&self) -> Vec<usize> {
        let mut leaders = Vec::new();
        for (place, replica) in self.replicas.iter().enumerate() {
            let Some(replica) = replica else { continue };
            match replica.admin("/leader").await.status {
                200 => leaders.push(place),
                503 => {}
                other => panic!("/leader of r{place}: {other}"),
            }
        }
        assert!(leaders.len() <= 1, "{leaders:?} lead:\n{}", self.store.dump());
        leaders
    }

    /// Waits until a replica leads.
    async fn leader_within(&self, patience: Duration) -> usize {
        let start = Instant::now();
        loop {
            if let Some(leader) = self.leaders().await.first() {
                return *leader;
            }
            assert!(start.elapsed() < patience, "no leader within {patience:?}:\n{}", self.store.dump());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all replicas that run have this view.
    async fn until_view(&self, wanted: &str) {
        let start = Instant::now();
        loop {
            let mut views = Vec::new();
            for place in (0..self.replicas.len()).filter(|place| self.replicas[*place].is_some()) {
                views.push(self.cluster(place).await["view"].take());
            }
            if views.iter().all(|view| told(view) == wanted && view["number"] == views[0]["number"]) {
                return;
            }
            assert!(start.elapsed() < 3 * FAILOVER, "no view {wanted}: {views:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// A call is answered by this replica.
    async fn serves(&self, place: usize) {
        let answer = self.at(place).post(call(1, "eth_chainId", "[]")).await.json();
        assert!(answer["result"].is_string(), "{answer}");
    }
}

/// A view as text.
fn told(view: &Value) -> String {
    let members = view["members"].as_array().into_iter().flatten();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = members.map(|member| format!("{} {}", word(&member["replica"]), word(&member["state"])));
    members.collect::<Vec<_>>().join(", ")
}

/// A11, A12, A30, R1, R6, R12, R16: all replicas know of one leader, and of its successor.
#[test]
fn another_leads_when_the_leader_crashes() {
    run_simulated(1, async {
        let (mut fleet, leader) = Fleet::of_three().await;
        let before = fleet.cluster(leader).await;
        for place in 0..3 {
            assert_eq!(fleet.cluster(place).await["leader"]["replica"], format!("r{leader}"));
        }
        assert_eq!(before["role"], "leading");
        fleet.crash(leader);
        let crashed = Instant::now();
        // The first look comes before the lease of the dead one is over for the others.
        assert!(fleet.leaders().await.is_empty());
        let next = fleet.leader_within(FAILOVER + Duration::from_secs(1)).await;
        assert!(crashed.elapsed() > LEASE, "before the lease was over");
        assert_ne!(next, leader);
        let after = fleet.cluster(next).await;
        assert!(after["term"].as_u64() > before["term"].as_u64(), "{before} {after}");
        let word = |place| if place == leader { "failed" } else { "active" };
        fleet.until_view(&(0..3).map(|place| format!("r{place} {}", word(place))).collect::<Vec<_>>().join(", ")).await;
        let changes = fleet.at(next).metric("steadfast_cluster_transitions_total", "to=\"leading\"").await;
        assert_eq!((changes, fleet.at(next).metric("steadfast_cluster_leading", "").await), (1.0, 1.0));
    });
}

/// A22, A28, R8, C5, C7: a replica that comes back under its name with a clock that was set back is
/// a new life at all replicas, and outranks the one before without a wait.
#[test]
fn a_replica_that_comes_back_is_a_new_life() {
    run_simulated(2, async {
        let (mut fleet, leader) = Fleet::of_three().await;
        let other = (leader + 1) % 3;
        let before = fleet.cluster(other).await["epoch"].as_u64().unwrap();
        fleet.crash(other);
        sleep(Duration::from_secs(1)).await;
        fleet.launch_at(START_UNIX - 86_400, other, "").await;
        let (start, mut place) = (Instant::now(), 0);
        while place < 3 {
            let told = fleet.cluster(place).await;
            let epoch_in = |list: &Value| {
                let known = list.as_array().into_iter().flatten().find(|of| of["replica"] == format!("r{other}"));
                known.and_then(|of| of["epoch"].as_u64()).filter(|epoch| *epoch > before)
            };
            match (epoch_in(&told["view"]["members"]), epoch_in(&told["replicas"])) {
                (Some(member), Some(heard)) if member == heard => place += 1,
                _ => assert!(start.elapsed() < LEASE, "r{place} does not know the new life: {told}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
        fleet.until_view("r0 active, r1 active, r2 active").await;
        assert_eq!(fleet.cluster(other).await["state"], "active");
        assert_eq!(fleet.leaders().await, [leader]);
        // Its verdict on the node counts once, and it may lead.
        let node = fleet.cluster(leader).await["nodes"][0].take();
        assert_eq!((&node["of"], &node["verdicts"]["up"]), (&3.into(), &3.into()), "{node}");
        fleet.crash(leader);
        fleet.crash(3 - leader - other);
        assert_eq!(fleet.leader_within(2 * FAILOVER).await, other);
    });
}

/// A14, A29, R11: a leader that ends gives the lease away, and nobody waits for the timeout.
#[test]
fn a_leader_that_ends_gives_the_lease_away() {
    run_simulated(3, async {
        let (mut fleet, leader) = Fleet::of_three().await;
        let ending = fleet.replicas[leader].take().unwrap();
        let start = Instant::now();
        ending.app.shutdown().await;
        fleet.leader_within(Duration::from_secs(2)).await;
        assert!(start.elapsed() < LEASE, "{:?}", start.elapsed());
        let word = |place| if place == leader { "left" } else { "active" };
        fleet.until_view(&(0..3).map(|place| format!("r{place} {}", word(place))).collect::<Vec<_>>().join(", ")).await;
    });
}

/// A4, A6, A13, A16, A17, R2: a leader without the store stops before another begins, and comes
/// back as a follower.
#[test]
fn a_leader_that_is_cut_off_stops_before_another_leads() {
    run_simulated(4, async {
        let (fleet, leader) = Fleet::of_three().await;
        let cut = Instant::now();
        fleet.store.cut(&format!("r{leader}"));
        while fleet.leaders().await == [leader] {
            sleep(Duration::from_millis(20)).await;
        }
        let stopped = cut.elapsed();
        assert!(stopped <= LEASE + Duration::from_millis(100), "{stopped:?}");
        fleet.serves(leader).await;
        let next = fleet.leader_within(FAILOVER + Duration::from_secs(1)).await;
        assert!(next != leader && cut.elapsed() > stopped + Duration::from_secs(1));
        assert_eq!(fleet.at(leader).metric("steadfast_cluster_fences_total", "").await, 1.0);
        fleet.store.heal(&format!("r{leader}"));
        fleet.until_view("r0 active, r1 active, r2 active").await;
        assert_eq!(fleet.leaders().await, [next]);
        assert!(fleet.cluster(leader).await["last_fence"]["reason"].is_string());
    });
}

/// R1 of the promises, A10: calls never depend on the store, from the start on.
#[test]
fn without_the_store_calls_go_on() {
    run_simulated(5, async {
        let mut fleet = Fleet::new().await;
        *fleet.refusal.lock().unwrap() = Some(OpenError::Unreachable("gone".to_owned()));
        let start = Instant::now();
        fleet.launch(0, "").await;
        assert!(start.elapsed() < Duration::from_secs(1));
        sleep(Duration::from_secs(2)).await;
        fleet.serves(0).await;
        let told = fleet.cluster(0).await;
        assert_eq!(told["store"]["fault"], "no NATS server was reached: gone");
        assert!(fleet.leaders().await.is_empty());
        // The store comes, and goes again.
        *fleet.refusal.lock().unwrap() = None;
        fleet.leader_within(2 * FAILOVER).await;
        assert_eq!(fleet.cluster(0).await["store"]["fault"], Value::Null);
        fleet.store.refuse("r0");
        sleep(FAILOVER).await;
        fleet.serves(0).await;
        let told = fleet.cluster(0).await;
        assert!(told["store"]["fault"].is_string(), "the fault is not said: {told}");
        assert!(fleet.leaders().await.is_empty());
        assert!(fleet.at(0).metric("steadfast_cluster_copy_age_seconds", "").await > 5.0);
        // The end does not wait for the store.
        let end = Instant::now();
        fleet.replicas[0].take().unwrap().app.shutdown().await;
        assert!(end.elapsed() < Duration::from_secs(1), "{:?}", end.elapsed());
    });
}

/// A14: the preferred replica is given the lease.
#[test]
fn the_preferred_replica_is_given_the_lease() {
    run_simulated(6, async {
        let mut fleet = Fleet::new().await;
        fleet.launch(0, "").await;
        assert_eq!(fleet.leader_within(FAILOVER + LEASE).await, 0);
        fleet.launch(1, "preferred = true\n").await;
        let start = Instant::now();
        while fleet.leaders().await != [1] {
            assert!(start.elapsed() < Duration::from_secs(5), "{}", fleet.store.dump());
            sleep(Duration::from_millis(20)).await;
        }
        sleep(FAILOVER).await;
        assert_eq!(fleet.leaders().await, [1]);
        assert_eq!(fleet.at(0).metric("steadfast_cluster_fences_total", "").await, 0.0);
    });
}

/// A25: a drained leader gives the lease away, stays a member, and all see the drain.
#[test]
fn a_drained_leader_gives_the_lease_to_another() {
    run_simulated(15, async {
        let (fleet, leader) = Fleet::of_three().await;
        fleet.at(leader).operate("/drain").await;
        let start = Instant::now();
        let next = loop {
            match fleet.leaders().await.first() {
                Some(next) if *next != leader => break *next,
                _ => assert!(start.elapsed() < LEASE, "{}", fleet.store.dump()),
            }
            sleep(Duration::from_millis(20)).await;
        };
        sleep(FAILOVER).await;
        let told = fleet.cluster(next).await;
        let drained = |place: usize| told["replicas"][place]["drained"].as_bool().unwrap();
        assert_eq!([0, 1, 2].map(drained), [0, 1, 2].map(|place| place == leader));
        fleet.until_view("r0 active, r1 active, r2 active").await;
        assert_eq!(fleet.at(leader).metric("steadfast_cluster_fences_total", "").await, 0.0);
        // When the others are gone, a drained replica does not lead.
        for place in (0..3).filter(|place| *place != leader) {
            fleet.at(place).operate("/drain").await;
        }
        sleep(2 * FAILOVER).await;
        assert!(fleet.leaders().await.is_empty());
        fleet.at(leader).operate("/undrain").await;
        assert_eq!(fleet.leader_within(LEASE).await, leader);
    });
}

/// A24: a bucket that is made anew, or emptied, is a fence and a new start for all.
#[test]
fn a_bucket_that_is_another_is_joined_anew() {
    run_simulated(7, async {
        let (fleet, leader) = Fleet::of_three().await;
        let before = fleet.cluster(leader).await["epoch"].as_u64().unwrap();
        for spoil in [Memory::recreate as fn(&Memory), Memory::empty] {
            spoil(&fleet.store);
            let start = Instant::now();
            while !fleet.leaders().await.is_empty() {
                assert!(start.elapsed() < FAILOVER, "nobody saw that the bucket is another");
                sleep(Duration::from_millis(50)).await;
            }
            fleet.leader_within(3 * FAILOVER).await;
            fleet.until_view("r0 active, r1 active, r2 active").await;
        }
        assert_ne!(fleet.cluster(leader).await["epoch"].as_u64().unwrap(), before);
    });
}

/// R24: a view that cannot be is written over, and its lives end no replica again and again.
#[test]
fn a_view_that_cannot_be_is_written_over() {
    use steadfast::domain::fleet::{self, Epoch, Incarnation, Member, MemberState, View};
    run_simulated(16, async {
        let (fleet, _) = Fleet::of_three().await;
        let store = fleet.store.client("writer");
        let key = steadfast::cluster::store::Key::of(&["view"]).unwrap();
        let bucket = Incarnation(store.incarnation().await.unwrap().created().as_nanos());
        let member = Member { epoch: Epoch(u64::MAX), state: MemberState::Active, other: Default::default() };
        let members = ["r0", "r1", "r2"].map(|name| (name.parse().unwrap(), member.clone()));
        let view = View { members: members.into(), ..View::default() };
        let value = bytes::Bytes::from(fleet::encode(&view, bucket));
        let seen = store.read(&key).await.unwrap().unwrap().revision;
        store.compare_and_set(&key, seen, value, None).await.unwrap();
        sleep(LEASE).await;
        fleet.until_view("r0 active, r1 active, r2 active").await;
        fleet.leader_within(FAILOVER + LEASE).await;
        assert!(fleet.at(0).metric("steadfast_cluster_unreadable_total", "").await >= 1.0);
    });
}

/// A bucket that comes back with an earlier state is joined anew by all, and by a new replica with
/// them.
#[test]
fn a_bucket_that_was_set_back_is_joined_anew() {
    run_simulated(8, async {
        let (mut fleet, _) = Fleet::of_three().await;
        assert!(fleet.cluster(0).await["store"]["set_back_seconds_ago"].is_null());
        let backup = fleet.store.backup();
        sleep(Duration::from_secs(15)).await;
        fleet.store.restore(&backup);
        fleet.launch(3, "").await;
        let start = Instant::now();
        while fleet.cluster(0).await["store"]["set_back_seconds_ago"].is_null() {
            fleet.leaders().await;
            assert!(start.elapsed() < 2 * FAILOVER, "nobody saw that the bucket was set back");
            sleep(Duration::from_millis(50)).await;
        }
        fleet.leader_within(3 * FAILOVER).await;
        fleet.until_view("r0 active, r1 active, r2 active, r3 active").await;
    });
}

/// Calls never depend on NATS: a refusal is told, ends nothing, and is tried again.
#[test]
fn a_store_that_refuses_ends_no_start() {
    run_simulated(9, async {
        let too_old = OpenError::TooOld { server: "n1".to_owned(), version: "2.9.0".to_owned() };
        for refusal in [OpenError::Refused("authorization violation".to_owned()), too_old] {
            let mut fleet = Fleet::new().await;
            *fleet.refusal.lock().unwrap() = Some(refusal.clone());
            fleet.launch(0, "").await;
            fleet.serves(0).await;
            assert_eq!(fleet.cluster(0).await["store"]["fault"], refusal.to_string());
            sleep(Duration::from_secs(60)).await;
            fleet.serves(0).await;
            *fleet.refusal.lock().unwrap() = None;
            fleet.leader_within(2 * FAILOVER).await;
        }
    });
}

/// R6, R13: an outage of the store that is longer than the failover timeout fails no replica, though
/// one is back sooner than the others.
#[test]
fn an_outage_of_the_store_fails_no_replica() {
    run_simulated(13, async {
        let (fleet, _) = Fleet::of_three().await;
        let before = fleet.cluster(0).await["view"].take();
        (0..3).for_each(|place| fleet.store.refuse(&format!("r{place}")));
        sleep(2 * FAILOVER).await;
        assert!(fleet.leaders().await.is_empty());
        fleet.store.heal("r0");
        sleep(Duration::from_secs(3)).await;
        fleet.store.heal("r1");
        fleet.store.heal("r2");
        fleet.leader_within(FAILOVER + LEASE).await;
        sleep(FAILOVER).await;
        for place in 0..3 {
            assert_eq!(fleet.cluster(place).await["view"], before, "r{place}");
        }
    });
}

/// A4, A5: a lost answer fences nobody.
#[test]
fn a_lost_answer_fences_nobody() {
    use steadfast::cluster::store::memory::Fault;
    run_simulated(8, async {
        let (fleet, leader) = Fleet::of_three().await;
        for _ in 0..4 {
            // The next two writes are a heartbeat and a renewal of the lease.
            for _ in 0..2 {
                fleet.store.inject(&format!("r{leader}"), Fault::AppliedAmbiguous);
            }
            sleep(Duration::from_secs(4)).await;
            assert_eq!(fleet.leaders().await, [leader]);
        }
        assert_eq!(fleet.at(leader).metric("steadfast_cluster_fences_total", "").await, 0.0);
    });
}

/// A26, O2: a reload that breaks the rule of the times is refused with the sum, and a good one is
/// put to use.
#[test]
fn a_reload_with_times_that_do_not_fit_is_refused() {
    run_simulated(9, async {
        let (fleet, leader) = Fleet::of_three().await;
        *fleet.settings[leader].lock().unwrap() = fleet.text(leader, "failover_timeout = \"4s\"");
        let why = fleet.at(leader).app.reload().await.unwrap_err();
        assert!(why.contains("cluster.failover_timeout") && why.contains("must be more than 4s"), "{why}");
        *fleet.settings[leader].lock().unwrap() = fleet.text(leader, "").replace("\"eu\"", "\"us\"");
        let why = fleet.at(leader).app.reload().await.unwrap_err();
        assert!(why.starts_with("cluster.name: cannot be changed while the proxy runs"), "{why}");
        let slow = "heartbeat = \"3s\"\n";
        *fleet.settings[leader].lock().unwrap() = fleet.text(leader, slow);
        fleet.at(leader).app.reload().await.unwrap();
        sleep(2 * FAILOVER).await;
        assert_eq!(fleet.leaders().await, [leader]);
    });
}

/// The admin side of a proxy that is alone says so.
#[test]
fn a_proxy_that_is_alone_is_in_no_cluster() {
    run_simulated(10, async {
        let net = Net::default();
        let options = Options { execution: 1, now_unix: Some(START_UNIX), ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let proxy = Proxy::over(&net, [&*devnet.el(0).http_url()], "").await;
        assert_eq!(proxy.admin("/leader").await.status, 404);
        assert_eq!(proxy.admin("/status").await.json()["cluster"], Value::Null);
        assert!(!proxy.admin("/metrics").await.text().contains("steadfast_cluster"));
    });
}
