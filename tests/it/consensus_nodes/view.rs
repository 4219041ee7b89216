//! The view of one node for all clients, in simulated time: requests and events stay on a node
//! until the epoch ends, and go home together.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use steadfast::{
    app::App,
    devnet::{Devnet, Fault, Options},
};
use tokio::{
    io::AsyncReadExt,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::common::{
    client::Client,
    proxy,
    rest::{nodes, request},
    sim::Net,
};

const START_UNIX: u64 = 1_800_000_000;
const SLOT: u64 = 2;
/// Slots of an epoch, in the devnet.
const EPOCH: u64 = 8;
const DATA: &str = "/eth/v1/validator/attestation_data";

/// Two consensus nodes and a proxy before them.
struct Setup {
    net: Net,
    devnet: Devnet,
    app: App,
    start: Instant,
    genesis: u64,
    tasks: JoinSet<()>,
}

impl Setup {
    async fn start() -> Self {
        Self::with("").await
    }

    /// The same, with these settings.
    async fn with(settings: &str) -> Self {
        let (start, net) = (Instant::now(), Net::default());
        let options = Options {
            execution: 0,
            consensus: 2,
            block_time: Some(Duration::from_secs(SLOT)),
            initial_blocks: 50,
            now_unix: Some(START_UNIX),
            ..Options::default()
        };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let urls: Vec<String> = devnet.nodes().map(|node| node.http_url()).collect();
        let world = net.world(START_UNIX, start);
        let app = App::start(proxy::config(&[&nodes(&urls), settings].concat()), world, None).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        let mut setup = Self { net, devnet, app, start, genesis: 0, tasks: JoinSet::new() };
        let genesis = setup.get("/eth/v1/beacon/genesis").await;
        setup.genesis = genesis["data"]["genesis_time"].as_str().unwrap().parse().unwrap();
        setup
    }

    async fn get(&self, path: &str) -> Value {
        let mut client = Client::over(self.net.connect(self.app.addr().port()).await.unwrap());
        client.send(request("GET", path, "", "")).await;
        client.response().await.json()
    }

    /// The node that did a duty: 1 or 2.
    async fn duty(&self) -> usize {
        let counts = || [0, 1].map(|node| self.devnet.cl(node).count(&format!("GET {DATA}")));
        let before = counts();
        self.get(&format!("{DATA}?slot=1&committee_index=0")).await;
        let after = counts();
        1 + (0..2).find(|&node| after[node] > before[node]).expect("a node was asked")
    }

    async fn status(&self) -> Value {
        let mut client = Client::over(self.net.connect(self.app.admin_addr().port()).await.unwrap());
        client.send("GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        client.response().await.json()["networks"][0].take()
    }

    /// The node that requests go to and the one that events come from.
    async fn view(&self) -> (Value, Value) {
        let mut status = self.status().await;
        (status["cl"]["active"].take(), status["events_from"].take())
    }

    async fn until_view(&self, name: &str) {
        for _ in 0..3000 {
            if self.view().await == (name.into(), name.into()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{:#}", self.status().await);
    }

    async fn until_up(&self, place: usize) {
        for _ in 0..3000 {
            if self.status().await["cl"]["nodes"][place]["verdict"] == "up" {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{:#}", self.status().await);
    }

    fn epoch(&self) -> u64 {
        (START_UNIX + self.start.elapsed().as_secs() - self.genesis) / (SLOT * EPOCH)
    }

    /// A client that listens to heads; what it heard.
    async fn listen(&mut self) -> Arc<Mutex<String>> {
        let heard = Arc::new(Mutex::new(String::new()));
        let mut client = Client::over(self.net.connect(self.app.addr().port()).await.unwrap());
        client.send(request("GET", "/eth/v1/events?topics=head", "", "")).await;
        let text = heard.clone();
        self.tasks.spawn(async move {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = client.io.read(&mut bytes).await {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        heard
    }
}

#[tokio::test(start_paused = true)]
async fn requests_and_events_go_home_together_when_an_epoch_ends() {
    let mut setup = Setup::start().await;
    let heard = setup.listen().await;
    setup.until_view("cl-1").await;
    for round in 0..4 {
        assert_eq!(setup.duty().await, 1);
        setup.devnet.cl(0).set_fault(if round % 2 == 0 { Fault::Syncing } else { Fault::Down });
        setup.until_view("cl-2").await;
        assert_eq!(setup.duty().await, 2);
        let out = setup.epoch();
        setup.devnet.cl(0).clear_faults();
        setup.until_up(0).await;
        let home = loop {
            let before = setup.view().await;
            let who = setup.duty().await;
            if before == setup.view().await && before == ("cl-2".into(), "cl-2".into()) {
                assert_eq!(who, 2);
            }
            let (requests, events) = setup.view().await;
            assert!(requests == events, "requests go to {requests}, and events come from {events}");
            if requests == "cl-1" {
                break setup.epoch();
            }
            assert!(setup.epoch() <= out + 3, "it stays for ever");
            sleep(Duration::from_millis(50)).await;
        };
        assert!(home > out, "it went home in the epoch in which it came back");
    }
    // Every head once, in order, whichever node told it.
    let heard = heard.lock().unwrap().clone();
    let data = heard.lines().filter_map(|line| line.strip_prefix("data: "));
    let slots: Vec<u64> = data
        .map(|data| serde_json::from_str::<Value>(data).unwrap()["slot"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(slots.len() > 20 && slots.windows(2).all(|pair| pair[1] == pair[0] + 1), "{slots:?}");
}

#[tokio::test(start_paused = true)]
async fn where_events_come_from_another_node_so_do_answers() {
    let mut setup = Setup::start().await;
    let _heard = setup.listen().await;
    setup.until_view("cl-1").await;
    assert_eq!(setup.duty().await, 1);
    // The node answers, and its stream tells nothing.
    setup.devnet.cl(0).set_fault(Fault::Mute);
    setup.until_view("cl-2").await;
    assert_eq!(setup.duty().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_vote_is_for_the_head_told_by_a_node_that_is_gone() {
    let mut setup = Setup::start().await;
    let heard = setup.listen().await;
    setup.until_view("cl-1").await;
    for _ in 0..2 {
        assert_eq!(setup.duty().await, 1);
        // The other node sees blocks a while later.
        setup.devnet.cl(1).set_fault(Fault::lag(1));
        let told = heard.lock().unwrap().len();
        while heard.lock().unwrap().len() == told {
            sleep(Duration::from_millis(10)).await;
        }
        setup.devnet.cl(0).set_fault(Fault::Down);
        let head = setup.devnet.chain().head().number;
        let node = setup.devnet.cl(1).clone();
        setup.tasks.spawn(async move {
            sleep(Duration::from_millis(200)).await;
            node.clear_faults();
        });
        let vote = setup.get(&format!("{DATA}?slot={head}&committee_index=0")).await;
        let block = setup.get(&format!("/eth/v1/beacon/blocks/{head}/root")).await;
        assert_eq!(vote["data"]["beacon_block_root"], block["data"]["root"]);
        setup.devnet.cl(0).clear_faults();
        setup.until_up(0).await;
        setup.until_view("cl-1").await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_events_requests_go_home_when_an_epoch_ends() {
    let setup = Setup::start().await;
    assert_eq!(setup.duty().await, 1);
    setup.devnet.cl(0).set_fault(Fault::Syncing);
    while setup.duty().await == 1 {
        sleep(Duration::from_millis(20)).await;
    }
    let out = setup.epoch();
    setup.devnet.cl(0).clear_faults();
    setup.until_up(0).await;
    while setup.duty().await == 2 {
        assert!(setup.epoch() <= out + 2, "it stays for ever");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(setup.epoch() > out);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_keeps_taking_its_word_back_moves_no_client() {
    for fault in [Fault::ElOffline, Fault::Optimistic, Fault::Syncing] {
        let setup = Setup::start().await;
        assert_eq!(setup.view().await.0, "cl-1");
        let (mut moves, mut last) = (0, Value::from("cl-1"));
        for _ in 0..20 {
            for is_well in [false, true] {
                match is_well {
                    true => setup.devnet.cl(0).clear_faults(),
                    false => setup.devnet.cl(0).set_fault(fault.clone()),
                }
                for _ in 0..30 {
                    sleep(Duration::from_millis(100)).await;
                    let (active, _) = setup.view().await;
                    moves += usize::from(active != last);
                    last = active;
                }
            }
        }
        assert!((1..=5).contains(&moves), "{fault:?}: {moves} moves");
        // The node is forgiven when it has kept its word for long.
        let mut waited = 0;
        while setup.view().await.0 != "cl-1" {
            sleep(Duration::from_secs(1)).await;
            waited += 1;
            assert!(waited < 100);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vote_is_for_a_polled_head_of_a_node_that_is_gone() {
    for poll in ["headers/head", "headers", "blocks/head/root", "blocks/head", "attestation_data"] {
        // The pool's own questions come later than that of the client.
        let setup = Setup::with("[health]\ninterval = \"3s\"\n").await;
        assert_eq!(setup.duty().await, 1);
        // The other node sees blocks a while later.
        setup.devnet.cl(1).set_fault(Fault::lag(1));
        let before = setup.devnet.chain().head().number;
        while setup.devnet.chain().head().number == before {
            sleep(Duration::from_millis(10)).await;
        }
        let head = setup.devnet.chain().head().number;
        match poll {
            "attestation_data" => setup.get(&format!("{DATA}?slot={head}&committee_index=0")).await,
            "blocks/head" => setup.get("/eth/v2/beacon/blocks/head").await,
            _ => setup.get(&format!("/eth/v1/beacon/{poll}")).await,
        };
        sleep(Duration::from_millis(30)).await;
        setup.devnet.cl(0).set_fault(Fault::Down);
        let node = setup.devnet.cl(1).clone();
        let sees = async {
            sleep(Duration::from_millis(200)).await;
            node.clear_faults();
        };
        let votes = async { setup.get(&format!("{DATA}?slot={head}&committee_index=0")).await };
        let (vote, ()) = tokio::join!(votes, sees);
        let block = setup.get(&format!("/eth/v1/beacon/blocks/{head}/root")).await;
        assert_eq!(vote["data"]["beacon_block_root"], block["data"]["root"], "{poll}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_that_a_node_lacks_waits_for_no_other_nodes_head() {
    const AGGREGATE: &str = "/eth/v2/validator/aggregate_attestation";
    let mut setup = Setup::start().await;
    let _heard = setup.listen().await;
    setup.until_view("cl-1").await;
    setup.devnet.cl(1).set_fault(Fault::lag(1));
    sleep(Duration::from_secs(2 * SLOT)).await;
    // Clients have seen the head of the first node.
    setup.get("/eth/v1/beacon/headers/head").await;
    let begun = Instant::now();
    let root = format!("0x{}", "ab".repeat(32));
    let answer = setup.get(&format!("{AGGREGATE}?attestation_data_root={root}&slot=52&committee_index=0")).await;
    assert_eq!((&answer["code"], begun.elapsed().as_millis() < 100), (&404.into(), true), "{:?}", begun.elapsed());
    assert_eq!(setup.devnet.cl(1).count(&format!("GET {AGGREGATE}")), 1, "the other node was asked");
}
