//! Webhooks over loopback sockets, from a store on disk to a receiver that checks signatures by
//! code of its own.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use steadfast::{
    config::{Config, Webhook},
    metrics::Metrics,
    net::{
        post::{HttpPost, Post, Server},
        system,
    },
    outbox::{
        record::{EventKind, Millis, TenantName},
        step::Step,
        store::Store,
        webhook::{Connect, Duty, Event, Tools, Webhooks},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// The secret of the Standard Webhooks' own tests.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Far longer than any step takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Clone, Debug)]
struct Received {
    headers: HashMap<String, String>,
    body: String,
}

/// A receiver, which answers each request with a status, or with nothing.
struct Receiver {
    url: String,
    seen: Arc<Mutex<Vec<Received>>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    async fn start(status: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/hook", listener.local_addr().unwrap().port());
        let seen: Arc<Mutex<Vec<Received>>> = Arc::default();
        let known = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, status, known.clone()));
            }
        });
        Self { url, seen, task }
    }

    fn seen(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<Received> {
        let all = async {
            while self.seen().len() < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(TIMEOUT, all).await.unwrap_or_else(|_| panic!("only {:?}", self.seen()));
        self.seen()
    }
}

async fn receive(mut stream: TcpStream, status: Option<u16>, seen: Arc<Mutex<Vec<Received>>>) {
    let mut text = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut text).await {
        let whole = String::from_utf8(text.clone()).unwrap();
        let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
        let headers: HashMap<_, _> = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        if body.len() < headers["content-length"].parse().unwrap() {
            continue;
        }
        seen.lock().unwrap().push(Received { headers, body: body.to_owned() });
        text.clear();
        let Some(status) = status else { continue };
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A receiver's own check, by the rules of the Standard Webhooks.
fn is_authentic(Received { headers, body }: &Received, secret: &str) -> bool {
    let (id, time) = (&headers["webhook-id"], &headers["webhook-timestamp"]);
    let now = now().0 / 1000;
    let is_recent = time.parse::<u64>().is_ok_and(|time| now.abs_diff(time) < 300);
    let key = BASE64_STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let content = format!("{id}.{time}.{body}");
    let is_signed = headers["webhook-signature"].split(' ').any(|signature| {
        let Some(signature) = signature.strip_prefix("v1,") else { return false };
        let signature = BASE64_STANDARD.decode(signature).unwrap();
        hmac::verify(&key, content.as_bytes(), &signature).is_ok()
    });
    is_recent && is_signed
}

/// A folder that goes with its test.
struct TestFolder(PathBuf);

impl TestFolder {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("steadfast-webhooks-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(name: &str, url: &str) -> Webhook {
    let text = format!(
        "[outbox]\n[[outbox.webhook]]\nname = \"{name}\"\nurl = \"{url}\"\nevents = [\"tx.final\"]\nsecret = \"{SECRET}\"\n\
         allow_private = \"127.0.0.1\"\n[[el.primary]]\nhttp = \"http://127.0.0.1:18545\"\n"
    );
    let config = Config::parse(&text, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    config.outbox.unwrap().webhooks.remove(0)
}

#[expect(clippy::disallowed_methods, reason = "no simulation runs these tests")]
fn now() -> Millis {
    Millis(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// Starts the webhooks over the store, as the proxy does.
fn start(store: &Store, webhooks: &[Webhook]) -> (Webhooks, JoinHandle<()>) {
    let connect: Connect = Arc::new(|webhook: &Webhook| {
        let Webhook { url, allow_private, ca_file, .. } = webhook;
        let server = Server { url, allow_private: *allow_private, ca_file: ca_file.as_ref() };
        Ok(Arc::new(HttpPost::new(server, system::names())?) as Arc<dyn Post>)
    });
    let prepared = Webhooks::prepare(&connect, webhooks).unwrap();
    let (clock, metrics) = (Arc::new(now), Arc::new(Metrics::new()));
    let tools = Tools {
        deliveries: Arc::new(store.clone()),
        connect,
        clock: clock.clone(),
        wall: clock,
        seed: 1,
        metrics,
        duty: Duty::alone(),
    };
    let (webhooks, supervisor) = Webhooks::new(tools, prepared);
    (webhooks, tokio::spawn(supervisor.run()))
}

/// Commits the deliveries of an event, and makes them known.
async fn tell(store: &Store, webhooks: &Webhooks, id: &str) {
    let event = Event {
        id: format!("evt_{id}").as_str().into(),
        kind: EventKind::TxFinal,
        tenant: TenantName::default(),
        at: now(),
        request_id: Some(format!("request-{id}")),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        of: None,
    };
    let deliveries = webhooks.table().deliveries(&event, || format!("{{\"type\":\"tx.final\",\"id\":\"{id}\"}}"));
    let mut step = Step::new();
    deliveries.iter().for_each(|delivery| _ = step.deliver(delivery.clone()));
    store.commit(step).await.unwrap();
    webhooks.added(&deliveries);
}

fn waiting(store: &Store) -> usize {
    store.read().unwrap().deliveries(&TenantName::default(), None, 1000).unwrap().len()
}

/// U35: an endpoint has settings of its own.
#[tokio::test]
async fn a_receiver_finds_each_event_signed_and_once() {
    let (folder, receiver) = (TestFolder::new(), Receiver::start(Some(204)).await);
    let store = Store::open(&folder.0).unwrap();
    let (webhooks, task) = start(&store, &[settings("a", &receiver.url)]);
    for n in 0..50 {
        tell(&store, &webhooks, &n.to_string()).await;
    }
    let seen = receiver.wait_for(50).await;
    let mut ids: Vec<_> = seen.iter().map(|one| one.headers["webhook-id"].clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    for one in &seen {
        assert!(is_authentic(one, SECRET), "{one:?}");
        assert!(!is_authentic(one, "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="), "any secret passes");
        let forged = Received { body: one.body.replace("tx.final", "tx.mined"), ..one.clone() };
        assert!(!is_authentic(&forged, SECRET), "another body passes");
        let number = one.headers["webhook-id"].trim_start_matches("evt_");
        assert_eq!(one.headers["x-request-id"], format!("request-{number}"));
        assert_eq!(one.headers["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    }
    assert_eq!(webhooks.shutdown(TIMEOUT).await, 0);
    task.await.unwrap();
    assert_eq!(waiting(&store), 0, "what is done is on the disk no more");
    assert_eq!(receiver.seen().len(), 50);
}

#[tokio::test]
async fn an_event_without_an_answer_is_sent_again_after_a_restart() {
    let folder = TestFolder::new();
    let silent = Receiver::start(None).await;
    let store = Store::open(&folder.0).unwrap();
    let (webhooks, task) = start(&store, &[settings("a", &silent.url)]);
    tell(&store, &webhooks, "1").await;
    silent.wait_for(1).await;
    // As if the process died now.
    task.abort();
    let _ = task.await;
    drop(webhooks);
    store.close().await;
    let receiver = Receiver::start(Some(200)).await;
    let store = Store::open(&folder.0).unwrap();
    assert_eq!(waiting(&store), 1, "nothing is done before the 2xx");
    let (webhooks, task) = start(&store, &[settings("a", &receiver.url)]);
    let seen = receiver.wait_for(1).await;
    assert_eq!(seen[0].headers["webhook-id"], silent.seen()[0].headers["webhook-id"]);
    assert!(is_authentic(&seen[0], SECRET));
    assert_eq!(webhooks.shutdown(TIMEOUT).await, 0);
    task.await.unwrap();
    assert_eq!(waiting(&store), 0);
}

#[tokio::test]
async fn a_hanging_receiver_holds_up_no_other() {
    let folder = TestFolder::new();
    let (silent, receiver) = (Receiver::start(None).await, Receiver::start(Some(200)).await);
    let store = Store::open(&folder.0).unwrap();
    let (webhooks, task) = start(&store, &[settings("silent", &silent.url), settings("well", &receiver.url)]);
    for n in 0..30 {
        tell(&store, &webhooks, &n.to_string()).await;
    }
    receiver.wait_for(30).await;
    let left = webhooks.shutdown(Duration::from_millis(100)).await;
    task.await.unwrap();
    assert_eq!((left, waiting(&store)), (30, 30), "the other's are all on the disk");
    assert!(silent.seen().len() <= 8, "{} at once", silent.seen().len());
}
