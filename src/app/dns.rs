//! Follows the addresses of names of which every address is a node.
//!
//! The rule: an address is a node for as long as the newest good answer has the address. A lookup
//! that fails, or finds nothing, changes nothing. The reason: a name server that is away says
//! nothing about nodes, and probes tell whether a node is well. Example: a name had 10.0.0.1 and
//! 10.0.0.2; the next answer has 10.0.0.2 and 10.0.0.3. The node at 10.0.0.2 goes on, 10.0.0.1 gets
//! no more calls, and 10.0.0.3 comes behind 10.0.0.2.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::{
    config::{Config, DnsAddresses},
    net::names::Names,
};

/// The most addresses of one name that are nodes. Each costs probes and a share of the
/// descriptors.
const MAX_ADDRESSES: usize = 32;

/// The names, and their addresses as far as known.
pub(crate) struct Followed {
    names: Arc<Names>,
    addresses: DnsAddresses,
    /// Names whose last lookup failed.
    failing: BTreeSet<Arc<str>>,
    looked_up: Instant,
}

impl Followed {
    pub(crate) fn new(names: Arc<Names>) -> Self {
        Self { names, addresses: DnsAddresses::new(), failing: BTreeSet::new(), looked_up: Instant::now() }
    }

    /// The settings with a node for each address.
    pub(crate) fn expand(&self, config: &Config) -> Config {
        config.with_addresses(&self.addresses)
    }

    /// Looks up the names of `config`. Names of others are forgotten.
    pub(crate) async fn look_up(&mut self, config: &Config) {
        let names = config.dns_names();
        let found = join_all(names.iter().map(|name| self.names.lookup(name))).await;
        self.looked_up = Instant::now();
        self.addresses.retain(|name, _| names.contains(name));
        self.failing.retain(|name| names.contains(name));
        for (name, found) in names.iter().zip(found) {
            let why = match found {
                Ok(found) if !found.is_empty() => {
                    self.failing.remove(name);
                    self.note(name, found);
                    continue;
                }
                Ok(_) => "the name has no address".to_owned(),
                Err(error) => error.to_string(),
            };
            if self.failing.insert(name.clone()) {
                let kept = self.addresses.get(name).map_or(0, Vec::len);
                warn!(%name, why, kept, "the nodes of a name cannot be looked up; those that are known stay");
            }
        }
    }

    /// Looks up the names of `config` when that is due again; for ever where there are none.
    /// Cancel-safe: a lookup that is dropped is begun anew.
    pub(crate) async fn look_up_in_time(&mut self, config: &Config) {
        if config.dns_names().is_empty() {
            std::future::pending::<()>().await;
        }
        sleep_until(self.looked_up + config.health.dns_interval).await;
        self.look_up(config).await;
    }

    /// Takes over the addresses that were found.
    fn note(&mut self, name: &Arc<str>, found: Vec<IpAddr>) {
        let known = self.addresses.entry(name.clone()).or_default();
        let (next, left_out) = merged(known, found);
        if *known == next {
            return;
        }
        let list = |addresses: &[IpAddr], others: &[IpAddr]| {
            let new = addresses.iter().filter(|address| !others.contains(address)).map(ToString::to_string);
            new.collect::<Vec<_>>().join(" ")
        };
        info!(%name, new = list(&next, known), gone = list(known, &next), "the addresses of a name have changed");
        if left_out > 0 {
            warn!(%name, left_out, "a name has more than {MAX_ADDRESSES} addresses: the others are left out");
        }
        *known = next;
    }
}

/// The addresses from now on: those that are known and were found again stay in their order, so
/// that no traffic moves for a new one. Also how many are too many.
fn merged(known: &[IpAddr], mut found: Vec<IpAddr>) -> (Vec<IpAddr>, usize) {
    found.sort_unstable();
    found.dedup();
    let mut next: Vec<IpAddr> = known.iter().copied().filter(|address| found.contains(address)).collect();
    next.extend(found.into_iter().filter(|address| !known.contains(address)));
    let left_out = next.len().saturating_sub(MAX_ADDRESSES);
    next.truncate(MAX_ADDRESSES);
    (next, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn known_addresses_keep_their_order_up_to_the_limit() {
        for (known, found, next) in [
            ("", "10.0.0.2 10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2"),
            ("10.0.0.2 10.0.0.1", "10.0.0.1 10.0.0.2", "10.0.0.2 10.0.0.1"),
            ("10.0.0.2 10.0.0.3", "10.0.0.1 10.0.0.3", "10.0.0.3 10.0.0.1"),
            ("10.0.0.1", "::1 10.0.0.2", "10.0.0.2 ::1"),
        ] {
            assert_eq!(merged(&list(known), list(found)), (list(next), 0), "{known} and {found}");
        }
        let many: Vec<IpAddr> = (0..40).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let known = vec![many[39]];
        let (next, left_out) = merged(&known, many.clone());
        assert_eq!((next.len(), left_out, next[0]), (MAX_ADDRESSES, 8, many[39]));
    }
}
