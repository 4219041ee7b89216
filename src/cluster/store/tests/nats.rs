//! A world on real NATS servers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::jetstream;
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::{
    proxy::Proxy,
    servers::Servers,
    world::{RELIST, TIMEOUT, World},
};
use crate::{
    cluster::store::{
        Key, Store,
        nats::{NatsStore, OpenError, Options},
    },
    domain::fleet::ClusterName,
};

/// A bucket on real servers. Each client has a relay of its own to the first of them.
pub(super) struct OnNats<'a> {
    servers: &'a Servers,
    pub(super) cluster: ClusterName,
    admin: NatsStore,
    pub(super) context: jetstream::Context,
    clients: Mutex<BTreeMap<String, Arc<Client>>>,
}

pub(super) struct Client {
    pub(super) proxy: Proxy,
    store: NatsStore,
}

impl<'a> OnNats<'a> {
    pub(super) async fn new(servers: &'a Servers, bucket: &str) -> Self {
        let cluster: ClusterName = bucket.parse().expect("a name");
        let urls: Vec<String> = (0..servers.count()).map(|place| servers.address(place).to_string()).collect();
        let admin = NatsStore::open(options(&cluster, urls.clone())).await.expect("a store");
        let client = async_nats::connect(urls).await.expect("a connection");
        let context = jetstream::new(client);
        Self { servers, cluster, admin, context, clients: Mutex::default() }
    }

    pub(super) fn stream(&self) -> String {
        format!("KV_{}", self.cluster.bucket())
    }

    fn known(&self, name: &str) -> Option<Arc<Client>> {
        self.clients.lock().expect("a lock").get(name).cloned()
    }

    pub(super) fn client_and_proxy(&self, name: &str) -> Arc<Client> {
        self.known(name).expect("a client of that name")
    }
}

pub(super) fn options(cluster: &ClusterName, servers: Vec<String>) -> Options {
    let seed = fastrand::u64(..);
    Options { timeout: TIMEOUT, relist: RELIST, ..Options::new(cluster.clone(), servers, seed) }
}

pub(super) async fn open(cluster: &str, servers: Vec<String>) -> Result<NatsStore, OpenError> {
    NatsStore::open(options(&cluster.parse().expect("a name"), servers)).await
}

pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

pub(super) fn key(names: &[&str]) -> Key {
    Key::of(names).expect("names of a test")
}

pub(super) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

impl World for OnNats<'_> {
    async fn client(&self, name: &str) -> Arc<dyn Store> {
        if let Some(client) = self.known(name) {
            return Arc::new(client.store.clone());
        }
        let proxy = Proxy::start(self.servers.address(0)).await;
        let mut options = options(&self.cluster, vec![proxy.address.to_string()]);
        options.only_named = true;
        let store = NatsStore::open(options).await.expect("a store");
        let client = Arc::new(Client { proxy, store: store.clone() });
        self.clients.lock().expect("a lock").insert(name.to_owned(), client);
        Arc::new(store)
    }

    fn lose_next_answer(&self, client: &str) {
        self.client_and_proxy(client).proxy.hold(false, true);
    }

    fn lose_next_call(&self, client: &str) {
        self.client_and_proxy(client).proxy.hold(true, false);
    }

    fn cut(&self, client: &str) {
        self.client_and_proxy(client).proxy.hold(true, true);
    }

    async fn heal(&self, client: &str) {
        let client = self.client_and_proxy(client);
        let before = client.proxy.accepted();
        client.proxy.restart();
        until("a new connection", async || client.proxy.accepted() > before && client.store.is_connected()).await;
    }

    async fn empty(&self) {
        let stream = self.context.get_stream(self.stream()).await.expect("a stream");
        stream.purge().await.expect("a purge");
    }

    async fn recreate(&self) {
        self.context.delete_stream(self.stream()).await.expect("a stream");
        self.admin.incarnation().await.expect("a bucket");
    }
}
