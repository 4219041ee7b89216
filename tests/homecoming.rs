//! When calls go back to a primary that is steadily later than the backup: in bounded time, and no client sees the chain go backwards.
//! In simulated time, so the bounds are exact.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{
    client::{Client, call},
    scene::{Reach, Scene, play},
};
use serde_json::Value;
use steadfast::devnet::Fault;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

const SEED: u64 = 3;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn side(scene: &Scene) -> Value {
    let mut client = Client::over(scene.net.connect(scene.app.admin_addr().port()).await.unwrap());
    client.send("GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    client.response().await.json()["networks"][0]["el"].take()
}

async fn active(scene: &Scene) -> Option<String> {
    side(scene).await["active"].as_str().map(str::to_owned)
}

async fn switches(scene: &Scene) -> u64 {
    let mut client = Client::over(scene.net.connect(scene.app.admin_addr().port()).await.unwrap());
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let text = client.response().await.text();
    let lines = text.lines().filter(|line| line.starts_with("steadfast_switches_total"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

/// When `node` became active for good, looked for until `deadline`.
async fn until_active(scene: &Scene, node: &str, deadline: Instant) -> Option<Instant> {
    while Instant::now() < deadline {
        let side = side(scene).await;
        if side["active"] == node && side["calls_wait"] == false {
            return Some(Instant::now());
        }
        sleep(millis(10)).await;
    }
    None
}

/// What clients that poll for the block number saw: when each call was made, how long it took, and the height.
type Seen = Arc<Mutex<Vec<(Instant, Duration, u64)>>>;

/// Clients that ask for the block number every 20 ms and do not stand for one that falls.
async fn pollers(scene: &Scene, count: usize) -> (JoinSet<()>, Seen) {
    let (mut tasks, seen) = (JoinSet::new(), Seen::default());
    for number in 0..count {
        let mut client = Client::over(scene.net.connect(scene.app.addr().port()).await.unwrap());
        let seen = seen.clone();
        tasks.spawn(async move {
            let mut highest = 0;
            loop {
                let asked = Instant::now();
                let answer = client.post(call(1, "eth_blockNumber", "[]")).await.json();
                let height =
                    u64::from_str_radix(answer["result"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
                assert!(height >= highest, "client {number} was shown {height} after {highest}");
                highest = height;
                seen.lock().unwrap().push((asked, asked.elapsed(), height));
                sleep(millis(20)).await;
            }
        });
    }
    (tasks, seen)
}

fn worst(seen: &Seen, since: Instant) -> Duration {
    let seen = seen.lock().unwrap();
    seen.iter().filter(|(asked, ..)| *asked >= since).map(|(_, took, _)| *took).max().unwrap_or_default()
}

/// Asks pollers that are still at it whether all is well.
fn well(tasks: &mut JoinSet<()>) {
    if let Some(Err(error)) = tasks.try_join_next() {
        std::panic::resume_unwind(error.into_panic());
    }
}

struct Case {
    block: u64,
    late: u64,
    reaches: [Reach; 2],
    /// How long it may take from the moment at which the primary answers again; `None` where it cannot be.
    home: Option<u64>,
}

/// The primary is out for three seconds, and comes back later than the backup by so much.
fn run(case: &Case) {
    let Case { block, late, reaches, home } = case;
    let patience = millis((2 * block).min(2000));
    println!("a block each {block} ms, the primary {late} ms late, {reaches:?}");
    play(SEED, async {
        let mut scene = Scene::set(SEED, reaches, "").await;
        let learnt = (8 * block).max(10_000);
        let end = learnt + 3_000 + home.unwrap_or(60_000) + 20 * block.max(&500);
        let _miner = scene.mine(millis(*block), end);
        for number in 0..3 {
            let mut plan = scene.plan(number, end - 1_000, end + 20_000);
            plan.fetches = true;
            scene.admit(plan).await;
        }
        scene.at(learnt).await;
        let (mut tasks, seen) = pollers(&scene, 2).await;
        let out = Instant::now();
        scene.node(0).set_fault(Fault::Down);
        sleep(millis(3_000)).await;
        assert_eq!(active(&scene).await.as_deref(), Some("el-2"));
        let back = Instant::now();
        scene.node(0).clear_faults();
        scene.node(0).set_fault(Fault::late(*late));
        let limit = home.unwrap_or(60_000);
        let came = until_active(&scene, "el-1", back + millis(limit)).await;
        if home.is_some() {
            let came = came.unwrap_or_else(|| panic!("still not home"));
            // It got there, and stays there.
            sleep(millis(2_500)).await;
            let before = switches(&scene).await;
            sleep_until(scene.start + millis(end)).await;
            assert_eq!(active(&scene).await.as_deref(), Some("el-1"));
            assert_eq!(switches(&scene).await, before, "moves after it came home");
            println!("  home {:?} after it was back", came - back);
        } else {
            sleep_until(scene.start + millis(end)).await;
        }
        well(&mut tasks);
        let longest = worst(&seen, back);
        assert!(longest <= patience + millis(100), "a call took {longest:?}");
        assert!(worst(&seen, out) < millis(2_500));
        drop(tasks);
        scene.node(0).clear_faults();
        scene.settle().await;
        scene.app.shutdown().await;
    });
}

#[test]
fn a_primary_that_is_a_little_later_than_the_backup_gets_its_traffic_back() {
    for reaches in [[Reach::Http, Reach::Http], [Reach::Both, Reach::Both], [Reach::Both, Reach::Http]] {
        for (block, late) in [(1_000, 300), (250, 75), (100, 30), (2_000, 600), (12_000, 3_600)] {
            run(&Case { block, late, reaches, home: Some(4_000 + late + block) });
        }
    }
}

#[test]
fn a_primary_that_is_a_block_later_than_the_backup_gets_its_traffic_back() {
    for reaches in [[Reach::Http, Reach::Http], [Reach::Both, Reach::Both], [Reach::Both, Reach::Http]] {
        for (block, late) in [(12_000, 12_000), (1_000, 1_000), (250, 250), (250, 400), (100, 150), (2_000, 2_000)] {
            run(&Case { block, late, reaches, home: Some(6_000 + 2 * late + block) });
        }
    }
}

#[test]
fn for_a_primary_that_is_three_blocks_later_calls_wait_rarely_and_go_on_at_the_backup() {
    for (block, late) in [(1_000, 3_500), (12_000, 36_500), (100, 350)] {
        run(&Case { block, late, reaches: [Reach::Http, Reach::Http], home: None });
    }
}
