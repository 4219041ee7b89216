//! The outbox in the way of calls: takes transactions in, and tells of them.

use std::{borrow::Cow, sync::Arc};

use alloy_consensus::{EthereumTxEnvelope, Transaction as _, TxEip4844Variant};
use alloy_eips::{eip2718::Decodable2718 as _, eip7594::BlobTransactionSidecarVariant};
use alloy_primitives::{Address, B256, Bytes as HexBytes, U64, U256};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    desk::NotDone,
    handle::{Incoming, NotAccepted, Outbox},
    record::{Network, State, TenantName, TxId},
    status::{Status, Step},
    store::StoreError,
};
use crate::{
    call::{
        answer::Answer,
        outbox_calls::{Asker, Tenant, TransactionKeeper},
    },
    domain::{hex, refusal::Refusal, rpc::Request},
    exchange::trace::value_of,
    net::BoxFuture,
};

/// Transitions that may wait for one subscriber's client.
const SUBSCRIBER_BACKLOG: usize = 16;

/// Keeps the transactions of one network's clients.
pub(super) struct Keeper {
    outbox: Outbox,
    network: Network,
}

impl Keeper {
    pub(super) fn new(outbox: Outbox, network: Network) -> Self {
        Self { outbox, network }
    }

    /// The tenant whose name a header gave. Without such a header all is the default tenant's.
    fn tenant(&self, tenant: Tenant<'_>) -> Result<TenantName, Refusal> {
        let Some(value) = tenant else { return Ok(TenantName::default()) };
        let settings = self.outbox.settings();
        let header = settings.tenant_header.as_ref().map_or("", |name| name.as_str());
        let name = std::str::from_utf8(value).ok().and_then(|name| name.parse().ok());
        name.ok_or_else(|| Refusal::NotKept {
            code: -32602,
            message: format!("{header}: {}", super::id::NotATenant),
            reason: "invalid_tenant",
        })
    }

    fn id(&self, hash: B256, tenant: Tenant<'_>) -> Result<TxId, Refusal> {
        Ok(TxId { tenant: self.tenant(tenant)?, network: self.network.clone(), hash })
    }

    async fn accept(&self, request: &Request<'_>, asker: Asker<'_>) -> Result<Answer, Refusal> {
        let tenant = self.tenant(asker.tenant)?;
        let text =
            request.text_param(0).ok_or_else(|| Refusal::Params("missing value for required argument 0".into()))?;
        // The call may be over while its transaction waits for the disk.
        let mut claim = asker.memory.beside().standing();
        claim.resize(text.len() / 2)?;
        let raw = hex::bytes(&text).ok_or_else(|| Refusal::Params("invalid argument 0: no hex string".into()))?;
        // The door lets no longer value pass than `MAX_TRACE`.
        let name = |name: &str| value_of(asker.headers, name).map(|value| String::from_utf8_lossy(value).into_owned());
        let incoming = Incoming {
            tenant,
            raw: Bytes::from(raw),
            request_id: name("x-request-id"),
            traceparent: name("traceparent"),
        };
        match self.outbox.accept(&self.network, incoming, claim).await {
            Ok(hash) => Ok(Answer::made(&format!("\"{hash}\""))),
            Err(NotAccepted::GoingDown) => Err(Refusal::ShuttingDown),
            Err(NotAccepted::NotDone(why)) => Err(not_done(&why)),
            Err(NotAccepted::NotATransaction(why)) => {
                Err(Refusal::NotKept { code: why.code(), message: why.to_string(), reason: why.reason() })
            }
        }
    }
}

impl TransactionKeeper for Keeper {
    fn send<'a>(&'a self, request: &'a Request<'a>, asker: Asker<'a>) -> BoxFuture<'a, Result<Answer, Refusal>> {
        Box::pin(self.accept(request, asker))
    }

    fn status(&self, request: &Request<'_>, tenant: Tenant<'_>) -> Result<Answer, Refusal> {
        let wrong = || Refusal::Params("invalid argument 0: expected a transaction's hash".into());
        let hash = request.text_param(0).and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        let status: Option<Status> = self.outbox.status(&self.id(hash, tenant)?).map_err(unreadable)?;
        let text = serde_json::to_string(&status).expect("the fields are texts and numbers");
        Ok(Answer::made(&text))
    }

    fn pending(&self, request: &Request<'_>, tenant: Tenant<'_>) -> Option<Answer> {
        let hash = request.text_param(0)?.parse().ok()?;
        let id = self.id(hash, tenant).ok()?;
        let record = self.outbox.record(&id).ok()??;
        // The node may be behind the block that has it. One that says null of a final block may
        // have pruned it.
        let is_mined = matches!(record.state, State::Mined { .. } | State::Confirmed { .. });
        if !record.state.is_pending() && !is_mined {
            return None;
        }
        let raw = self.outbox.raw(&id).ok()??;
        Some(Answer::made(&shown(&raw, record.sender.to_string().into())?))
    }

    fn next_nonce<'a>(&'a self, sender: Address, count: u64, tenant: Tenant<'a>) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async move { self.outbox.next_nonce(&self.network, self.tenant(tenant).ok()?, sender, count).await })
    }

    fn watch(&self, hash: B256, tenant: Tenant<'_>) -> Result<mpsc::Receiver<Arc<str>>, Refusal> {
        let id = self.id(hash, tenant)?;
        let unknown = || not_done(&NotDone::Unknown);
        let mut watch = self.outbox.watch(&id).map_err(unreadable)?.ok_or_else(unknown)?;
        let (told, transitions) = mpsc::channel(SUBSCRIBER_BACKLOG);
        // Ends when the subscriber leaves, or has not kept up.
        tokio::spawn(async move {
            loop {
                // Both arms are cancel-safe.
                let transition = tokio::select! {
                    transition = watch.next() => transition,
                    () = told.closed() => return,
                };
                let Some(transition) = transition else { return };
                let text = serde_json::to_string(&Step::from(&transition)).expect("the fields are texts and numbers");
                if told.send(text.into()).await.is_err() {
                    return;
                }
            }
        });
        Ok(transitions)
    }
}

fn unreadable(error: StoreError) -> Refusal {
    tracing::warn!(%error, "the outbox cannot be read");
    not_done(&NotDone::Unwritable)
}

fn not_done(why: &NotDone) -> Refusal {
    Refusal::NotKept {
        code: i32::try_from(why.code()).unwrap_or(-32000),
        message: why.to_string(),
        reason: why.reason(),
    }
}

/// The transaction as nodes show one that waits for a block.
fn shown(raw: &[u8], from: Cow<'_, str>) -> Option<String> {
    type Envelope = EthereumTxEnvelope<TxEip4844Variant<BlobTransactionSidecarVariant>>;
    let envelope = Envelope::decode_2718_exact(raw).ok()?;
    let signature = envelope.signature();
    let kind = alloy_consensus::Typed2718::ty(&envelope);
    let y_parity = u64::from(signature.v());
    let v = match (kind, envelope.chain_id()) {
        (0, Some(chain)) => chain.saturating_mul(2).saturating_add(35 + y_parity),
        (0, None) => 27 + y_parity,
        _ => y_parity,
    };
    let number = |number: u64| U64::from(number);
    let mut shown = json!({
        "blockHash": null,
        "blockNumber": null,
        "transactionIndex": null,
        "hash": envelope.tx_hash(),
        "type": number(kind.into()),
        "from": from,
        "to": envelope.to(),
        "nonce": number(envelope.nonce()),
        "value": envelope.value(),
        "gas": number(envelope.gas_limit()),
        "gasPrice": U256::from(envelope.max_fee_per_gas()),
        "input": HexBytes::copy_from_slice(envelope.input()),
        "v": number(v),
        "r": signature.r(),
        "s": signature.s(),
    });
    if let Some(chain) = envelope.chain_id() {
        shown["chainId"] = json!(number(chain));
    }
    if kind != 0 {
        shown["yParity"] = json!(number(y_parity));
    }
    if let Some(list) = envelope.access_list() {
        let item = |item: &alloy_eips::eip2930::AccessListItem| json!({ "address": item.address, "storageKeys": item.storage_keys });
        shown["accessList"] = list.iter().map(item).collect();
    }
    if let Some(fee) = envelope.max_priority_fee_per_gas() {
        shown["maxFeePerGas"] = json!(U256::from(envelope.max_fee_per_gas()));
        shown["maxPriorityFeePerGas"] = json!(U256::from(fee));
    }
    if let Some(fee) = envelope.max_fee_per_blob_gas() {
        shown["maxFeePerBlobGas"] = json!(U256::from(fee));
        shown["blobVersionedHashes"] = json!(envelope.blob_versioned_hashes());
    }
    if let Some(list) = envelope.authorization_list() {
        let item = |item: &alloy_eips::eip7702::SignedAuthorization| {
            json!({
                "chainId": item.chain_id,
                "address": item.address,
                "nonce": number(item.nonce),
                "yParity": number(item.y_parity().into()),
                "r": item.r(),
                "s": item.s(),
            })
        };
        shown["authorizationList"] = list.iter().map(item).collect();
    }
    serde_json::to_string(&shown).ok()
}
