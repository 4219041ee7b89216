//! Requests to one node: for its stream of events, and for anything that the stitcher asks.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Method, header};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{
    sse::{Event, Parser},
    topics::Names,
};
use crate::{
    domain::{
        beacon_form::{Body as Content, Form, Reply, Wanted, is_json, is_of_kind},
        node_id::NodeId,
        target::Target,
    },
    metrics::Payer,
    net::{
        http::{Body, Error, Progress, Request, Response, Sending, Timeouts, Unread},
        node_connections::Rank,
    },
    pool::{
        Pool,
        ask::{says_no, trouble},
        health::{Fault, Trouble},
        own_question::{Clock, OwnQuestion},
        paid::{Paid, afford, spent},
    },
};

/// How long a node may take to begin an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A stream that ends within this time was not kept open.
const AT_ONCE: Duration = Duration::from_millis(250);
/// The longest answer to an unknown topic: the answer is kept, and clients read it.
const MAX_REFUSAL: usize = 4 << 10;
/// Bytes of a stream's events that may wait for the hub. A stream with more is not read on.
const MAX_BACKLOG: usize = 16 << 20;

/// News of a stream.
#[derive(Debug)]
pub(super) enum News {
    /// The stream is open.
    Opened,
    /// The node does not know a topic: status and body of its answer.
    Refused(u16, Bytes),
    /// The next event, and its share of the room for waiting events.
    Event(Event, #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    /// The stream is over, with the fault of its node.
    Lost(Trouble),
}

/// Runs a stream of `topics` from a node to its end.
pub(super) async fn stream(pool: Arc<Pool>, node: NodeId, topics: Names, id: u64, news: mpsc::Sender<(u64, News)>) {
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
    // If the hub is gone, the news is for no one.
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

    /// `None` when the hub is gone.
    async fn tell(&self, news: News) -> Option<()> {
        self.news.send((self.id, news)).await.ok()
    }

    async fn event(&self, event: Event) -> Option<()> {
        let bytes = (event.raw.len() + event.data.len()).min(MAX_BACKLOG);
        let room = self.room.clone().acquire_many_owned(u32::try_from(bytes).ok()?).await.ok()?;
        self.tell(News::Event(event, room)).await
    }
}

/// Whether the node opens a stream of these topics now.
pub(super) async fn opens(pool: &Pool, node: NodeId, topics: &Names) -> bool {
    let list: Vec<&str> = topics.iter().map(String::as_str).collect();
    matches!(open(pool, node, &list).await, Ok(Ok(_)))
}

/// Whether the node opens a stream of these topics now, and does not end the stream at once.
pub(super) async fn keeps_open(pool: &Pool, node: NodeId, topics: &Names) -> bool {
    let list: Vec<&str> = topics.iter().map(String::as_str).collect();
    let Ok(Ok(mut response)) = open(pool, node, &list).await else { return false };
    !matches!(timeout(AT_ONCE, response.next()).await, Ok(None | Some(Err(_))))
}

/// The node's answer to topics of which the node does not know one: status and body. `None` where
/// the node knows the topics, or gives no clear answer.
pub(super) async fn refuses(pool: &Pool, node: NodeId, topics: &Names) -> Option<(u16, Bytes)> {
    let list: Vec<&str> = topics.iter().map(String::as_str).collect();
    open(pool, node, &list).await.ok()?.err()
}

async fn open(pool: &Pool, node: NodeId, topics: &[&str]) -> Result<Result<Response, (u16, Bytes)>, Trouble> {
    let path = format!("/eth/v1/events?topics={}", topics.join(","));
    let mut response = get(pool, node, &path, "text/event-stream").await?;
    let kind = response.head.header("content-type");
    match response.head.status {
        200 if is_of_kind(kind.as_deref(), b"text/event-stream") => {
            response.is_endless();
            Ok(Ok(response))
        }
        status if says_no(status) => {
            // A gateway's page says nothing of topics, and is not for clients.
            let body = match body(pool, node, response, MAX_REFUSAL).await {
                Ok(body) => {
                    let reply = Reply { status, kind: kind.as_deref(), body: Content::Whole(&body) };
                    (Form::of(&reply, Wanted::Data) == Form::Node).then_some(body)
                }
                // The node's words are too long.
                Err(trouble) if trouble.fault == Fault::Failing && is_json(kind.as_deref()) => {
                    let ours = r#""message":"the node does not know one of the topics""#;
                    Some(format!(r#"{{"code":{status},{ours}}}"#).into())
                }
                Err(trouble) => return Err(trouble),
            };
            let body = body.ok_or_else(|| no_stream(pool, node, status))?;
            Ok(Err((status, pool.nodes[node].redact(&body).map_or(body, Bytes::from))))
        }
        status => Err(no_stream(pool, node, status)),
    }
}

async fn read(pool: &Pool, node: NodeId, mut response: Response, outlet: &Outlet) -> Option<Trouble> {
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

pub(super) async fn body(pool: &Pool, node: NodeId, mut response: Response, limit: usize) -> Result<Bytes, Trouble> {
    let read = timeout(RESPONSE_TIMEOUT, response.whole(limit, || {})).await.map_err(|_| silent())?;
    read.map_err(|unread| match unread {
        Unread::TooLong => failing(pool, node, "its answer is too long"),
        Unread::Broken(broken) => trouble(&pool.nodes[node], &Error::Broken { broken }),
    })
}

async fn get(pool: &Pool, node: NodeId, path: &str, accept: &'static str) -> Result<Response, Trouble> {
    let clock = Clock::new(RESPONSE_TIMEOUT);
    clock.limits(send(pool, node, (&Method::GET, path, b""), accept, &clock)).await.unwrap_or_else(|| Err(silent()))
}

/// Sends a request: method, path and body. The caller limits the time by the clock.
pub(super) async fn send(
    pool: &Pool,
    node: NodeId,
    (method, path, asks): (&Method, &str, &[u8]),
    accept: &'static str,
    clock: &Clock,
) -> Result<Response, Trouble> {
    let asked = &pool.nodes[node];
    let Some(upstream) = &asked.upstream else { return Err(failing(pool, node, "it has no HTTP side")) };
    let target = Target::parse(path).ok_or_else(|| failing(pool, node, "a path that no request can carry"))?;
    let mut headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
    if !asks.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let request = Request {
        method,
        target: &target,
        headers: &headers,
        sending: Sending::Repeatable,
        rank: Rank::Own,
        caller: None,
    };
    // The body is short, so only the time to the head of the response matters.
    let timeouts = Timeouts { idle: RESPONSE_TIMEOUT, head: RESPONSE_TIMEOUT };
    let (mut question, mut progress) = (OwnQuestion::new(Some(clock), None), Progress::default());
    let cost = afford(asked, "").await?;
    let mut question = Paid::new(&mut question, asked, cost, Payer::Own);
    let outcome = upstream.request(request, Body::Whole(asks), timeouts, &mut question, &mut progress).await;
    if question.is_refused() {
        return Err(spent());
    }
    outcome.map_err(|error| trouble(asked, &error))
}

fn no_stream(pool: &Pool, node: NodeId, status: u16) -> Trouble {
    failing(pool, node, &format!("/eth/v1/events: HTTP status {status}, not a stream of events"))
}

fn silent() -> Trouble {
    Trouble { fault: Fault::Silent, text: format!("no answer within {RESPONSE_TIMEOUT:?}") }
}

fn failing(pool: &Pool, node: NodeId, text: &str) -> Trouble {
    Trouble { fault: Fault::Failing, text: pool.nodes[node].redact_text(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hubs_backlog_is_bounded_in_bytes_and_loses_nothing() {
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
