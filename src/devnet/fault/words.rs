//! The short forms of faults, for command lines and control routes.

use super::{Fault, FaultError, Store};

impl Fault {
    /// Reads the short forms `down`, `lag` + `10`, `cut-answer` + `eth_call,eth_getLogs`,
    /// `http-status` + `503,eth_call`, `pruned` + `16,states,blobs`, `tells` + `eth_gasPrice=null`.
    ///
    /// # Errors
    /// When the words name no fault or lack a number; the error says why.
    pub fn from_words(name: &str, argument: Option<&str>) -> Result<Self, FaultError> {
        let name = name.replace('-', "_");
        let number = |what: &str| {
            let text = argument.ok_or_else(|| FaultError(format!("{name} needs a number of {what}: {name}/10")))?;
            text.parse::<u64>().map_err(|_| FaultError(format!("{text:?} is not a number of {what}")))
        };
        let list: Vec<&str> = argument.map_or_else(Vec::new, |list| list.split(',').collect());
        let fault = match name.as_str() {
            "lag" => Self::lag(number("blocks")?),
            "late" => Self::late(number("milliseconds")?),
            "branch" => Self::branch(number("blocks")?),
            "lie" => Self::lie(number("blocks")?),
            "slow" => Self::slow(number("milliseconds")?),
            "max_connections" => Self::max_connections(number("connections")?),
            "logs_limit" => Self::logs_limit(number("logs")?),
            "missing_block" => Self::missing_block(number("a block")?),
            "missing_logs" => Self::missing_logs(number("a block")?),
            "refuse" => {
                let list = argument.ok_or_else(|| FaultError("refuse needs methods: refuse/eth_getLogs".to_owned()))?;
                Self::refuse(&list.split(',').collect::<Vec<_>>())
            }
            "tells" => {
                let parts = argument.and_then(|text| text.split_once('='));
                let read = parts.and_then(|(method, result)| Some((method, serde_json::from_str(result).ok()?)));
                let none = || FaultError("tells needs a method and a result: tells/eth_gasPrice=null".to_owned());
                let (method, result) = read.ok_or_else(none)?;
                Self::tells(method, result)
            }
            "wrong_chain" => Self::wrong_chain(number("the chain")?),
            "network_id" => Self::network_id(number("the network")?),
            "rpc_error" => {
                let code = argument.map_or(Ok(-32000), str::parse);
                let code = code.map_err(|_| FaultError(format!("{argument:?} is not an error code")))?;
                Self::rpc_error(code, "error by order of the devnet")
            }
            "http_status" | "gateway" => {
                let status = list.first().and_then(|text| text.parse().ok()).filter(|status| *status >= 200);
                let status = status.ok_or_else(|| FaultError(format!("{argument:?} is not a status from 200 on")))?;
                let make = if name == "gateway" { Self::gateway } else { Self::http_status };
                make(status, &list[1..])
            }
            "slow_over" => {
                let ms = list.first().and_then(|text| text.parse().ok());
                let ms = ms.ok_or_else(|| FaultError("slow_over needs milliseconds: slow-over/500".to_owned()))?;
                Self::slow_over(ms, &list[1..])
            }
            "hang_over" => Self::hang_over(&list),
            "few_blobs" => Self::few_blobs(argument.map_or(Ok(0), |_| number("blobs"))?),
            "pruned" => {
                let slots = list.first().and_then(|text| text.parse().ok());
                let slots = slots.ok_or_else(|| FaultError("pruned needs a number of slots: pruned/16".to_owned()))?;
                let what = list[1..].iter().map(|name| serde_json::from_value(serde_json::json!(name)));
                let what = what.collect::<Result<Vec<Store>, _>>().map_err(|error| FaultError(error.to_string()))?;
                Self::pruned(slots, &what)
            }
            "alien_id" => Self::alien_id(&list),
            "no_id" => Self::no_id(&list),
            "nulls" => Self::nulls(number("blocks")?),
            "eager" => Self::eager(0, number("notifications")?),
            "rate_limited" => Self::rate_limited(argument.map_or(Ok(1), |_| number("seconds"))?),
            "cut_answer" => Self::cut_answer(&list),
            "quota" => Self::quota(&list),
            "not_offered" => Self::not_offered(&list),
            _ if argument.is_some() => return Err(FaultError(format!("{name} takes no argument"))),
            _ => {
                let known = Self::from_json(serde_json::json!({ "fault": name }).to_string().as_bytes());
                return known.map_err(|FaultError(text)| {
                    let text = text.split(" at line ").next().unwrap_or_default();
                    FaultError(text.replace("unknown variant", "unknown fault").replace('_', "-"))
                });
            }
        };
        Ok(fault)
    }
}
