//! `POST /outbox/replay`: delivers events of blocks from a height on to endpoints once more.
//! Without `yes=1` the deliveries are only counted.

use serde_json::json;

use super::{
    Outcome, Query, Refusal, only_network,
    told::{place, place_of},
};
use crate::outbox::{
    Outbox,
    operator::{MOST_REPLAYED, Replay, ReplayError, Replayed},
};
use http::StatusCode;

pub(super) async fn answer(outbox: &Outbox, query: Option<&str>) -> Outcome {
    let query = Query::read(query, &["from", "network", "tenant", "endpoint", "after", "limit", "yes"])?;
    let from = query.get("from").ok_or_else(|| Refusal::bad("say from which block by from="))?;
    let from = from.parse().map_err(|_| Refusal::bad(format!("from={from} is no number of a block")))?;
    let wish = Replay {
        network: only_network(outbox, query.network())?,
        tenant: query.tenant()?,
        from,
        endpoint: query.get("endpoint").map(str::to_owned),
        after: query.get("after").map(place_of).transpose()?,
        limit: query.limit(MOST_REPLAYED, MOST_REPLAYED)?,
        is_dry: !query.is_set("yes")?,
    };
    let Replayed { deliveries, records, next } = outbox.replay(&wish).await.map_err(|error| match error {
        ReplayError::Store(error) => error.into(),
        error => Refusal(StatusCode::NOT_FOUND, error.to_string()),
    })?;
    Ok(json!({
        "dry": wish.is_dry, "network": wish.network.as_str(), "from": wish.from, "endpoint": wish.endpoint,
        "transactions": records, "deliveries": deliveries, "limit": wish.limit, "more": next.is_some(),
        "next": next.as_ref().map(place),
    }))
}
