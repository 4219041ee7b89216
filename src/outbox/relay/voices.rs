//! How many nodes must say a thing before the outbox believes it.
//!
//! Rule: **two usable nodes must say the same; where one node alone is usable, its word counts.**
//! Of numbers that only grow (the height of the final block, the nonces that a sender has used
//! there) the highest counts that two nodes have reached.
//!
//! Reason: a wrong word here costs a transaction. The outbox does not send a transaction again that
//! a node shows in a block which is not there, or whose block a node calls final too early. A
//! block's hash and the root of its transactions prove nothing: a header with a true hash over
//! made-up transactions costs a liar no work. A second node that has the very same block proves
//! something, on every chain and for all kinds of transactions. A single liar finds no second.
//!
//! Examples, with three usable nodes of which n2 lies:
//! - n0 and n1 show a transaction waiting, n2 shows it in block 40. No second node names block 40,
//!   so n0 and n1 are asked for their blocks at height 40. Both lack the transaction there: the
//!   word of n2 does not count.
//! - n0 shows it in block 40, n1 knows nothing of it, for want of an index of old transactions.
//!   The block of n1 at height 40 has the same hash and lists the transaction: two nodes say it.
//! - n2 gives block 41 with a transaction that takes the nonce of ours. n0 and n1 give block 41
//!   without: the word of these two counts.
//! - The final blocks are 36, 35, and, by n2, 1,000,000: two nodes have reached 36.
//! - n0 and n1 are out, and n2 alone is usable: its word counts, as for all calls. Where none is
//!   usable, the node that calls go to all the same has the only word.

/// Whether so many nodes that say the same are enough.
pub(super) fn are_enough(voices: usize, usable: usize) -> bool {
    voices > 0 && voices >= usable.min(2)
}

/// The word that enough nodes say alike. Each node has a single voice at most.
pub(super) fn agreed<T: PartialEq>(voices: &[T], usable: usize) -> Option<&T> {
    voices.iter().find(|said| are_enough(voices.iter().filter(|other| other == said).count(), usable))
}

/// The highest that enough nodes have reached.
pub(super) fn reached<T: Ord>(mut told: Vec<T>, usable: usize) -> Option<T> {
    told.sort_unstable_by(|a, b| b.cmp(a));
    let needed = usable.clamp(1, 2);
    told.into_iter().nth(needed - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_must_say_the_same_where_two_are_usable() {
        assert_eq!(agreed(&["a"], 3), None);
        assert_eq!(agreed(&["lie", "a"], 3), None);
        assert_eq!(agreed(&["lie", "a", "a"], 3), Some(&"a"));
        assert_eq!(agreed(&["a", "lie"], 2), None);
    }

    #[test]
    fn the_only_usable_nodes_word_counts() {
        assert_eq!(agreed(&["a"], 1), Some(&"a"));
        assert_eq!(reached(vec![7], 1), Some(7));
        assert_eq!((agreed::<u8>(&[], 0), reached::<u8>(vec![], 0)), (None, None));
    }

    #[test]
    fn one_node_moves_no_height_up_or_down() {
        assert_eq!(reached(vec![36, 35, 1_000_000], 3), Some(36));
        assert_eq!(reached(vec![36, 0, 35], 3), Some(35));
        assert_eq!(reached(vec![1_000_000], 3), None, "the others are silent");
    }
}
