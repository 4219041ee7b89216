//! Facts about a node that answers: its software, the ages of its state and its blocks, and the
//! groups of methods that not every node has.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    domain::layer::Layer,
    pool::{
        ask::{self, NodeRefusal},
        health::Trouble,
        node::Node,
        own_question::OwnQuestion,
        probe::software,
    },
};

/// The longest survey of one node. Findings that are not in by then are told as unknown.
const SURVEY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes: a block with many transactions' hashes.
const MAX_ANSWER: usize = 4 << 20;

/// Methods that a node may lack, each with its group. The calls have no params: a node that has the
/// method complains of the params.
const GROUPS: [(&str, &str); 6] = [
    ("debug_traceTransaction", "debug_trace*"),
    ("trace_block", "trace_*"),
    ("txpool_status", "txpool_*"),
    ("eth_getProof", "eth_getProof"),
    ("eth_getBlockReceipts", "eth_getBlockReceipts"),
    ("eth_simulateV1", "eth_simulateV1"),
];

/// The findings about one node, in words; empty where nothing was found.
#[derive(Default)]
pub(super) struct Survey {
    software: String,
    state: String,
    blocks: String,
    offers: String,
}

impl Survey {
    /// The cells of the node's line.
    pub(super) fn cells(&self, network: String, node: String) -> Vec<String> {
        let told = |text: &String| if text.is_empty() { "not told".to_owned() } else { text.clone() };
        vec![network, node, told(&self.software), told(&self.state), told(&self.blocks), told(&self.offers)]
    }
}

/// Asks `node`, whose head is at `head`.
pub(super) async fn survey(node: &Node, layer: Layer, head: u64) -> Survey {
    let mut survey = Survey::default();
    // Findings that came in time stay.
    let _ = timeout(SURVEY_TIMEOUT, fill(&mut survey, node, layer, head)).await;
    survey
}

async fn fill(survey: &mut Survey, node: &Node, layer: Layer, head: u64) {
    survey.software = software(node, layer).await.unwrap_or_default();
    if layer == Layer::Cl {
        return;
    }
    let mut offers = Vec::new();
    for (method, group) in GROUPS {
        match ask(node, method, "[]").await {
            Ok(Ok(_)) => offers.push(group),
            Ok(Err(refused)) if refused.is_offered => offers.push(group),
            _ => {}
        }
    }
    survey.offers = offers.join(", ");
    survey.blocks = oldest(head, async |block| {
        let params = format!(r#"["{block:#x}",false]"#);
        matches!(ask(node, "eth_getBlockByNumber", &params).await, Ok(Ok(told)) if *told != *b"null")
    })
    .await;
    survey.state = oldest(head, async |block| {
        let params = format!(r#"["0x0000000000000000000000000000000000000000","{block:#x}"]"#);
        matches!(ask(node, "eth_getBalance", &params).await, Ok(Ok(_)))
    })
    .await;
}

/// The time for all questions is limited together.
async fn ask(node: &Node, method: &str, params: &str) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
    ask::ask(OwnQuestion::new(None, None), node, method, params, MAX_ANSWER).await
}

/// The oldest block that `has` holds for, in words. A node that prunes keeps the latest blocks, so
/// `has` holds for all later blocks too. The search is by halves.
async fn oldest(head: u64, has: impl AsyncFn(u64) -> bool) -> String {
    // Block 0 is kept also by nodes that keep none of its successors.
    let first = 1.min(head);
    if has(first).await {
        return "the first".to_owned();
    }
    if !has(head).await {
        return String::new();
    }
    let (mut without, mut with) = (first, head);
    while with - without > 1 {
        let middle = without + (with - without) / 2;
        match has(middle).await {
            true => with = middle,
            false => without = middle,
        }
    }
    format!("{with} ({} back)", head - with)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_block_is_found_by_halves() {
        let asked = std::cell::Cell::new(0);
        let since = |from: u64| {
            let asked = &asked;
            async move |block: u64| {
                asked.set(asked.get() + 1);
                block >= from
            }
        };
        assert_eq!(oldest(1_000_000, since(999_872)).await, "999872 (128 back)");
        assert!(asked.get() <= 23, "{} questions", asked.get());
        assert_eq!(oldest(1_000_000, since(0)).await, "the first");
        assert_eq!(oldest(0, since(0)).await, "the first");
        assert_eq!(oldest(9, since(2)).await, "2 (7 back)");
        assert_eq!(oldest(9, since(9)).await, "9 (0 back)");
        assert_eq!(oldest(9, since(10)).await, "", "a node that tells nothing has no oldest");
    }
}
