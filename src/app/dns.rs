//! Follows the addresses of names of which every address is a node.
//!
//! The rule: an address is a node for as long as the newest good answer has the address. A lookup
//! that fails, or finds nothing, changes nothing. The reason: a name server that is away says
//! nothing about nodes, and probes tell whether a node is well. Example: a name had 10.0.0.1 and
//! 10.0.0.2; the next answer has 10.0.0.2 and 10.0.0.3. The node at 10.0.0.2 goes on, 10.0.0.1 gets
//! no more calls, and 10.0.0.3 comes behind 10.0.0.2.
//!
//! A lookup is put to use by [`Followed::adopt`], after the nodes that it brings: a reload that is
//! refused, and a dry one, change nothing here either.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::{
    config::{Config, DnsAddresses},
    metrics::{Burst, Metrics},
    net::{elsewhere::OwnAddresses, names::Names},
};

/// The most addresses of one name that are nodes. Each costs probes and a share of the
/// descriptors.
const MAX_ADDRESSES: usize = 32;
/// How often the log says of a name that its lookups fail, at most.
const REMINDER: Duration = Duration::from_secs(600);

/// The names, and their addresses as far as known.
#[derive(Clone)]
pub(crate) struct Followed {
    names: Arc<Names>,
    own: Arc<OwnAddresses>,
    metrics: Arc<Metrics>,
    addresses: DnsAddresses,
    /// How many addresses of a name are too many.
    too_many: BTreeMap<Arc<str>, usize>,
    /// The addresses that are left out because the proxy itself listens there.
    own_addresses: BTreeSet<(Arc<str>, IpAddr)>,
    /// Names whose last lookup failed, and why.
    failing: BTreeMap<Arc<str>, String>,
    /// When the log last said of a name that its lookups fail.
    told: BTreeMap<Arc<str>, Instant>,
    /// The log's room for changes: a name may have other addresses each time.
    lines: Arc<Burst>,
    looked_up: Instant,
}

impl Followed {
    /// No name yet. Addresses that are the proxy's `own` become no nodes.
    pub(crate) fn new(names: Arc<Names>, own: Arc<OwnAddresses>, metrics: Arc<Metrics>) -> Self {
        Self {
            names,
            own,
            metrics,
            addresses: DnsAddresses::new(),
            too_many: BTreeMap::new(),
            own_addresses: BTreeSet::new(),
            failing: BTreeMap::new(),
            told: BTreeMap::new(),
            lines: Arc::default(),
            looked_up: Instant::now(),
        }
    }

    /// The settings with a node for each address.
    pub(crate) fn expand(&self, config: &Config) -> Config {
        config.with_addresses(&self.addresses, &|ip, port| self.own.leads_here(ip, port))
    }

    /// Looks up the names of `config`, without a change here. The returned value has no other
    /// names.
    pub(crate) async fn looked_up(&self, config: &Config) -> Self {
        let names = config.dns_names();
        let found = join_all(names.iter().map(|name| self.find(name))).await;
        let mut next = self.clone();
        next.looked_up = Instant::now();
        next.addresses.retain(|name, _| names.contains(name));
        next.told.retain(|name, _| names.contains(name));
        next.failing.clear();
        next.too_many.clear();
        for (name, (found, failed)) in names.iter().zip(found) {
            self.metrics.looked_up(failed.is_none());
            next.failing.extend(failed.map(|why| (name.clone(), why)));
            let found: Vec<IpAddr> = found.into_iter().filter(is_of_one_machine).collect();
            if !found.is_empty() {
                let known = next.addresses.entry(name.clone()).or_default();
                let (addresses, left_out) = merged(known, found);
                *known = addresses;
                next.too_many.insert(name.clone(), left_out);
            }
        }
        next.own_addresses = config.own_addresses(&next.addresses, &|ip, port| self.own.leads_here(ip, port));
        next
    }

    /// The addresses of a name, as far as known, and the reason of a lookup that failed.
    async fn find(&self, name: &Arc<str>) -> (Vec<IpAddr>, Option<String>) {
        match self.names.look_up_now(name).await {
            Ok(found) => (found, None),
            Err(error) => match self.names.known(name) {
                // A lookup that takes too long ends later, and is good for the next.
                Some((found, since)) => (found, (since <= self.looked_up).then(|| error.to_string())),
                None => (Vec::new(), Some(error.to_string())),
            },
        }
    }

    /// Looks up the names of `config` when that is due again; for ever where there are none.
    /// Cancel-safe: a lookup that is dropped is begun anew.
    pub(crate) async fn looked_up_in_time(&self, config: &Config) -> Self {
        if config.dns_names().is_empty() {
            std::future::pending::<()>().await;
        }
        sleep_until(self.looked_up + config.health.dns_interval).await;
        self.looked_up(config).await
    }

    /// Takes over a lookup whose nodes are in use, and tells its changes.
    pub(crate) fn adopt(&mut self, next: Self) {
        let before = std::mem::replace(self, next);
        let list = |addresses: &[IpAddr], others: &[IpAddr]| {
            let new = addresses.iter().filter(|address| !others.contains(address)).map(ToString::to_string);
            new.collect::<Vec<_>>().join(" ")
        };
        for (name, addresses) in &self.addresses {
            let known = before.addresses.get(name).map_or(&[][..], Vec::as_slice);
            if addresses == known || !self.lines.pass() {
                continue;
            }
            info!(%name, new = list(addresses, known), gone = list(known, addresses), "the addresses of a name have changed");
            let left_out = self.too_many.get(name).copied().unwrap_or_default();
            if left_out > 0 {
                warn!(%name, left_out, "a name has more than {MAX_ADDRESSES} addresses: the others are left out");
            }
        }
        for (name, address) in self.own_addresses.difference(&before.own_addresses) {
            if self.lines.pass() {
                warn!(%name, %address, "an address of a name is left out: Steadfast itself listens there, and would call itself");
            }
        }
        self.tell_failures(&before);
        if let Some(left_out) = self.lines.sum_up() {
            let addresses = self.addresses.iter().map(|(name, addresses)| format!("{name}: {}", list(addresses, &[])));
            let addresses = addresses.collect::<Vec<_>>().join("; ");
            warn!(addresses, left_out, "names change too often for a line each");
        }
    }

    /// Takes over a lookup whose nodes cannot be used: the next is due after the usual time.
    pub(crate) fn reject(&mut self, next: &Self) {
        self.looked_up = next.looked_up;
    }

    fn tell_failures(&mut self, before: &Self) {
        for (name, why) in &self.failing {
            if self.told.get(name).is_none_or(|told| told.elapsed() >= REMINDER) {
                let kept = self.addresses.get(name).map_or(0, Vec::len);
                warn!(%name, why, kept, "the nodes of a name cannot be looked up; those that are known stay");
                self.told.insert(name.clone(), Instant::now());
            }
        }
        for name in before.failing.keys().filter(|name| self.addresses.contains_key(*name)) {
            if !self.failing.contains_key(name) && self.lines.pass() {
                info!(%name, "a name is found again");
            }
        }
    }
}

/// The addresses from now on: those that are known and were found again stay in their order, so
/// that no traffic moves for a new one. Also how many are too many.
fn merged(known: &[IpAddr], mut found: Vec<IpAddr>) -> (Vec<IpAddr>, usize) {
    // `::ffff:10.0.0.1` is 10.0.0.1 in another form.
    found.iter_mut().for_each(|address| *address = address.to_canonical());
    found.sort_unstable();
    found.dedup();
    let mut next: Vec<IpAddr> = known.iter().copied().filter(|address| found.contains(address)).collect();
    next.extend(found.into_iter().filter(|address| !known.contains(address)));
    let left_out = next.len().saturating_sub(MAX_ADDRESSES);
    next.truncate(MAX_ADDRESSES);
    (next, left_out)
}

/// Whether a node may have the address. Others stand for all addresses of this machine, or for many
/// machines.
fn is_of_one_machine(address: &IpAddr) -> bool {
    let address = address.to_canonical();
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || is_broadcast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_stand_for_many_become_no_nodes() {
        let found = list("0.0.0.0 :: ::ffff:0.0.0.0 224.0.0.1 ff02::1 255.255.255.255 10.0.0.1 ::1");
        assert_eq!(found.into_iter().filter(is_of_one_machine).collect::<Vec<_>>(), list("10.0.0.1 ::1"));
    }

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
            ("10.0.0.1", "::ffff:10.0.0.1 10.0.0.2 ::ffff:10.0.0.2", "10.0.0.1 10.0.0.2"),
        ] {
            assert_eq!(merged(&list(known), list(found)), (list(next), 0), "{known} and {found}");
        }
        let many: Vec<IpAddr> = (0..40).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let known = vec![many[39]];
        let (next, left_out) = merged(&known, many.clone());
        assert_eq!((next.len(), left_out, next[0]), (MAX_ADDRESSES, 8, many[39]));
    }
}
