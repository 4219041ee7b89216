//! The short forms of faults, for command lines and control routes.

use serde::de::DeserializeOwned;
use serde_json::{from_value, json};

use super::{Fault, FaultError, Store};

impl Fault {
    /// Reads the short forms `down`, `lag` + `10`, `cut-answer` + `eth_call,eth_getLogs`,
    /// `http-status` + `503,eth_call`, `pruned` + `16,states,blobs`, `depth` + `128,geth,state`,
    /// `tells` + `eth_gasPrice=null`.
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
                let what = list[1..].iter().map(|name| word::<Store>(name)).collect::<Result<Vec<_>, _>>()?;
                Self::pruned(slots, &what)
            }
            "depth" => {
                let blocks = list.first().and_then(|text| text.parse().ok());
                let blocks =
                    blocks.ok_or_else(|| FaultError("depth needs a number of blocks: depth/128".to_owned()))?;
                let program = list.get(1).map_or_else(|| Ok(Default::default()), |name| word(name))?;
                let what = list.iter().skip(2).map(|name| word(name)).collect::<Result<_, _>>()?;
                Self::Depth { blocks, program, what }
            }
            "credits" => {
                let numbers = list.iter().map(|text| text.parse()).collect::<Result<Vec<u64>, _>>().unwrap_or_default();
                match numbers[..] {
                    [per_second, burst] => Self::credits(per_second, burst, None),
                    [per_second, burst, retry_after] => Self::credits(per_second, burst, Some(retry_after)),
                    _ => {
                        let needs =
                            "credits needs those of a second and those at once: credits/50,50 or credits/50,50,1";
                        return Err(FaultError(needs.to_owned()));
                    }
                }
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
                let known = Self::from_json(json!({ "fault": name }).to_string().as_bytes());
                return known.map_err(|FaultError(text)| {
                    let text = text.split(" at line ").next().unwrap_or_default();
                    FaultError(text.replace("unknown variant", "unknown fault").replace('_', "-"))
                });
            }
        };
        Ok(fault)
    }
}

/// Reads one word of a list that is known.
fn word<T: DeserializeOwned>(name: &str) -> Result<T, FaultError> {
    from_value(json!(name)).map_err(|error| FaultError(error.to_string()))
}
