//! What is asked of a node: its stream of events, and single questions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};

use super::{
    beacon::{self, Duties, Root},
    sse::{Event, Parser},
    stitch::{Answer, Question},
    topics::Names,
};
use crate::{
    domain::target::Target,
    net::{
        outgoing::Patience,
        places::Rank,
        request::{Body, Request},
        upstream::{Error, Progress, Response},
    },
    pool::{Pool, ask::trouble, board::Trouble, health::Fault},
};

/// How long a node may take to begin an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take over a question, for which clients wait.
const THINKING: Duration = Duration::from_secs(2);
/// How often a header that was just announced is asked for, and the pause between: not every node serves at once what it tells.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// The longest answer to a topic that the node does not know: it is kept, and clients read it.
const MAX_REFUSAL: usize = 4 << 10;
/// Bytes of a stream's events that may wait for the hub. A stream with more is not read on.
const MAX_BACKLOG: usize = 16 << 20;

/// What comes of a stream.
#[derive(Debug)]
pub(super) enum News {
    /// It runs.
    Opened,
    /// The node does not know a topic: status and body of its answer.
    Refused(u16, Bytes),
    /// Its next event, and its share of what may wait.
    Event(Event, #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    /// It is over; what that says of the node.
    Lost(Trouble),
}

/// Runs a stream of `topics` from a node to its end.
pub(super) async fn stream(pool: Arc<Pool>, node: usize, topics: Names, id: u64, news: mpsc::Sender<(u64, News)>) {
    let outlet = Outlet::new(id, news);
    let list: Vec<&str> = topics.iter().map(String::as_str).collect();
    let last = match open(&pool, node, &list).await {
        Err(trouble) => News::Lost(trouble),
        Ok(Err((status, body))) => News::Refused(status, body),
        Ok(Ok(response)) => {
            if outlet.tell(News::Opened).await.is_none() {
                return;
            }
            match read(&pool, node, response, &outlet).await {
                Some(trouble) => News::Lost(trouble),
                None => return,
            }
        }
    };
    // Nobody to tell is the end of the hub.
    outlet.tell(last).await;
}

/// A stream's way to the hub.
struct Outlet {
    id: u64,
    news: mpsc::Sender<(u64, News)>,
    room: Arc<Semaphore>,
}

impl Outlet {
    fn new(id: u64, news: mpsc::Sender<(u64, News)>) -> Self {
        Self { id, news, room: Arc::new(Semaphore::new(MAX_BACKLOG)) }
    }

    /// `None` when nobody listens any more.
    async fn tell(&self, news: News) -> Option<()> {
        self.news.send((self.id, news)).await.ok()
    }

    async fn event(&self, event: Event) -> Option<()> {
        let bytes = (event.raw.len() + event.data.len()).min(MAX_BACKLOG);
        let room = self.room.clone().acquire_many_owned(u32::try_from(bytes).ok()?).await.ok()?;
        self.tell(News::Event(event, room)).await
    }
}

/// What the node says to a topic that it does not know: status and body; `None` if it knows it, or does not say.
pub(super) async fn refuses(pool: Arc<Pool>, node: usize, topic: String) -> Option<(u16, Bytes)> {
    open(&pool, node, &[&topic]).await.ok()?.err()
}

async fn open(pool: &Pool, node: usize, topics: &[&str]) -> Result<Result<Response, (u16, Bytes)>, Trouble> {
    let path = format!("/eth/v1/events?topics={}", topics.join(","));
    let response = get(pool, node, &path, "text/event-stream").await?;
    let kind = response.head.header("content-type").unwrap_or_default();
    match response.head.status {
        200 if kind.to_ascii_lowercase().starts_with(b"text/event-stream") => Ok(Ok(response)),
        400 => {
            let ours = Bytes::from_static(br#"{"code":400,"message":"the node does not know one of the topics"}"#);
            let body = body(pool, node, response, MAX_REFUSAL).await.unwrap_or(ours);
            Ok(Err((400, pool.nodes[node].conceal(&body).map_or(body, Bytes::from))))
        }
        status => Err(failing(pool, node, &format!("/eth/v1/events: HTTP status {status}, not a stream of events"))),
    }
}

async fn read(pool: &Pool, node: usize, mut response: Response, outlet: &Outlet) -> Option<Trouble> {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    while let Some(piece) = response.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(broken) => return Some(trouble(&pool.nodes[node], &Error::Broken { broken })),
        };
        let outcome = parser.feed(&piece, |event| events.push(event));
        for event in events.drain(..) {
            outlet.event(event).await?;
        }
        if let Err(error) = outcome {
            return Some(failing(pool, node, &format!("/eth/v1/events: {error}")));
        }
    }
    Some(Trouble { fault: Fault::Dropped, text: "it ended its stream of events".to_owned() })
}

/// Asks a node; `None` if there is no answer to be had.
pub(super) async fn ask(pool: Arc<Pool>, node: usize, question: Question, slots_per_epoch: u64) -> Option<Answer> {
    let asked = Asked { pool: &pool, node, slots_per_epoch };
    timeout(THINKING, answer(&asked, question)).await.ok()?
}

async fn answer(asked: &Asked<'_>, question: Question) -> Option<Answer> {
    match question {
        Question::Head => asked.header("head").await,
        Question::Header(root) => {
            let root = root.to_string();
            for _ in 1..TRIES {
                if let Some(answer) = asked.header(&root).await {
                    return Some(answer);
                }
                sleep(PAUSE).await;
            }
            asked.header(&root).await
        }
        Question::Finalized(state) => {
            let state = state.map_or_else(|| "head".to_owned(), |state| state.to_string());
            let body = asked.fetch(&format!("/eth/v1/beacon/states/{state}/finality_checkpoints")).await?;
            beacon::read_finalized(&body).map(Answer::Finalized)
        }
        Question::Duties { root, epoch } => {
            let duties = match asked.duties_by_slot(epoch).await {
                Some(duties) => duties,
                None => asked.duties_by_themselves(epoch).await?,
            };
            // Asked last, so that all of it was said of a chain that the block is on.
            let body = asked.fetch(&format!("/eth/v1/beacon/headers/{root}")).await?;
            Some(if beacon::is_canonical(&body) { Answer::Duties(duties) } else { Answer::Left })
        }
    }
}

struct Asked<'a> {
    pool: &'a Pool,
    node: usize,
    slots_per_epoch: u64,
}

impl Asked<'_> {
    async fn header(&self, id: &str) -> Option<Answer> {
        let (root, header) = beacon::read_header(&self.fetch(&format!("/eth/v1/beacon/headers/{id}")).await?)?;
        Some(Answer::Header(root, header))
    }

    async fn root(&self, id: &str) -> Option<Root> {
        beacon::read_root(&self.fetch(&format!("/eth/v1/beacon/blocks/{id}/root")).await?)
    }

    /// What the duties of an epoch's heads depend on, by the blocks that the node has.
    async fn duties_by_slot(&self, epoch: u64) -> Option<Duties> {
        let previous = self.last_before(epoch.saturating_sub(1)).await?;
        Some(Duties { previous, current: self.last_before(epoch).await? })
    }

    /// The same by duties, whose answers say it though the node may not have the blocks any more.
    async fn duties_by_themselves(&self, epoch: u64) -> Option<Duties> {
        let previous = self.dependent_root(&Method::POST, "attester", epoch).await?;
        let current = match self.dependent_root(&Method::POST, "attester", epoch.saturating_add(1)).await {
            Some(current) => current,
            None => self.dependent_root(&Method::GET, "proposer", epoch).await?,
        };
        Some(Duties { previous, current })
    }

    async fn dependent_root(&self, method: &Method, of: &str, epoch: u64) -> Option<Root> {
        let path = format!("/eth/v1/validator/duties/{of}/{epoch}");
        // Some validator must be named; whether it has duties makes no difference.
        let asks: &[u8] = if *method == Method::POST { br#"["0"]"# } else { b"" };
        beacon::read_dependent_root(&self.exchange(method, &path, asks).await?)
    }

    /// The root of the last block before an epoch; the first block's if there is none.
    async fn last_before(&self, epoch: u64) -> Option<Root> {
        let slot = epoch.saturating_mul(self.slots_per_epoch);
        // A slot may be empty; more than an epoch of empty ones in a row is not waited for.
        let lowest = slot.saturating_sub(self.slots_per_epoch + 1);
        for slot in (lowest.max(1)..slot).rev() {
            if let Some(root) = self.root(&slot.to_string()).await {
                return Some(root);
            }
        }
        if lowest == 0 { self.root("genesis").await } else { None }
    }

    /// The body of an answer of 200.
    async fn fetch(&self, path: &str) -> Option<Bytes> {
        self.exchange(&Method::GET, path, b"").await
    }

    async fn exchange(&self, method: &Method, path: &str, asks: &[u8]) -> Option<Bytes> {
        let response = send(self.pool, self.node, method, path, asks, "application/json").await.ok()?;
        let status = response.head.status;
        let body = body(self.pool, self.node, response, MAX_ANSWER).await.ok()?;
        (status == 200).then_some(body)
    }
}

async fn body(pool: &Pool, node: usize, mut response: Response, limit: usize) -> Result<Bytes, Trouble> {
    let mut whole = Vec::new();
    let read = async {
        while let Some(piece) = response.next().await {
            let piece = piece.map_err(|broken| trouble(&pool.nodes[node], &Error::Broken { broken }))?;
            whole.extend_from_slice(&piece);
            if whole.len() > limit {
                return Err(failing(pool, node, "its answer is too long"));
            }
        }
        Ok(())
    };
    timeout(PATIENCE, read).await.map_err(|_| silent())??;
    Ok(whole.into())
}

async fn get(pool: &Pool, node: usize, path: &str, accept: &'static str) -> Result<Response, Trouble> {
    send(pool, node, &Method::GET, path, b"", accept).await
}

async fn send(
    pool: &Pool,
    node: usize,
    method: &Method,
    path: &str,
    asks: &[u8],
    accept: &'static str,
) -> Result<Response, Trouble> {
    let asked = &pool.nodes[node];
    let Some(upstream) = &asked.upstream else { return Err(failing(pool, node, "it has no HTTP side")) };
    let target = Target::parse(path).ok_or_else(|| failing(pool, node, "a path that no request can carry"))?;
    let mut headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
    if !asks.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let request = Request { method, target: &target, headers: &headers, fresh: false, rank: Rank::Own, caller: None };
    // Nothing is streamed to the node.
    let patience = Patience { idle: PATIENCE, head: PATIENCE };
    let exchange = async {
        let outcome = upstream.request(request, Body::Whole(asks), patience, &mut Progress::default()).await;
        outcome.map_err(|error| trouble(asked, &error))
    };
    timeout(PATIENCE, exchange).await.map_err(|_| silent())?
}

fn silent() -> Trouble {
    Trouble { fault: Fault::Silent, text: format!("no answer within {PATIENCE:?}") }
}

fn failing(pool: &Pool, node: usize, text: &str) -> Trouble {
    Trouble { fault: Fault::Failing, text: pool.nodes[node].redact(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_the_hub_is_bounded_in_bytes_and_nothing_is_lost() {
        const EACH: usize = 1 << 20;
        let (news, mut heard) = mpsc::channel(256);
        let mut telling = tokio::task::JoinSet::new();
        telling.spawn(async move {
            let outlet = Outlet::new(7, news);
            for number in 0..100 {
                let data = Bytes::from(vec![b'x'; EACH]);
                let event = Event { topic: number.to_string(), data: data.clone(), raw: data };
                outlet.event(event).await.unwrap();
            }
        });
        for number in 0..100 {
            tokio::task::yield_now().await;
            assert!(heard.len() * 2 * EACH <= MAX_BACKLOG, "{} events wait", heard.len());
            let Some((7, News::Event(event, _))) = heard.recv().await else { panic!("an event") };
            assert_eq!(event.topic, number.to_string());
        }
    }
}
