//! A request to one node for a block's logs.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    super::log::{Asked, NodeLogs},
    forms::Form,
};
use crate::{
    chain::Block,
    domain::{block::BlockRef, node_id::NodeId},
    pool::{Pool, health::Fault},
};

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 32 << 20;

/// A request to `node` for the logs of `block`.
pub(super) struct Question<'a> {
    pub(super) pool: &'a Pool,
    pub(super) node: NodeId,
    pub(super) block: &'a Block,
    /// The members of the filter object that select the wanted logs, each with a comma before it;
    /// `None` if they would select all.
    pub(super) union: Option<String>,
    /// How long the node may take.
    pub(super) limit: Duration,
}

/// Why a node gave no logs.
pub(super) enum Lack {
    /// The node answers `null`, which may mean that there are none or that the block is unknown.
    Empty,
    /// The request does not exist in this form.
    Inapplicable,
    /// The node answers, but does not give the logs.
    Refused(String),
    /// No answer came.
    Away(String),
}

impl Question<'_> {
    pub(super) async fn ask(&self, form: Form) -> Result<NodeLogs, Lack> {
        let union = match (form, &self.union) {
            (Form::HashUnion | Form::HeightUnion, None) => return Err(Lack::Inapplicable),
            (Form::HashUnion | Form::HeightUnion, Some(union)) => union,
            (Form::Hash | Form::Height | Form::Receipts, _) => "",
        };
        match form {
            Form::Hash | Form::HashUnion => self.by_hash(union).await,
            Form::Height | Form::HeightUnion => self.by_height(union).await,
            Form::Receipts => self.receipts().await,
        }
    }

    async fn by_hash(&self, union: &str) -> Result<NodeLogs, Lack> {
        let params = format!(r#"[{{"blockHash":"{}"{union}}}]"#, self.block.hash);
        self.read(&self.call("eth_getLogs", &params).await?, Asked::ByHash)
    }

    async fn by_height(&self, union: &str) -> Result<NodeLogs, Lack> {
        let height = format!("{:#x}", self.block.number);
        let params = format!(r#"[{{"fromBlock":"{height}","toBlock":"{height}"{union}}}]"#);
        let logs = async || self.read(&self.call("eth_getLogs", &params).await?, Asked::ByHeight);
        let told = logs().await?;
        if !told.logs.is_empty() {
            return Ok(told);
        }
        // No logs at that height are no logs of this block only if the node held the block to be
        // canonical before and after the answer.
        self.stands(&height).await?;
        let told = logs().await?;
        self.stands(&height).await?;
        Ok(told)
    }

    /// Whether the block is canonical to the node.
    async fn stands(&self, height: &str) -> Result<(), Lack> {
        let header = self.call("eth_getBlockByNumber", &format!(r#"["{height}",false]"#)).await?;
        let block = BlockRef::read(&header).map_err(Lack::Refused)?;
        let is_it = block.hash.parse() == Ok(self.block.hash);
        is_it.then_some(()).ok_or_else(|| Lack::Refused("to the node the block is not canonical".to_owned()))
    }

    async fn receipts(&self) -> Result<NodeLogs, Lack> {
        let json = self.call("eth_getBlockReceipts", &format!(r#"["{}"]"#, self.block.hash)).await?;
        if &json[..] == b"null" {
            return Err(Lack::Refused("eth_getBlockReceipts: the node does not have the block".to_owned()));
        }
        let told = NodeLogs::read_receipts(&json, self.block.hash, Asked::ByHash);
        told.map_err(|why| Lack::Refused(format!("eth_getBlockReceipts: {why}")))
    }

    fn read(&self, json: &Bytes, asked: Asked) -> Result<NodeLogs, Lack> {
        if &json[..] == b"null" {
            return Err(Lack::Empty);
        }
        NodeLogs::read(json, self.block.hash, asked).map_err(|why| Lack::Refused(format!("eth_getLogs: {why}")))
    }

    async fn call(&self, method: &str, params: &str) -> Result<Bytes, Lack> {
        let node = &self.pool.nodes[self.node];
        let out = node.goes_out();
        if node.is_out() {
            return Err(Lack::Away("the node is out".to_owned()));
        }
        // Both arms are cancel-safe.
        let answer = tokio::select! {
            biased;
            answer = self.pool.ask_watched(self.node, method, params, MAX_ANSWER, self.limit) => answer,
            () = out => return Err(Lack::Away("the node went out".to_owned())),
        };
        match answer {
            Ok(answer) => {
                node.traffic.touch(Instant::now());
                answer.map_err(|refused| Lack::Refused(refused.text))
            }
            // A malformed answer still shows that the node is alive.
            Err(trouble) if trouble.fault == Fault::Failing => {
                node.traffic.touch(Instant::now());
                Err(Lack::Refused(trouble.text))
            }
            Err(trouble) => Err(Lack::Away(trouble.text)),
        }
    }
}
