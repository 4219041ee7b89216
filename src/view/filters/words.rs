//! Reads the params of calls about filters. Errors are in go-ethereum's words, but for values of
//! another type and for params that are too long (decision 0007).

use serde_json::value::RawValue;

use crate::{
    domain::{refusal::Refusal, rpc::Request},
    view::{SubscriptionId, params},
};

/// Bytes of the params of one call, at most. Reading them takes several times as many for a moment.
const MOST_PARAMS: usize = 1 << 20;

/// The arguments of a call that takes at most `most`.
pub(super) fn arguments<'a>(request: &Request<'a>, most: usize) -> Result<Vec<&'a RawValue>, Refusal> {
    let params = request.params.unwrap_or(b"[]");
    if params.len() > MOST_PARAMS {
        return Err(Refusal::Limit { name: "filter_params", limit: MOST_PARAMS });
    }
    let list: Option<Vec<&RawValue>> = match params {
        b"null" => None,
        params => Some(serde_json::from_slice(params).map_err(|_| Refusal::Params("non-array args".to_owned()))?),
    };
    let list = list.unwrap_or_default();
    if list.len() > most {
        return Err(Refusal::Params(format!("too many arguments, want at most {most}")));
    }
    Ok(list)
}

/// The first argument, which must be there. Null is there: go-ethereum takes null for an empty
/// filter object, and for an empty id.
pub(super) fn first<'a>(request: &Request<'a>) -> Result<&'a RawValue, Refusal> {
    let given = arguments(request, 1)?.into_iter().next();
    given.ok_or_else(|| Refusal::Params("missing value for required argument 0".to_owned()))
}

/// The id that a call names; `None` when the text is no id of a filter.
pub(super) fn id(request: &Request<'_>) -> Result<Option<SubscriptionId>, Refusal> {
    let given = first(request)?.get();
    if given == "null" {
        return Ok(None);
    }
    let text = params::text(given).ok_or_else(|| {
        Refusal::Params(format!("invalid argument 0: filter id: expected a string, not {}", params::kind(given)))
    })?;
    Ok(SubscriptionId::read(&text))
}

/// Whether whole transactions are asked for, and not their hashes.
pub(super) fn is_full(request: &Request<'_>) -> Result<bool, Refusal> {
    let given = arguments(request, 1)?.into_iter().next();
    match given.map_or("null", RawValue::get) {
        "null" | "false" => Ok(false),
        "true" => Ok(true),
        other => Err(Refusal::Params(format!(
            "invalid argument 0: whole transactions or their hashes: expected a boolean, not {}",
            params::kind(other)
        ))),
    }
}
