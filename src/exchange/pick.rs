//! The nodes that a caller picks for its exchanges, where the settings allow that.

use crate::{
    domain::{
        node_id::{ByNode as _, NodeId},
        refusal::Refusal,
    },
    pool::Pool,
};

/// The header that names the node to ask, and in an answer the node that gave the answer.
pub const NODE_HEADER: &str = "x-steadfast-node";
/// The header that names the tier to ask.
pub const TIER_HEADER: &str = "x-steadfast-tier";

/// The caller's words, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pick {
    node: Option<Box<str>>,
    tier: Option<Box<str>>,
}

impl Pick {
    /// Notes a header, if it is one of those that pick. The last one of a name counts.
    pub fn note(pick: &mut Option<Box<Self>>, name: &str, value: &[u8]) -> bool {
        let value = || Some(String::from_utf8_lossy(value.trim_ascii()).into());
        if name.eq_ignore_ascii_case(NODE_HEADER) {
            pick.get_or_insert_default().node = value();
        } else if name.eq_ignore_ascii_case(TIER_HEADER) {
            pick.get_or_insert_default().tier = value();
        } else {
            return false;
        }
        true
    }

    /// The nodes of `pool` that were not picked.
    ///
    /// # Errors
    /// Where that is all nodes.
    pub fn shut(&self, pool: &Pool) -> Result<Vec<NodeId>, Refusal> {
        let Self { node: name, tier } = self;
        let is_picked = |node: NodeId| {
            let node = &pool.nodes[node];
            name.as_ref().is_none_or(|name| **name == *node.name)
                && tier.as_ref().is_none_or(|tier| **tier == *node.tier.as_str())
        };
        let (picked, shut): (Vec<_>, Vec<_>) = NodeId::all(pool.nodes.len()).partition(|node| is_picked(*node));
        if !picked.is_empty() {
            return Ok(shut);
        }
        let named = |name: &str| pool.nodes.by_node().find(|(_, node)| *node.name == *name);
        Err(Refusal::NoSuchNode(match (name, tier) {
            (_, Some(tier)) if !matches!(&**tier, "primary" | "backup") => {
                format!("{TIER_HEADER} must be primary or backup, not {tier:?}")
            }
            (Some(name), Some(tier)) if let Some((_, node)) = named(name) => {
                format!("the node {name:?} is a {}, and {TIER_HEADER} is {tier:?}", node.tier.as_str())
            }
            (Some(name), _) => format!("there is no node {name:?}"),
            (None, tier) => format!("there is no {} node", tier.as_deref().unwrap_or_default()),
        }))
    }
}
