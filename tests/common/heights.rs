//! Where calls go and what heights clients see of it, in a [`Simulation`].

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    client::{Client, call},
    simulation::Simulation,
};

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub async fn side(simulation: &Simulation) -> Value {
    let mut client = Client::over(simulation.net.connect(simulation.app.admin_addr().port()).await.unwrap());
    client.send("GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    client.response().await.json()["networks"][0]["el"].take()
}

pub async fn active(simulation: &Simulation) -> Option<String> {
    side(simulation).await["active"].as_str().map(str::to_owned)
}

pub async fn switches(simulation: &Simulation) -> u64 {
    metric(simulation, "steadfast_switches_total").await
}

/// The sum of the series with this name.
pub async fn metric(simulation: &Simulation, name: &str) -> u64 {
    let mut client = Client::over(simulation.net.connect(simulation.app.admin_addr().port()).await.unwrap());
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let text = client.response().await.text();
    let series = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

/// When `node` became active for good, looked for until `deadline`.
pub async fn until_active(simulation: &Simulation, node: &str, deadline: Instant) -> Option<Instant> {
    while Instant::now() < deadline {
        let side = side(simulation).await;
        if side["active"] == node && side["calls_wait"] == false {
            return Some(Instant::now());
        }
        sleep(millis(10)).await;
    }
    None
}

/// The view of clients that poll for the block number: when each call was made, how long it took,
/// and the height.
pub type Seen = Arc<Mutex<Vec<(Instant, Duration, u64)>>>;

/// Clients that ask for the block number every 20 ms and do not stand for one that falls.
pub async fn pollers(simulation: &Simulation, count: usize) -> (JoinSet<()>, Seen) {
    let (mut tasks, seen) = (JoinSet::new(), Seen::default());
    for number in 0..count {
        let mut client = Client::over(simulation.net.connect(simulation.app.addr().port()).await.unwrap());
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

pub fn worst(seen: &Seen, since: Instant) -> Duration {
    let seen = seen.lock().unwrap();
    seen.iter().filter(|(asked, ..)| *asked >= since).map(|(_, took, _)| *took).max().unwrap_or_default()
}

/// Asks pollers that are still at it whether all is well.
pub fn well(tasks: &mut JoinSet<()>) {
    if let Some(Err(error)) = tasks.try_join_next() {
        std::panic::resume_unwind(error.into_panic());
    }
}
