//! Calls that the pool answers without a node.

use super::{Calls, answer::Answer};
use crate::domain::{method::Method, rpc::Request};

impl Calls {
    /// Answers the chain id and the network id. The answer is ready at once, so no notification of
    /// a WebSocket overtakes it. A call with params goes to a node, which may refuse the params.
    pub(super) fn known(&self, request: &Request<'_>, method: Method) -> Option<Answer> {
        let result = match method.label {
            "eth_chainId" => format!("0x{:x}", self.pool.chain_id()?),
            "net_version" => self.pool.network_id()?.to_string(),
            _ => return None,
        };
        let bare = |params: &[u8]| params.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(b"[]");
        let is_asked = request.id.is_some() && request.params.is_none_or(bare);
        is_asked.then(|| Answer::made(&format!("\"{result}\"")))
    }
}
