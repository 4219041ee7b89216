//! Performs the effects of a pool's state: wakes tasks, counts, and logs.

use tracing::{info, warn};

use super::{Pool, listen, snapshot::Switch, state::Effect};
use crate::{
    domain::{node_id::NodeId, verdict::Verdict},
    metrics::Metrics,
};

impl Pool {
    pub(super) fn perform(&self, effect: Effect, metrics: &Metrics) {
        let name = |node: NodeId| &*self.nodes[node].name;
        let (network, layer) = (&*self.network, self.layer.as_str());
        match effect {
            Effect::CameBack(node) => {
                self.nodes[node].missing_methods.forget_all();
                self.nodes[node].block_range.forget_all();
                // A node that was out closed connections for other reasons than want of room.
                self.nodes[node].upstream.iter().for_each(|upstream| upstream.forget_bound());
                self.nodes[node].link.iter().for_each(|link| link.hurry());
            }
            Effect::WentOut(node) => {
                self.nodes[node].out.notify_waiters();
                if let Some(upstream) = &self.nodes[node].upstream {
                    upstream.disconnect();
                }
            }
            Effect::ProbeNow(node) => self.nodes[node].probe_now.notify_one(),
            Effect::Mute(node) => {
                if self.lines.pass() {
                    let link = self.nodes[node].link_name();
                    let node = name(node);
                    warn!(network, layer, node, "the {link} announces no blocks although the node has new ones");
                }
                self.nodes[node].link.iter().for_each(|link| {
                    link.metrics().mute();
                    link.cut(listen::MUTE);
                });
            }
            // The pool in charge tells of its nodes.
            Effect::Verdict { .. } | Effect::Switched(_) if !self.is_in_charge() => {}
            // The status tells by how many blocks a node lags; each block is no news for the log.
            Effect::Verdict { from: Verdict::Lagging(_), to: Verdict::Lagging(_), .. } => {}
            Effect::Verdict { node, from, to } if self.lines.pass() => self.tell_verdict(node, from, to),
            Effect::Verdict { .. } => {}
            Effect::Switched(Switch { from, to, reason, .. }) => {
                metrics.switched(network, layer, reason);
                let what = match (&from, &to) {
                    (_, None) => "no node is left for calls",
                    (None, Some(_)) => "calls go to a node",
                    (Some(_), Some(_)) => "calls go elsewhere",
                };
                let (from, to) = (from.as_deref().unwrap_or("none"), to.as_deref().unwrap_or("none"));
                if self.lines.pass() {
                    info!(network, layer, from, to, reason, "{what}");
                }
            }
            Effect::ClockIsSlow(slots) => {
                warn!(network, layer, slots, "this machine's clock is behind all nodes: is it right?");
            }
        }
    }

    /// A change for the better is no warning, even if the node is not usable yet.
    fn tell_verdict(&self, node: NodeId, from: Verdict, to: Verdict) {
        let (network, layer, name) = (&*self.network, self.layer.as_str(), &*self.nodes[node].name);
        let why = self.snapshot().nodes[node].last_error.as_ref().map(|(text, _)| text.clone());
        let (was, verdict) = (from, to);
        match (to, why) {
            (Verdict::Up, _) => info!(network, layer, node = name, %was, "node is up"),
            _ if to.badness() < from.badness() => {
                info!(network, layer, node = name, %was, %verdict, "node is better, and not well yet");
            }
            (Verdict::Down(_) | Verdict::Resting, Some(why)) => {
                warn!(network, layer, node = name, %was, %verdict, why, "node is not usable");
            }
            _ => warn!(network, layer, node = name, %was, %verdict, "node is not usable"),
        }
    }
}
