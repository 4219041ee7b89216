//! Divides the file descriptors between clients, nodes and the proxy itself. Pure.

use crate::{config::Config, door::crowd::LEAVING};

/// The proxy's own: the log, the listeners, signals, the resolver.
const OWN: usize = 32;
/// Descriptors of each worker's runtime.
const PER_WORKER: usize = 4;
/// Connections of the operator's side at once.
pub(super) const ADMIN: usize = 32;
/// Client connections that have come and wait for others to leave.
pub(super) const MAX_PENDING_ACCEPTS: usize = 8;
/// A node needs some: a probe's, a link, a few calls.
const LEAST_PER_NODE: usize = 4;
/// The part that nodes get where clients want more than there are: a call under way takes one
/// descriptor for its client and one for its node, but most clients are idle.
const PART_OF_NODES: usize = 4;

/// The descriptors that each use may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescriptorLimits {
    /// Client connections over HTTP.
    pub(super) http: usize,
    /// Client WebSockets.
    pub(super) ws: usize,
    /// Connections to each node; `None`: as many as may be.
    pub(super) per_node: Option<usize>,
}

impl DescriptorLimits {
    /// The part of `limit` descriptors for each use that `config` names.
    pub(super) fn of(limit: Option<usize>, workers: usize, config: &Config) -> Self {
        let nodes = config.networks.iter().map(|network| network.el.len() + network.cl.len()).sum();
        Self::new(limit, workers, config.max_connections.get(), config.ws.max_connections.get(), nodes)
    }

    /// The settings that get less than `config` asks for, in words.
    pub(super) fn cuts(&self, config: &Config) -> String {
        self.cut_from(config.max_connections.get(), config.ws.max_connections.get())
    }

    fn cut_from(&self, http: usize, ws: usize) -> String {
        let settings = [("max_connections", self.http, http), ("ws.max_connections", self.ws, ws)];
        let cut = settings.iter().filter(|(_, limit, wanted)| limit != wanted);
        let words = cut.map(|(name, limit, wanted)| format!("{name} is {limit} instead of {wanted}"));
        words.collect::<Vec<_>>().join(", ")
    }

    fn new(limit: Option<usize>, workers: usize, http: usize, ws: usize, nodes: usize) -> Self {
        let Some(limit) = limit else { return Self { http, ws, per_node: None } };
        let left = limit.saturating_sub(OWN + PER_WORKER * workers + ADMIN + 2 * LEAVING + MAX_PENDING_ACCEPTS);
        let for_nodes = (left / PART_OF_NODES).max(left.saturating_sub(http.saturating_add(ws)));
        let for_clients = left - for_nodes;
        let wanted = http.saturating_add(ws);
        let (http, ws) = if wanted <= for_clients {
            (http, ws)
        } else {
            // Each side in its proportion, but neither has less than a quarter, unless the side
            // wants less.
            let part = (for_clients as u128 * http as u128 / wanted as u128) as usize;
            let least = |wanted: usize| wanted.min(for_clients / 4);
            let part = part.max(least(http)).min(for_clients - least(ws));
            (part.max(1), for_clients.saturating_sub(part).max(1))
        };
        Self { http, ws, per_node: Some((for_nodes / nodes.max(1)).max(LEAST_PER_NODE)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_that_fit_are_not_cut_and_nodes_have_the_rest() {
        let all = DescriptorLimits { http: 10_000, ws: 20_000, per_node: None };
        assert_eq!(DescriptorLimits::new(None, 4, 10_000, 20_000, 3), all);
        let plenty = DescriptorLimits::new(Some(1 << 20), 4, 10_000, 20_000, 2);
        assert_eq!((plenty.http, plenty.ws), (10_000, 20_000));
        assert!(plenty.per_node.is_some_and(|nodes| nodes > 400_000));
        assert_eq!(DescriptorLimits::new(Some(1024), 4, 100, 100, 2).http, 100);
    }

    #[test]
    fn only_what_is_cut_is_named() {
        let limits = DescriptorLimits { http: 1, ws: 5, per_node: None };
        assert_eq!(limits.cut_from(1, 5), "");
        assert_eq!(limits.cut_from(1, 10), "ws.max_connections is 5 instead of 10");
        assert_eq!(limits.cut_from(2, 10), "max_connections is 1 instead of 2, ws.max_connections is 5 instead of 10");
    }

    #[test]
    fn a_small_door_is_not_cut_for_a_large_one() {
        let limits = DescriptorLimits::new(Some(1024), 4, 100, 20_000, 2);
        assert!(limits.http == 100 && limits.ws > 400, "{limits:?}");
        let limits = DescriptorLimits::new(Some(1024), 4, 20_000, 100, 2);
        assert!(limits.ws == 100 && limits.http > 400, "{limits:?}");
        let limits = DescriptorLimits::new(Some(1024), 4, 1_000, 100_000, 2);
        assert!(limits.http > 100 && limits.ws > 300, "{limits:?}");
    }

    #[test]
    fn the_parts_are_never_more_than_the_limit() {
        for limit in [256, 1024, 4096, 20_000, 65_536] {
            for nodes in [1, 2, 5] {
                let limits = DescriptorLimits::new(Some(limit), 4, 10_000, 20_000, nodes);
                let of_nodes = limits.per_node.unwrap() * nodes;
                let own = OWN + 4 * PER_WORKER + ADMIN + 2 * LEAVING + MAX_PENDING_ACCEPTS;
                assert!(limits.http + limits.ws + of_nodes + own <= limit, "{limit} {nodes} {limits:?}");
                assert!(limits.http > 20 && limits.ws > 40 && of_nodes > 20, "{limit} {nodes} {limits:?}");
                assert!(limits.ws.abs_diff(limits.http * 2) <= 2, "{limits:?}");
            }
        }
    }
}
