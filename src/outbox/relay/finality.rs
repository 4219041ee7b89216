//! The newest final block, as the nodes tell it.
//!
//! Rule: the highest block counts that two usable nodes call final. Where every usable node answers
//! and none tells a final block, a block [`DEEP_ENOUGH`] below the newest counts as final. In all
//! other cases nothing new is final.
//!
//! Reason: a chain without finality needs an end of lives, or the outbox fills. A chain whose
//! finality stalls has one, and its nodes say so: a block deep below the newest can still go there.
//!
//! Examples, with the newest block at 5,000:
//! - n0 and n1 say "finalized block not found": 3,976 is final.
//! - n0 says that block 100 is final, and n1 does not answer in time: nothing new is final.
//! - n0 knows no final block since its restart, and n1 says block 100: nothing new is final.

use std::time::Duration;

use alloy_primitives::B256;
use futures_util::future::join_all;

use super::voices;
use crate::{
    call::Calls,
    domain::{block::BlockRef, node_id::NodeId},
    outbox::{desk::Final, record::BlockId},
};

/// How long a node may take to tell the final block.
const FINAL_LIMIT: Duration = Duration::from_secs(2);
/// The longest answer with a header.
const MAX_HEADER: usize = 4 << 20;
/// Blocks behind the newest that count as final on chains whose nodes tell no final block.
const DEEP_ENOUGH: u64 = 1024;

/// Codes of a node that does not know the tag `finalized`, or has no final block: invalid
/// parameters, the general error of many nodes, and an unknown block.
const NO_FINAL_BLOCK: [i64; 3] = [-32602, -32000, -39001];

/// A node's answer to the question for the final block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalAnswer {
    /// This block is final.
    Block(BlockId),
    /// The node knows no final block.
    NoBlock,
    /// No answer came in time, or one that says nothing about final blocks.
    Silent,
}

/// The newest final block below `tip`, as the usable nodes tell it.
pub(super) async fn newest_final(calls: &Calls, tip: Option<u64>) -> Option<Final> {
    // Where there are idle nodes, there are others that are up.
    let nodes: Vec<_> = calls.usable_nodes().into_iter().filter(|node| !calls.pool().is_idle(*node)).collect();
    let answers = join_all(nodes.iter().map(|node| ask(calls, *node))).await;
    let head = calls.pool().snapshot().head;
    of_answers(&answers, head, tip)
}

/// The newest final block by these answers, one of each usable node, if `head` has reached it too.
fn of_answers(answers: &[FinalAnswer], head: Option<u64>, tip: Option<u64>) -> Option<Final> {
    if !answers.is_empty() && answers.iter().all(|answer| *answer == FinalAnswer::NoBlock) {
        return tip?.checked_sub(DEEP_ENOUGH).map(Final::Deep);
    }
    let told = answers.iter().filter_map(|answer| match answer {
        FinalAnswer::Block(block) => Some(*block),
        FinalAnswer::NoBlock | FinalAnswer::Silent => None,
    });
    let block = voices::reached(told.collect(), answers.len())?;
    head.filter(|head| block.number <= *head).map(|_| Final::Told(block))
}

async fn ask(calls: &Calls, node: NodeId) -> FinalAnswer {
    let params = r#"["finalized",false]"#;
    let asked = calls.pool().ask_in_time(node, "eth_getBlockByNumber", params, MAX_HEADER, FINAL_LIMIT);
    match asked.await {
        Ok(Ok(text)) => read(Ok(&text)),
        Ok(Err(refusal)) => read(Err(refusal.code)),
        Err(_) => FinalAnswer::Silent,
    }
}

/// Reads the text of a node's result, or the code of its error.
fn read(answer: Result<&[u8], i64>) -> FinalAnswer {
    match answer {
        Ok(b"null") => FinalAnswer::NoBlock,
        Ok(text) => {
            let block = BlockRef::read(text).ok();
            let block = block.and_then(|block| Some((block.number, block.hash.parse::<B256>().ok()?)));
            block.map_or(FinalAnswer::Silent, |(number, hash)| FinalAnswer::Block(BlockId { number, hash }))
        }
        Err(code) if NO_FINAL_BLOCK.contains(&code) => FinalAnswer::NoBlock,
        Err(_) => FinalAnswer::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64) -> BlockId {
        BlockId { number, hash: B256::repeat_byte(1) }
    }

    #[test]
    fn depth_counts_only_where_no_node_tells_a_final_block() {
        use FinalAnswer::{Block, NoBlock, Silent};
        let deep = Some(Final::Deep(3976));
        for (answers, expected) in [
            (vec![NoBlock], deep),
            (vec![NoBlock, NoBlock, NoBlock], deep),
            (vec![Block(block(100)), Block(block(100))], Some(Final::Told(block(100)))),
            // A stall of finality, with one slow answer.
            (vec![Block(block(100)), Silent], None),
            (vec![Silent, Silent], None),
            (vec![NoBlock, Silent], None),
            // A node that has just started.
            (vec![NoBlock, Block(block(100))], None),
            (vec![NoBlock, Block(block(100)), Block(block(90))], Some(Final::Told(block(90)))),
            (vec![Block(block(9000)), Block(block(9000))], None),
            (vec![], None),
        ] {
            assert_eq!(of_answers(&answers, Some(5000), Some(5000)), expected, "{answers:?}");
        }
        assert_eq!(of_answers(&[NoBlock], Some(1000), Some(1000)), None, "no block is that deep");
    }

    #[test]
    fn an_error_about_the_tag_is_no_final_block() {
        assert_eq!(read(Ok(b"null")), FinalAnswer::NoBlock);
        for (code, expected) in [
            (-32602, FinalAnswer::NoBlock),
            (-32000, FinalAnswer::NoBlock),
            (-39001, FinalAnswer::NoBlock),
            (-32005, FinalAnswer::Silent),
            (429, FinalAnswer::Silent),
        ] {
            assert_eq!(read(Err(code)), expected, "{code}");
        }
        assert_eq!(read(Ok(b"{}")), FinalAnswer::Silent);
        let (hash, parent) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let header = format!(r#"{{"number":"0x64","hash":"{hash}","parentHash":"{parent}","timestamp":"0x1"}}"#);
        assert_eq!(read(Ok(header.as_bytes())), FinalAnswer::Block(block(100)));
    }
}
