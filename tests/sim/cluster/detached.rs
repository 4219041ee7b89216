//! A way to the store on which a request that has left arrives, whatever becomes of the process.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use steadfast::cluster::store::{
    Entry, Incarnation, Key, Listing, Prefix, ReadError, Revision, Store, Ttl, Watch, WriteError, memory::MemoryStore,
};

/// Runs each request as a task of its own.
#[derive(Debug)]
pub struct Detached(pub MemoryStore);

impl Detached {
    fn run<'a, T: Send + 'static>(
        &self,
        request: impl FnOnce(MemoryStore) -> BoxFuture<'static, T> + Send + 'static,
    ) -> BoxFuture<'a, T> {
        let request = tokio::spawn(request(self.0.clone()));
        Box::pin(async move { request.await.unwrap() })
    }
}

impl Store for Detached {
    fn create<'a>(
        &'a self,
        key: &'a Key,
        value: Bytes,
        ttl: Option<Ttl>,
    ) -> BoxFuture<'a, Result<Revision, WriteError>> {
        let key = key.clone();
        self.run(move |store| Box::pin(async move { store.create(&key, value, ttl).await }))
    }

    fn compare_and_set<'a>(
        &'a self,
        key: &'a Key,
        seen: Revision,
        value: Bytes,
        ttl: Option<Ttl>,
    ) -> BoxFuture<'a, Result<Revision, WriteError>> {
        let key = key.clone();
        self.run(move |store| Box::pin(async move { store.compare_and_set(&key, seen, value, ttl).await }))
    }

    fn compare_and_delete<'a>(&'a self, key: &'a Key, seen: Revision) -> BoxFuture<'a, Result<(), WriteError>> {
        let key = key.clone();
        self.run(move |store| Box::pin(async move { store.compare_and_delete(&key, seen).await }))
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, ReadError>> {
        let key = key.clone();
        self.run(move |store| Box::pin(async move { store.read(&key).await }))
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, ReadError>> {
        let prefix = prefix.clone();
        self.run(move |store| Box::pin(async move { store.list(&prefix).await }))
    }

    fn watch(&self, prefix: &Prefix) -> Watch {
        self.0.watch(prefix)
    }

    fn incarnation(&self) -> BoxFuture<'_, Result<Incarnation, ReadError>> {
        self.run(|store| Box::pin(async move { store.incarnation().await }))
    }

    fn can_expire(&self) -> bool {
        self.0.can_expire()
    }
}
