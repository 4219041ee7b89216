//! Three proxies as replicas over one store in memory, before pretend nodes and clients, in simulated
//! time: processes crash, end and stand still, lose the store or their nodes, have clocks of their
//! own, and find the bucket made anew. Each run is known by its seed; the same seed gives the same
//! run.
//!
//! The replicas are those of production. Their rules are held against the real state every 10 ms:
//! [`checks`] has what must hold, [`effects`] what a leader may do, [`clients`] what clients may see,
//! [`script`] what goes wrong.
//!
//! `STEADFAST_SEEDS=FROM..TO` chooses other seeds than the usual ones.

mod checks;
mod clients;
mod detached;
mod effects;
mod machine;
mod script;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use steadfast::{
    app::{App, World},
    cluster::{
        Cluster,
        store::{
            Store,
            memory::{Chances, Memory, MemoryStore, Settings},
        },
    },
    devnet::{Devnet, Fault, Options},
    net::names::Names,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use self::{
    checks::Knowledge,
    clients::{Called, Doors, Heard, subscriber},
    detached::Detached,
    effects::{Effects, Endpoint},
    machine::{Life, Machine, Switch, TRUE_RATE, Way},
    script::Undo,
};
use crate::common::{
    proxy,
    seeds::{each, seeds},
    sim::Net,
    simulation::run_simulated,
};

/// Unix time at the start.
const START_UNIX: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const MACHINES: usize = 3;
const NODES: usize = 2;
/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(60);
/// The time between two looks at the replicas.
const STEP: Duration = Duration::from_millis(10);
/// A way between a replica and the store takes this long at most.
const STORE_DELAY: Duration = Duration::from_millis(5);
/// The time between two listings of a watch.
const RELIST: Duration = Duration::from_secs(5);

/// The times of `[cluster]`.
#[derive(Clone, Copy)]
struct Times {
    settings: &'static str,
    heartbeat: Duration,
    lease: Duration,
    failover: Duration,
    hook: Duration,
}

const USUAL: Times = Times {
    settings: "",
    heartbeat: Duration::from_secs(1),
    lease: Duration::from_secs(3),
    failover: Duration::from_secs(12),
    hook: Duration::from_secs(5),
};
/// Times between which there is little room.
const SHORT: Times = Times {
    settings: "heartbeat = \"500ms\"\nsafety_margin = \"500ms\"\nfailover_timeout = \"2700ms\"\non_hook_timeout = \"1s\"\n",
    heartbeat: Duration::from_millis(500),
    lease: Duration::from_millis(1500),
    failover: Duration::from_millis(2700),
    hook: Duration::from_secs(1),
};

/// What happened, in the order in which it was seen. Clones are the same.
#[derive(Clone)]
pub struct Trace {
    seed: u64,
    start: Instant,
    lines: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<Option<String>>>,
}

impl Trace {
    fn new(seed: u64, start: Instant) -> Self {
        Self { seed, start, lines: Arc::default(), broken: Arc::default() }
    }

    pub fn note(&self, line: String) {
        self.lines.lock().unwrap().push(format!("{:?} {line}", self.start.elapsed()));
    }

    /// Ends the run, also from within a task of a proxy, which would take a panic for its own.
    pub fn fail(&self, why: &str) {
        self.note(format!("BROKEN: {why}"));
        self.broken.lock().unwrap().get_or_insert_with(|| why.to_owned());
    }

    /// Ends the run if a rule was broken.
    fn check(&self, dump: impl FnOnce() -> String) {
        let Some(why) = self.broken.lock().unwrap().clone() else { return };
        let lines = self.lines.lock().unwrap();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        panic!("seed {}: {why}\n{tail}\n{}", self.seed, dump());
    }
}

/// The machines, and the world around them.
struct Fleet {
    times: Times,
    /// The replica that asks others for the lease.
    preferred: Option<usize>,
    rng: Rng,
    net: Net,
    devnet: Devnet,
    store: Memory,
    observer: MemoryStore,
    start: Instant,
    machines: Vec<Machine>,
    effects: Arc<Effects>,
    trace: Trace,
    starting: JoinSet<Started>,
    ending: JoinSet<usize>,
    calls: JoinSet<Called>,
    next_call: Instant,
    doors: Doors,
    heard: Arc<Mutex<Heard>>,
    _subscriber: JoinSet<()>,
    undo: BTreeMap<(Instant, u64), Undo>,
    /// Numbers calls and ends of troubles.
    count: u64,
    /// Since when nothing goes wrong any more.
    calm_since: Option<Instant>,
    knowledge: Knowledge,
}

/// A process that serves.
struct Started {
    place: usize,
    life: u64,
    app: App,
    slot: Arc<Mutex<Option<Cluster>>>,
}

impl Fleet {
    async fn start(seed: u64) -> Self {
        let (net, start, mut rng) = (Net::default(), Instant::now(), Rng::with_seed(seed));
        let options = Options {
            execution: NODES,
            block_time: Some(Duration::from_secs(2)),
            seed,
            now_unix: Some(START_UNIX),
            ..Options::default()
        };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        // A node hears of each block later than the other.
        devnet.el(rng.usize(..NODES)).set_fault(Fault::late(rng.u64(100..900)));
        let times = if rng.bool() { USUAL } else { SHORT };
        let preferred = (rng.u8(..3) == 0).then_some(0);
        let trace = Trace::new(seed, start);
        let store = Memory::new(Settings {
            seed,
            timeout: times.heartbeat,
            relist: RELIST,
            tells_expiry: rng.bool(),
            ..Settings::default()
        });
        let machine = |rng: &mut Rng| Machine {
            switch: Switch::new(start, rng.u64(..1 << 40), TRUE_RATE + rng.u64(..100) - 50),
            life: None,
            lives: 0,
            is_starting: false,
        };
        let machines = (0..MACHINES).map(|_| machine(&mut rng)).collect();
        let doors: Doors = Arc::new(Mutex::new(vec![None; MACHINES]));
        let (heard, mut task) = (Arc::<Mutex<Heard>>::default(), JoinSet::new());
        let listener = Rng::with_seed(rng.u64(..));
        task.spawn(subscriber(net.clone(), doors.clone(), heard.clone(), listener, trace.clone()));
        let mut fleet = Self {
            times,
            preferred,
            rng,
            net,
            devnet,
            observer: store.client("observer"),
            store,
            start,
            machines,
            effects: Arc::new(Effects::new(seed, MACHINES, times.hook, trace.clone())),
            trace,
            starting: JoinSet::new(),
            ending: JoinSet::new(),
            calls: JoinSet::new(),
            next_call: start,
            doors,
            heard,
            _subscriber: task,
            undo: BTreeMap::new(),
            count: 0,
            calm_since: None,
            knowledge: Knowledge::new(start),
        };
        for place in 0..MACHINES {
            fleet.store.set_chances(&format!("r{place}"), fleet.usual_chances());
            fleet.launch(place);
        }
        fleet
    }

    fn usual_chances(&self) -> Chances {
        Chances { delay: STORE_DELAY, ..Chances::default() }
    }

    fn text(&self, place: usize) -> String {
        let node = |at: usize| self.devnet.el((place + at) % NODES);
        let nodes: String = (0..NODES)
            .map(|at| format!("[[el.primary]]\nname = \"{}\"\nhttp = \"{}\"\n", node(at).name(), node(at).http_url()))
            .collect();
        let preferred = if self.preferred == Some(place) { "preferred = true\n" } else { "" };
        format!(
            "{nodes}[cluster]\nname = \"eu\"\nreplica = \"r{place}\"\nnats = \"nats://unused\"\n\
             on_lead = \"http://hooks.example/\"\non_fence = \"http://hooks.example/\"\n{preferred}{}",
            self.times.settings
        )
    }

    /// Starts a process on a machine where none is. Its wall clock may be any.
    fn launch(&mut self, place: usize) {
        let config = proxy::config(&self.text(place));
        let wall = START_UNIX - DAY + self.rng.u64(..2 * DAY);
        let machine = &mut self.machines[place];
        machine.lives += 1;
        machine.is_starting = true;
        let (life, switch) = (machine.lives, machine.switch.clone());
        self.trace.note(format!("r{place} starts its life {life}"));
        self.effects.begins(place, life);
        let slot = Arc::<Mutex<Option<Cluster>>>::default();
        let endpoint =
            Endpoint { effects: self.effects.clone(), place, life, switch: switch.clone(), cluster: slot.clone() };
        let endpoint = Arc::new(endpoint);
        let memory = self.store.clone();
        let way = Way { net: self.net.clone(), switch: switch.clone() };
        let world = World {
            dial: Arc::new(way.clone()),
            listen: Arc::new(way),
            names: Arc::new(Names::new(self.net.clone())),
            open_cluster: Arc::new(move |settings| {
                let store = Arc::new(Detached(memory.client(settings.replica.as_str()))) as Arc<dyn Store>;
                Box::pin(async move { Ok(store) })
            }),
            connect_hook: Arc::new(move |_| Ok(endpoint.clone())),
            run_cluster: switch.run_task(),
            uptime: switch.clock(),
            ..self.net.world(wall, self.start)
        };
        self.starting.spawn(async move {
            let app = App::start(config, world, None).await.unwrap();
            Started { place, life, app, slot }
        });
    }

    fn started(&mut self, Started { place, life, app, slot }: Started) {
        *slot.lock().unwrap() = app.cluster().cloned();
        let port = app.addr().port();
        let machine = &mut self.machines[place];
        machine.is_starting = false;
        machine.life = Some(Life::new(life, app));
        self.doors.lock().unwrap()[place] = Some(clients::Door { place, life, port });
    }

    /// A process ends at once, as by SIGKILL.
    async fn kill(&mut self, place: usize) {
        self.doors.lock().unwrap()[place] = None;
        drop(self.machines[place].life.take());
        // The tasks of the process end at their next turn.
        sleep(Duration::from_millis(1)).await;
        self.effects.dies(place);
        self.machines[place].switch.thaw();
    }

    /// A process ends in order, as by SIGTERM.
    fn stop(&mut self, place: usize) {
        self.doors.lock().unwrap()[place] = None;
        let Some(life) = &mut self.machines[place].life else { return };
        let Some(app) = life.app.take() else { return };
        life.ending = Some(self.ending.spawn(async move {
            app.shutdown().await;
            place
        }));
    }

    /// Lets a moment pass, and looks at everything.
    async fn step(&mut self) {
        sleep(STEP).await;
        while let Some(started) = self.starting.try_join_next() {
            self.started(started.unwrap());
        }
        while let Some(ended) = self.ending.try_join_next() {
            // A process that died before its end was noted then.
            let Ok(place) = ended else { continue };
            self.trace.note(format!("r{place} has ended"));
            self.kill(place).await;
            self.start_later(place);
        }
        for place in 0..MACHINES {
            if self.machines[place].must_end() {
                self.trace.note(format!("r{place} must end"));
                self.knowledge.count("exit");
                self.kill(place).await;
                self.start_later(place);
            }
        }
        self.undo_what_is_due();
        while let Some(called) = self.calls.try_join_next() {
            self.judge(called.unwrap());
        }
        self.ask();
        self.check();
        self.trace.check(|| self.store.dump());
    }

    /// Waits until `check` holds.
    async fn until(&mut self, what: &str, limit: Duration, check: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !check(self) {
            if start.elapsed() > limit {
                self.trace.fail(&format!("not so within {limit:?}: {what}: {}", self.told()));
            }
            self.step().await;
        }
        self.trace.note(format!("after {:?}: {what}", start.elapsed()));
    }
}

/// The trace of a run, and how often what happened.
type Run = (Vec<String>, BTreeMap<&'static str, u64>);

fn run(seed: u64) -> Run {
    run_simulated(seed, async {
        let mut fleet = Fleet::start(seed).await;
        fleet.until("one leads", 2 * fleet.times.failover, Fleet::agrees).await;
        fleet.trouble().await;
        fleet.calm_down().await;
        fleet.until("all agree on one leader for long", fleet.recovery(), Fleet::is_settled).await;
        let leader = fleet.leader();
        let quiet = Instant::now() + fleet.times.failover;
        while Instant::now() < quiet {
            fleet.step().await;
        }
        if !fleet.is_settled() || fleet.leader() != leader {
            fleet.trace.fail("the leader changes though all is well");
        }
        fleet.until("the subscriber has the newest head", Duration::from_secs(5), Fleet::is_told_all).await;
        for place in 0..MACHINES {
            fleet.stop(place);
        }
        while let Some(ended) = fleet.ending.join_next().await {
            ended.unwrap();
        }
        fleet.effects.check_that_all_are_fenced();
        fleet.trace.check(|| fleet.store.dump());
        let mut counts = fleet.knowledge.counts.clone();
        counts.extend(fleet.effects.counts());
        counts.insert("head told", fleet.heard.lock().unwrap().total);
        let mut lines = std::mem::take(&mut *fleet.trace.lines.lock().unwrap());
        lines.append(&mut fleet.knowledge.calls);
        (lines, counts)
    })
}

/// A40, R1, R5, R13; R2 to R4 of the promises.
#[test]
fn three_proxies_have_one_leader_whatever_fails() {
    let seeds = seeds(0..SEEDS);
    let runs = seeds.end - seeds.start;
    let sums = Mutex::new(BTreeMap::<&'static str, u64>::new());
    each(seeds, run, |(_, counts)| {
        let mut sums = sums.lock().unwrap();
        counts.into_iter().for_each(|(what, count)| *sums.entry(what).or_default() += count);
    });
    let sums = sums.into_inner().unwrap();
    println!("{runs} runs: {sums:?}");
    // Runs in which nothing happens show nothing.
    for (what, at_least) in [("lead", 2), ("height", 200), ("bound height", 50), ("head told", 20), ("freeze", 1)] {
        let count = sums.get(what).copied().unwrap_or_default();
        assert!(count >= at_least * runs, "{what}: only {count} in {runs} runs");
    }
}

/// Runs of the test; each is another seed.
const SEEDS: u64 = 40;

/// R25.
#[test]
fn a_fleet_with_the_same_seed_lives_the_same_life() {
    for seed in [3, 8] {
        let (one, other) = (run(seed).0, run(seed).0);
        for (line, (one, other)) in one.iter().zip(&other).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {line}");
        }
        assert!(one.len() == other.len() && one.len() > 50);
    }
}
