//! The surroundings of a contract: clients of one bucket, and the faults between.

use std::{sync::Arc, time::Duration};

use crate::cluster::store::{
    Store,
    memory::{Fault, Memory, Settings},
};

/// The timeout of each client's calls.
pub(super) const TIMEOUT: Duration = Duration::from_millis(800);
/// The time between the listings of a watch.
pub(super) const RELIST: Duration = Duration::from_millis(400);

/// One bucket and the ways to it.
pub(super) trait World: Sync {
    /// A replica's own way to the bucket. The same name is the same way.
    async fn client(&self, name: &str) -> Arc<dyn Store>;
    /// The client's next call arrives and its answer does not.
    fn lose_next_answer(&self, client: &str);
    /// The client's next call does not arrive.
    fn lose_next_call(&self, client: &str);
    /// Nothing of the client arrives, and nothing comes back.
    fn cut(&self, client: &str);
    /// Ends the client's faults. Calls that were lost stay lost.
    async fn heal(&self, client: &str);
    /// Removes every entry, so that the server tells no watcher.
    async fn empty(&self);
    /// Removes the bucket and makes another of that name.
    async fn recreate(&self);
}

/// A store in memory.
pub(super) struct InMemory(Memory);

impl InMemory {
    pub(super) fn new() -> Self {
        let settings = Settings { timeout: TIMEOUT, relist: RELIST, ..Settings::default() };
        Self(Memory::new(settings))
    }
}

impl World for InMemory {
    async fn client(&self, name: &str) -> Arc<dyn Store> {
        Arc::new(self.0.client(name))
    }

    fn lose_next_answer(&self, client: &str) {
        self.0.inject(client, Fault::AppliedAmbiguous);
    }

    fn lose_next_call(&self, client: &str) {
        self.0.inject(client, Fault::LostAmbiguous);
    }

    fn cut(&self, client: &str) {
        self.0.cut(client);
    }

    async fn heal(&self, client: &str) {
        self.0.heal(client);
    }

    async fn empty(&self) {
        self.0.empty();
    }

    async fn recreate(&self) {
        self.0.recreate();
    }
}
