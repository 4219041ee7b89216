//! A store in memory, endpoints that are scripted, and a clock that follows the paused one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::{Clock, Connect, Deliveries, Duty, Event, Table, Tools, Webhooks};
use crate::{
    config::{Config, Webhook},
    metrics::Metrics,
    net::{
        BoxFuture,
        post::{Answer, Post, PostError},
    },
    outbox::{
        record::{Delivery, EventKind, Millis, Quarantined, TenantName, WorkId},
        step::{Step, Write},
        store::{Due, StoreError},
    },
};

/// The wall time at which tests begin.
pub(super) const DAWN: Millis = Millis(1_700_000_000_000);
/// The key of the published test vector.
pub(super) const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// An endpoint that wants `tx.final`, unless `lines` say otherwise.
pub(super) fn webhook(name: &str, url: &str, lines: &str) -> Webhook {
    let events = if lines.contains("events = ") { "" } else { "events = [\"tx.final\"]" };
    let text = format!(
        "[outbox]\n[[outbox.webhook]]\nname = \"{name}\"\nurl = \"{url}\"\nsecret = \"whsec_{SECRET}\"\n{events}\n{lines}\n\
         [[el.primary]]\nhttp = \"http://127.0.0.1:18545\"\n"
    );
    let config = Config::parse(&text, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
    config.outbox.unwrap().webhooks.remove(0)
}

/// A wall clock that begins at [`DAWN`] and goes as tokio's.
pub(super) fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || DAWN.after(start.elapsed().as_millis() as u64))
}

type Rows<T> = BTreeMap<(TenantName, WorkId), T>;

/// Deliveries in memory.
#[derive(Default)]
pub(super) struct MemoryStore {
    rows: Mutex<(Rows<Delivery>, Rows<Quarantined>)>,
    /// So many further commits fail.
    pub(super) failing: AtomicUsize,
    /// The most rows that were asked for at once.
    pub(super) longest_page: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStore {
    pub(super) fn waiting(&self) -> Vec<Delivery> {
        lock(&self.rows).0.values().cloned().collect()
    }

    pub(super) fn given_up(&self) -> Vec<Quarantined> {
        lock(&self.rows).1.values().cloned().collect()
    }

    /// Puts deliveries of an event of the tenant into the store, one for each endpoint.
    pub(super) fn put(&self, table: &Table, tenant: &str, id: &str, at: Millis) -> Vec<Delivery> {
        let event = Event {
            id: format!("evt_{id}").as_str().into(),
            kind: EventKind::TxFinal,
            tenant: tenant.parse().unwrap(),
            at,
            request_id: Some(format!("request-{id}")),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            of: None,
        };
        let made = table.deliveries(&event, || format!("{{\"id\":\"{id}\"}}"));
        for delivery in &made {
            lock(&self.rows).0.insert((delivery.tenant.clone(), delivery.id.clone()), delivery.clone());
        }
        made
    }
}

impl Deliveries for MemoryStore {
    fn scheduled(&self, after: Option<&Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.longest_page.fetch_max(limit, SeqCst);
        let row = |delivery: Delivery| Due { at: delivery.due, tenant: delivery.tenant, work: delivery.id, bytes: 0 };
        let mut rows: Vec<_> = self.waiting().into_iter().map(row).collect();
        rows.sort();
        let behind = rows.into_iter().filter(|row| after.is_none_or(|after| row > after));
        Ok(behind.take(limit).collect())
    }

    fn delivery(&self, tenant: &TenantName, work: &WorkId) -> Result<Option<Delivery>, StoreError> {
        Ok(lock(&self.rows).0.get(&(tenant.clone(), work.clone())).cloned())
    }

    fn quarantined(&self, tenant: &TenantName, work: &WorkId) -> Result<Option<Quarantined>, StoreError> {
        Ok(lock(&self.rows).1.get(&(tenant.clone(), work.clone())).cloned())
    }

    fn commit(&self, step: Step) -> BoxFuture<'_, Result<(), StoreError>> {
        if self.failing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Box::pin(async { Err(StoreError::Full("no room".to_owned())) });
        }
        let mut rows = lock(&self.rows);
        for write in step.writes() {
            match write.clone() {
                Write::Delivery(delivery) => {
                    let key = (delivery.tenant.clone(), delivery.id.clone());
                    rows.1.remove(&key);
                    rows.0.insert(key, *delivery);
                }
                Write::Delivered { tenant, work } => _ = rows.0.remove(&(tenant, work)),
                Write::Quarantine(given_up) => {
                    let key = (given_up.delivery.tenant.clone(), given_up.delivery.id.clone());
                    rows.0.remove(&key);
                    rows.1.insert(key, *given_up);
                }
                other => panic!("{other:?} is no write of a webhook's"),
            }
        }
        Box::pin(async { Ok(()) })
    }
}

/// A request that an endpoint got.
#[derive(Clone, Debug)]
pub(super) struct Got {
    /// After how long.
    pub(super) at: Instant,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

type Script = Box<dyn Fn(usize, &str) -> BoxFuture<'static, Result<Answer, PostError>> + Send + Sync>;

/// An endpoint that answers as a script says, and remembers what it got.
pub(super) struct Scripted {
    script: Script,
    got: Mutex<Vec<Got>>,
    /// Requests under way now, and the most at once.
    pub(super) under_way: AtomicUsize,
    pub(super) most: AtomicUsize,
}

impl Scripted {
    /// `script` gets the number of the request, from 0, and its body.
    pub(super) fn new<F>(script: impl Fn(usize, &str) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Result<Answer, PostError>> + Send + 'static,
    {
        Arc::new(Self {
            script: Box::new(move |number, body| Box::pin(script(number, body))),
            got: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    /// Answers with these statuses, one after another, and with the last for ever.
    pub(super) fn statuses(statuses: &'static [u16]) -> Arc<Self> {
        Self::new(move |number, _| async move { answer(statuses[number.min(statuses.len() - 1)], None) })
    }

    pub(super) fn got(&self) -> Vec<Got> {
        lock(&self.got).clone()
    }
}

impl Post for Scripted {
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        let body = String::from_utf8(body.to_vec()).unwrap();
        let number = {
            let mut got = lock(&self.got);
            got.push(Got { at: Instant::now(), headers, body: body.clone() });
            got.len() - 1
        };
        Box::pin(async move {
            struct End<'a>(&'a AtomicUsize);
            impl Drop for End<'_> {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, SeqCst);
                }
            }
            let now = self.under_way.fetch_add(1, SeqCst) + 1;
            let _end = End(&self.under_way);
            self.most.fetch_max(now, SeqCst);
            (self.script)(number, &body).await
        })
    }
}

pub(super) fn answer(status: u16, retry_after: Option<&'static str>) -> Result<Answer, PostError> {
    let status = StatusCode::from_u16(status).unwrap();
    Ok(Answer { status, retry_after: retry_after.map(http::HeaderValue::from_static) })
}

/// Webhooks over a store in memory.
pub(super) struct Scene {
    pub(super) store: Arc<MemoryStore>,
    pub(super) webhooks: Webhooks,
    pub(super) connect: Connect,
    pub(super) start: Instant,
}

impl Scene {
    /// Starts webhooks for the endpoints, each of which is a script's.
    pub(super) fn start(store: &Arc<MemoryStore>, endpoints: &[(Webhook, Arc<Scripted>)]) -> Self {
        let known: BTreeMap<_, _> =
            endpoints.iter().map(|(webhook, script)| (webhook.name.clone(), script.clone())).collect();
        let connect: Connect = Arc::new(move |webhook: &Webhook| match known.get(&webhook.name) {
            Some(script) => Ok(script.clone() as Arc<dyn Post>),
            None => Err(std::io::Error::other(format!("no script for {}", webhook.url))),
        });
        let settings: Vec<_> = endpoints.iter().map(|(webhook, _)| webhook.clone()).collect();
        let tools = Tools {
            deliveries: store.clone(),
            connect: connect.clone(),
            clock: clock(),
            wall: clock(),
            seed: 7,
            metrics: Arc::new(Metrics::new()),
            duty: Duty::alone(),
        };
        let prepared = Webhooks::prepare(&connect, &settings).unwrap();
        let (webhooks, supervisor) = Webhooks::new(tools, prepared);
        tokio::spawn(supervisor.run());
        Self { store: store.clone(), webhooks, connect, start: Instant::now() }
    }

    /// An event of the tenant happens now: its deliveries are committed, and made known.
    pub(super) fn event(&self, tenant: &str, id: &str) {
        let made = self.store.put(&self.webhooks.table(), tenant, id, self.webhooks.now());
        self.webhooks.added(&made);
    }

    /// Takes up other settings.
    pub(super) async fn apply(&self, settings: &[Webhook]) {
        self.webhooks.apply(Webhooks::prepare(&self.connect, settings).unwrap()).await;
    }
}
