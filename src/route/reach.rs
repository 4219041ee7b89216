//! The nodes that have the blocks of a call, and those that have not.

use crate::{
    domain::{
        asked_blocks::AskedBlocks,
        node_id::{ByNode, NodeId},
    },
    pool::snapshot::Snapshot,
};

/// The nodes that probably lack the blocks that a call needs, and so come last. `height` gives a
/// node's height, and `lacks` says whether a node lacks the data that the call needs of the block
/// at a height.
///
/// A node below a block comes last only if a usable node has reached the block: any other node may
/// have made its height up.
pub fn out_of_reach(
    snapshot: &Snapshot,
    asked: &AskedBlocks,
    height: impl Fn(NodeId) -> u64,
    lacks: impl Fn(NodeId, u64) -> bool,
) -> Vec<NodeId> {
    let is_below = |node: NodeId, newest: u64| height(node) < newest;
    let is_there = |newest: &u64| {
        let mut usable = snapshot.nodes.by_node().filter(|(_, facts)| facts.verdict.is_usable() && !facts.cordoned);
        usable.any(|(node, _)| !is_below(node, *newest))
    };
    let (oldest, newest) = (asked.oldest(), asked.newest().filter(is_there));
    NodeId::all(snapshot.nodes.len())
        .filter(|&node| {
            newest.is_some_and(|newest| is_below(node, newest)) || oldest.is_some_and(|oldest| lacks(node, oldest))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::facts, *};
    use crate::{
        config::Tier::Primary,
        domain::{
            asked_blocks::{Data, Named},
            verdict::Verdict,
        },
    };

    const NONE: [usize; 0] = [];

    fn snapshot(nodes: &[(Verdict, u64)]) -> Snapshot {
        let nodes = nodes.iter().map(|&(verdict, number)| facts(verdict, Primary, number, false));
        Snapshot { nodes: nodes.collect(), ..Snapshot::default() }
    }

    fn last(snapshot: &Snapshot, named: Named, lacking: &[(usize, u64)]) -> Vec<usize> {
        let height = |node: NodeId| snapshot.nodes[node].head.as_ref().map_or(0, |head| head.number);
        let lacks =
            |node: NodeId, height: u64| lacking.iter().any(|(other, below)| *other == node.0 && height < *below);
        let asked = AskedBlocks { data: Data::State, named };
        out_of_reach(snapshot, &asked, height, lacks).into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn nodes_below_a_block_come_last_if_a_usable_node_has_it() {
        use Verdict::{Suspect, Up};
        let nodes = snapshot(&[(Up, 99), (Up, 100), (Suspect, 5000)]);
        assert_eq!(last(&nodes, Named::Number(99), &[]), NONE);
        assert_eq!(last(&nodes, Named::Number(100), &[]), [0]);
        assert_eq!(last(&nodes, Named::Range { oldest: Some(1), newest: Some(100) }, &[]), [0]);
        assert_eq!(last(&nodes, Named::Range { oldest: Some(1), newest: None }, &[]), NONE);
        // A node that is not believed has made the height up.
        assert_eq!(last(&nodes, Named::Number(101), &[]), NONE);
    }

    #[test]
    fn nodes_that_lack_the_oldest_block_come_last() {
        let nodes = snapshot(&[(Verdict::Up, 100), (Verdict::Up, 100)]);
        let full = [(0, 50)];
        assert_eq!(last(&nodes, Named::Number(49), &full), [0]);
        assert_eq!(last(&nodes, Named::Number(50), &full), NONE);
        assert_eq!(last(&nodes, Named::Earliest, &full), [0]);
        assert_eq!(last(&nodes, Named::Range { oldest: Some(49), newest: Some(60) }, &full), [0]);
        assert_eq!(last(&nodes, Named::Range { oldest: None, newest: Some(10) }, &full), NONE);
        assert_eq!(last(&nodes, Named::BlockHash, &full), NONE);
    }
}
