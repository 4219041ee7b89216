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

use crate::{
    calls::batch_of,
    network::{NotHere, Voice, here, stretch},
    world::{Proxy, eventually, reply, soon, who},
};

const CLIENTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(4);
/// Between two batches of one client.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
const BATCH: usize = 12;
/// The node that gave an answer, where answers do not tell.
const SOMEBODY: &str = "a node";

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
        let (seen, stop, names, voice) = (seen.clone(), stop.clone(), proxy.names(), proxy.voice());
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
                        let who = who(&names, voice, &crate::world::Reply { status, retry_after: false, body, took });
                        who.map(|who| who.unwrap_or_else(|| SOMEBODY.to_owned()))
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
    eventually("more calls", soon(), async || match seen.lock().unwrap().len() - before {
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
    assert!(slowest <= stretch(Duration::from_millis(millis)), "one took {slowest:?}");
}

#[then(expr = "every call was answered by {word}")]
async fn all_answered_by(proxy: &mut Proxy, name: String) {
    if proxy.voice() == Voice::Silent {
        here(Err(NotHere::new("an answer does not tell which node gave it")))
    }
    let answers = finish(proxy).await;
    let others: Vec<_> = answers.iter().filter(|(who, _)| *who != name).collect();
    assert!(others.is_empty(), "{} of {} calls were answered by others: {:?}", others.len(), answers.len(), others[0]);
}

#[then(expr = "calls go to {word}")]
async fn calls_go_to(proxy: &mut Proxy, name: String) {
    let proxy = &*proxy;
    // Every single call is answered on the way there.
    eventually(&format!("calls go to {name}"), soon(), async || match proxy.who().await {
        who if who == name => Ok(()),
        who => Err(format!("they go to {who}: {:#}", proxy.status().await)),
    })
    .await;
    eventually(&format!("the status says that {name} is active"), soon(), async || {
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

/// Clients that send batches, and how many were answered whole and in order, or what was wrong.
pub struct Batches {
    seen: Arc<Mutex<Vec<Result<(), String>>>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

#[given("clients send batches without pause")]
async fn start_batches(proxy: &mut Proxy) {
    let (seen, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicBool::new(false)));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (seen, stop, client) = (seen.clone(), stop.clone(), proxy.client.clone());
        let url = format!("http://{}", proxy.addr());
        clients.spawn(async move {
            while !stop.load(Relaxed) {
                let reply = reply(client.post(&url).body(batch_of(BATCH))).await;
                let answers = reply.json();
                let answers = answers.as_array().map_or(&[][..], Vec::as_slice);
                let right = (0..).zip(answers).all(|(id, answer)| answer["id"] == id && answer["result"].is_string());
                let whole = right && answers.len() == BATCH;
                seen.lock().unwrap().push(if whole { Ok(()) } else { Err(format!("{reply:?}")) });
                sleep(BATCH_PAUSE).await;
            }
        });
    }
    proxy.batches = Some(Batches { seen, stop, clients });
    more_batches(proxy, 9).await;
}

#[when(expr = "{int} more batches have been answered")]
async fn more_batches(proxy: &mut Proxy, count: usize) {
    let seen = proxy.batches.as_ref().expect("clients send batches").seen.clone();
    let before = seen.lock().unwrap().len();
    eventually("more batches", soon(), async || match seen.lock().unwrap().len() - before {
        made if made >= count => Ok(()),
        made => Err(format!("{made} of {count}")),
    })
    .await;
}

#[then("every batch was answered whole and in order")]
async fn batches_answered(proxy: &mut Proxy) {
    let Batches { seen, stop, mut clients } = proxy.batches.take().expect("clients send batches");
    stop.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let seen = seen.lock().unwrap();
    let failed: Vec<_> = seen.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {} batches failed, such as: {}", failed.len(), seen.len(), failed[0]);
}
