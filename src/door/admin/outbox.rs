//! `/outbox` of the admin side: the transactions that are kept for clients, and orders for them.
//!
//! An operator sees the transactions of all tenants. A POST that could be meant for more than one
//! transaction does nothing, and says which there are.

mod query;
mod replay;
mod told;

use alloy_primitives::B256;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use self::query::{Query, unescaped};
use super::{failure, json_reply, unknown};
use crate::outbox::{
    Outbox,
    desk::{Command, NotDone},
    operator::{List, ListFilter},
    record::{Network, Record, TenantName, TxId, WorkId},
    store::StoreError,
    webhook::RetryError,
};

pub(super) use self::told::{Gathered, status};

/// Entries of a list, where the request asks for no other number.
const USUAL_LIMIT: usize = 100;
/// The most entries of a list.
const MOST_LISTED: usize = 1000;

/// An answer, or why there is none.
type Outcome = Result<Value, Refusal>;

/// Why a request is not served.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(why: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, why.into())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// Answers a request for `path`, which is `/outbox`, or a place below.
pub(super) async fn answer(
    outbox: Option<&Outbox>,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Response<Full<Bytes>> {
    let Some(outbox) = outbox else {
        return failure(StatusCode::NOT_FOUND, "this proxy keeps no transactions: its settings have no [outbox]");
    };
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    let is_read = method != Method::POST;
    let outcome = match (is_read, &parts[..]) {
        (true, []) => list(outbox, query).await,
        (true, ["quarantine"]) => quarantine(outbox, query).await,
        (true, [hash]) => show(outbox, hash, query).await,
        (false, ["replay"]) => replay::answer(outbox, query).await,
        (false, ["quarantine", work, "retry"]) => retry(outbox, work, query).await,
        (false, [hash, command @ ("resend" | "cancel" | "drop")]) => order(outbox, hash, command, query).await,
        _ => return unknown(path),
    };
    match outcome {
        Ok(value) => json_reply(StatusCode::OK, &value),
        Err(Refusal(status, why)) => failure(status, &why),
    }
}

async fn list(outbox: &Outbox, query: Option<&str>) -> Outcome {
    let query = Query::read(query, &["network", "tenant", "state", "after", "limit"])?;
    let filter = ListFilter { tenant: query.tenant()?, network: query.network(), states: query.states()? };
    let after = query.get("after").map(told::place_of).transpose()?;
    let List { records, next } = outbox.list(&filter, after.as_ref(), query.limit(USUAL_LIMIT, MOST_LISTED)?).await?;
    let records: Vec<_> = records.iter().map(told::brief).collect();
    Ok(json!({ "transactions": records, "next": next.as_ref().map(told::place) }))
}

async fn show(outbox: &Outbox, hash: &str, query: Option<&str>) -> Outcome {
    let query = Query::read(query, &["network", "tenant"])?;
    let records = find(outbox, hash_of(hash)?, &query).await?;
    Ok(
        json!({ "transactions": records.iter().map(|record| told::whole(record, outbox.owner(record))).collect::<Vec<_>>() }),
    )
}

/// The records of a hash, at least one: each is another tenant's, or another network's.
async fn find(outbox: &Outbox, hash: B256, query: &Query<'_>) -> Result<Vec<Record>, Refusal> {
    let (tenant, network) = (query.tenant()?, query.network());
    let mut found = Vec::new();
    for of in outbox.networks().into_iter().filter(|of| network.as_ref().is_none_or(|wanted| wanted == of)) {
        for owner in outbox.owners(&of, &hash).await? {
            if tenant.as_ref().is_none_or(|wanted| *wanted == owner) {
                found.extend(outbox.record(&TxId { tenant: owner, network: of.clone(), hash })?);
            }
        }
    }
    match found.is_empty() {
        false => Ok(found),
        true => Err(Refusal(StatusCode::NOT_FOUND, format!("the outbox has no transaction {hash}"))),
    }
}

async fn order(outbox: &Outbox, hash: &str, command: &str, query: Option<&str>) -> Outcome {
    let query = Query::read(query, &["network", "tenant"])?;
    let found = find(outbox, hash_of(hash)?, &query).await?;
    let [Record { id, .. }] = &found[..] else {
        let all: Vec<_> = found.iter().map(|record| told::place(&record.id)).collect();
        let why =
            format!("several transactions have this hash: say which by network= and tenant=, of {}", all.join(", "));
        return Err(Refusal(StatusCode::CONFLICT, why));
    };
    let (order, note) = match command {
        "resend" => (Command::Resend, None),
        "cancel" => (Command::Cancel, Some(CANNOT_UNSEND)),
        _ => (Command::Drop, None),
    };
    outbox.command(id, order).await.map_err(|why| refused(&why))?;
    let TxId { tenant, network, hash } = id;
    tracing::info!(command, %network, %tenant, %hash, "the operator gave an order for a transaction");
    Ok(json!({
        "done": command, "network": network.as_str(), "tenant": tenant.as_str(), "hash": hash.to_string(), "note": note,
    }))
}

/// The warning for an operator who cancels.
const CANNOT_UNSEND: &str = "The proxy stops sending. Cancelling cannot unsend: a node that has the transaction may \
                             still see to its mining, and only another transaction of the same nonce that is mined \
                             first rules that out.";

fn refused(why: &NotDone) -> Refusal {
    let status = match why {
        NotDone::Unknown => StatusCode::NOT_FOUND,
        NotDone::Full { .. }
        | NotDone::Untaken { .. }
        | NotDone::DiskFull
        | NotDone::Unwritable
        | NotDone::BucketAway
        | NotDone::WrongClock { .. }
        | NotDone::OtherChain { .. }
        | NotDone::BucketUnsure
        | NotDone::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    Refusal(status, why.to_string())
}

async fn quarantine(outbox: &Outbox, query: Option<&str>) -> Outcome {
    let query = Query::read(query, &["tenant", "after", "limit"])?;
    let limit = query.limit(USUAL_LIMIT, MOST_LISTED)?;
    let after = query.get("after").map(work_place_of).transpose()?;
    let found = outbox.quarantine(query.tenant()?, after, limit).await?;
    let last = found.last().filter(|_| found.len() == limit).map(|last| &last.delivery);
    let next = last.map(|delivery| format!("{}/{}", delivery.tenant, delivery.id));
    Ok(json!({ "deliveries": found.iter().map(told::quarantined).collect::<Vec<_>>(), "next": next }))
}

async fn retry(outbox: &Outbox, work: &str, query: Option<&str>) -> Outcome {
    let query = Query::read(query, &["tenant"])?;
    let (tenant, work) = (query.tenant()?.unwrap_or_default(), WorkId::from(&*unescaped(work)?));
    outbox.retry(&tenant, &work).await.map_err(|error| {
        let status = match error {
            RetryError::NotThere => StatusCode::NOT_FOUND,
            RetryError::NoEndpoint(_) => StatusCode::CONFLICT,
            RetryError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal(status, format!("delivery {work} of tenant {tenant}: {error}"))
    })?;
    tracing::info!(delivery = %work, %tenant, "the operator took a delivery out of quarantine");
    Ok(json!({ "retried": work.as_str(), "tenant": tenant.as_str() }))
}

fn hash_of(text: &str) -> Result<B256, Refusal> {
    text.parse().map_err(|_| Refusal::bad(format!("{text:?} is not a transaction's hash")))
}

/// Where a page of the quarantine ended: `tenant/delivery`.
fn work_place_of(text: &str) -> Result<(TenantName, WorkId), Refusal> {
    let (tenant, work) = text.split_once('/').ok_or_else(|| not_a_place(text))?;
    Ok((tenant.parse().map_err(|_| not_a_place(text))?, work.into()))
}

fn not_a_place(text: &str) -> Refusal {
    Refusal::bad(format!("after={text}: take the `next` of the page before"))
}

/// The network of a request: by its name, or the only network.
fn only_network(outbox: &Outbox, named: Option<Network>) -> Result<Network, Refusal> {
    let all = outbox.networks();
    match (named, &all[..]) {
        (Some(named), _) => Ok(named),
        (None, [one]) => Ok(one.clone()),
        (None, _) => {
            let all: Vec<_> = all.iter().map(Network::as_str).collect();
            Err(Refusal::bad(format!("say which network by network=, of {}", all.join(", "))))
        }
    }
}
