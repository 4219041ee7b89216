//! The chains of this replica's networks beside those of the other replicas.
//!
//! Rule: a replica one of whose networks has another chain id than the network of this name has at
//! the others takes no transaction and sees none through.
//!
//! Reason: a network's name is each replica's own setting. The owner of a shard whose nodes are of
//! another chain would never send what the others have accepted.
//!
//! Example: `main` is chain 1 at two replicas. A third is started whose `main` has nodes of chain
//! 5: its clients hear why it takes nothing, and the two go on.

use tokio::time::{Duration, Instant};

use super::{
    Link,
    row::Place,
    task::{Outcome, Task},
};
use crate::outbox::{desk::NotDone, record::Network};

/// From one look at the chains to the next.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after a look without an answer, or that found another chain.
const AGAIN: Duration = Duration::from_secs(5);
/// The pause while the chain of a network's nodes is not known.
const UNKNOWN: Duration = Duration::from_millis(200);
/// How long the first look waits for the nodes' word. Behind that, a network without a chain is
/// left out: no node is sent anything.
const PATIENCE: Duration = Duration::from_secs(5);

impl Task {
    /// Compares the chains, once in a while.
    pub(super) fn look_at_chains(&mut self, link: &Link) {
        let now = Instant::now();
        if self.is_looking_at_chains || now < self.next_chains {
            return;
        }
        let mut chains = Vec::new();
        let mut is_unknown = false;
        for (network, relay) in self.shared.relays().iter() {
            let Some(calls) = relay.calls() else { continue };
            match calls.pool().chain_id() {
                Some(chain) => chains.push((network.clone(), chain)),
                None => is_unknown = true,
            }
        }
        self.has_unknown_chain = is_unknown;
        if is_unknown && now < self.began + PATIENCE {
            self.next_chains = now + UNKNOWN;
            return;
        }
        self.is_looking_at_chains = true;
        let link = link.clone();
        self.requests.push(Box::pin(async move { Outcome::Chains(compare(&link, chains).await) }));
    }

    /// The chains are compared; `None`: the bucket did not tell.
    pub(super) fn found_chains(&mut self, outcome: Option<Option<NotDone>>) {
        self.is_looking_at_chains = false;
        let is_fine = matches!(outcome, Some(None)) && !self.has_unknown_chain;
        self.next_chains = Instant::now() + if is_fine { LOOK } else { AGAIN };
        if let Some(why) = outcome {
            self.replicas.chains.note(why);
        }
    }
}

/// The first network whose chain is another one at the other replicas. A chain that the bucket does
/// not have is noted there.
async fn compare(link: &Link, chains: Vec<(Network, u64)>) -> Option<Option<NotDone>> {
    for (network, here) in chains {
        let key = Place::Chain(network.clone()).key().ok()?;
        match link.store.read(&key).await.ok()? {
            Some(entry) => {
                let others: u64 = std::str::from_utf8(&entry.value).ok()?.parse().ok()?;
                if others != here {
                    return Some(Some(NotDone::OtherChain { network: network.to_string(), here, others }));
                }
            }
            None => _ = link.store.create(&key, here.to_string().into(), None).await.ok()?,
        }
    }
    Some(None)
}
