//! Clients that call all the time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use cucumber::{given, then, when};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::world::{Proxy, SOON, eventually, who};

const CLIENTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(4);

/// Who answered, or why nobody did, and how long it took.
type Seen = Arc<Mutex<Vec<(Result<String, String>, Duration)>>>;

pub struct Traffic {
    seen: Seen,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

#[given("clients call without pause")]
#[when("clients call without pause")]
async fn start(proxy: &mut Proxy) {
    let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (seen, stop, names) = (seen.clone(), stop.clone(), proxy.names());
        let (request, _) = proxy.who_are_you();
        clients.spawn(async move {
            while !stop.load(Relaxed) {
                let started = Instant::now();
                let response = request.try_clone().unwrap().send().await;
                let outcome = match response {
                    Err(error) => Err(format!("no response: {error:?}")),
                    Ok(response) => {
                        let (status, text) = (response.status().as_u16(), response.text().await);
                        let took = started.elapsed();
                        let body = text.unwrap_or_else(|error| format!("no whole body: {error:?}"));
                        who(&names, &crate::world::Reply { status, retry_after: false, body, took })
                    }
                };
                seen.lock().unwrap().push((outcome, started.elapsed()));
                sleep(PAUSE).await;
            }
        });
    }
    proxy.traffic = Some(Traffic { seen, stop, clients });
    more(proxy, 20).await;
}

#[when(expr = "{int} more calls have been made")]
async fn more(proxy: &mut Proxy, count: usize) {
    let seen = proxy.traffic.as_ref().expect("clients call").seen.clone();
    let before = seen.lock().unwrap().len();
    eventually("more calls", SOON, async || match seen.lock().unwrap().len() - before {
        made if made >= count => Ok(()),
        made => Err(format!("{made} of {count}")),
    })
    .await;
}

async fn finish(proxy: &mut Proxy) -> Vec<(String, Duration)> {
    let traffic = proxy.traffic.take().expect("clients call");
    traffic.stop.store(true, Relaxed);
    let Traffic { mut clients, seen, .. } = traffic;
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let failed: Vec<_> = seen.iter().filter_map(|(outcome, _)| outcome.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {} calls failed, such as: {}", failed.len(), seen.len(), failed[0]);
    seen.into_iter().map(|(outcome, took)| (outcome.unwrap(), took)).collect()
}

#[then("every call was answered")]
async fn all_answered(proxy: &mut Proxy) {
    finish(proxy).await;
}

#[then(expr = "every call was answered within {int} ms")]
async fn all_answered_within(proxy: &mut Proxy, millis: u64) {
    let slowest = finish(proxy).await.into_iter().map(|(_, took)| took).max().unwrap();
    assert!(slowest <= Duration::from_millis(millis), "one took {slowest:?}");
}

#[then(expr = "every call was answered by {word}")]
async fn all_answered_by(proxy: &mut Proxy, name: String) {
    let answers = finish(proxy).await;
    let others: Vec<_> = answers.iter().filter(|(who, _)| *who != name).collect();
    assert!(others.is_empty(), "{} of {} calls were answered by others: {:?}", others.len(), answers.len(), others[0]);
}

#[then(expr = "calls go to {word}")]
async fn calls_go_to(proxy: &mut Proxy, name: String) {
    let proxy = &*proxy;
    // Every single call is answered on the way there.
    eventually(&format!("calls go to {name}"), SOON, async || match proxy.who().await {
        who if who == name => Ok(()),
        who => Err(format!("they go to {who}: {:#}", proxy.status().await)),
    })
    .await;
    eventually(&format!("the status says that {name} is active"), SOON, async || {
        let status = proxy.status().await;
        if status["active"] == *name { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
}

#[then(expr = "calls stay with {word} for {int} ms")]
async fn calls_stay_with(proxy: &mut Proxy, name: String, millis: u64) {
    let until = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < until {
        assert_eq!(proxy.who().await, name, "{:#}", proxy.status().await);
        sleep(PAUSE).await;
    }
}
