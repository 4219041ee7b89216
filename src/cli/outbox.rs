//! `steadfast outbox …`: the transactions that a running proxy keeps, and orders for them.

mod shown;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    admin::{Admin, Answer},
    block_on, show,
    switch::refusal,
};

/// How long the proxy may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a replay may take: all records are read, and each delivery is written.
const REPLAY: Duration = Duration::from_secs(300);

/// The transactions that a running proxy keeps.
#[derive(Subcommand)]
pub(super) enum Outbox {
    /// List transactions, a page at a time.
    List(List),
    /// Show all that is known of a transaction: its states with times, nodes and blocks.
    Show(One),
    /// Send a transaction now, to the nodes of `outbox.send_to` that do not rest.
    ///
    /// Only a transaction that no block has can be sent again. The next sendings follow as without
    /// this command.
    Resend(One),
    /// Stop sending a transaction. This cannot unsend the transaction.
    ///
    /// A node that has the transaction may still see to its mining. Only another transaction of the
    /// same sender and nonce that is mined first rules that out.
    Cancel(One),
    /// Drop the record of a transaction whose life is over. The same bytes can then be sent anew.
    Drop(One),
    /// List deliveries to webhooks that were given up, or take them out of quarantine.
    Quarantine(Quarantine),
    /// Deliver events of transactions in blocks from a height on to webhooks once more.
    ///
    /// Without --yes the deliveries are only counted. Each has its old id, by which receivers drop
    /// repeats.
    Replay(Replay),
}

/// Which transactions are listed.
#[derive(Args)]
pub(super) struct List {
    /// Only of this network.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Only of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only in these states.
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<String>,
    #[command(flatten)]
    page: Page,
}

/// A page of a list.
#[derive(Args)]
struct Page {
    /// As many at most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Behind this place, which the last line of the page before names.
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    /// Print everything that is known as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

/// A transaction.
#[derive(Args)]
pub(super) struct One {
    /// The transaction's hash.
    #[arg(value_name = "HASH")]
    hash: String,
    /// Its network, where several have the hash.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Its tenant, where several have the hash.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Which deliveries.
#[derive(Args)]
pub(super) struct Quarantine {
    /// Only of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Take this delivery out of quarantine: all its attempts begin anew, the first at once.
    #[arg(long, value_name = "DELIVERY", conflicts_with = "retry_all")]
    retry: Option<String>,
    /// Take all of the list out of quarantine.
    #[arg(long)]
    retry_all: bool,
    #[command(flatten)]
    page: Page,
}

/// Events that are delivered once more.
#[derive(Args)]
pub(super) struct Replay {
    /// The first block's height.
    #[arg(long, value_name = "BLOCK")]
    from: u64,
    /// The network, where there are several.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Only of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only to this endpoint.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// As many deliveries at most. All of one transaction go together. [default: 10000, which is
    /// the most]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on behind this place, which a replay that reached its limit names.
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
    /// Deliver. Without this flag the deliveries are only counted.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    admin: Admin,
}

pub(super) fn run(outbox: &Outbox) -> ExitCode {
    let told = match outbox {
        Outbox::List(list) => block_on(list_of(list)),
        Outbox::Show(one) => block_on(show_one(one)),
        Outbox::Resend(one) => block_on(order(one, "resend")),
        Outbox::Cancel(one) => block_on(order(one, "cancel")),
        Outbox::Drop(one) => block_on(order(one, "drop")),
        Outbox::Quarantine(of) => block_on(quarantine(of)),
        Outbox::Replay(replay) => block_on(replay_of(replay)),
    };
    match told {
        Ok(Ok(text)) => {
            show(text);
            ExitCode::SUCCESS
        }
        Ok(Err(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}

/// A path with these parameters, those without a value left out.
fn path(path: &str, parameters: &[(&str, Option<&str>)]) -> Result<String, String> {
    let mut url = path.to_owned();
    for (name, value) in parameters.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/@,".contains(c);
        if !value.chars().all(is_plain) {
            return Err(format!("{value:?} is no {name}: those are letters, digits, `.`, `_` and `-`"));
        }
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&format!("{name}={value}"));
    }
    Ok(url)
}

/// The answer as JSON, with its text; or why there is none.
fn read(answer: Result<Answer, String>) -> Result<(Value, String), String> {
    let answer = answer?;
    if answer.status.is_success() { Ok((answer.json(), answer.body)) } else { Err(refusal(&answer)) }
}

async fn list_of(List { network, tenant, state, page }: &List) -> Result<String, String> {
    let Page { limit, after, json, admin } = page;
    let (states, limit) = (state.join(","), limit.to_string());
    let path = path(
        "/outbox",
        &[
            ("network", network.as_deref()),
            ("tenant", tenant.as_deref()),
            ("state", Some(&*states).filter(|states| !states.is_empty())),
            ("after", after.as_deref()),
            ("limit", Some(&limit)),
        ],
    )?;
    let (list, text) = read(admin.get(&path, TIMEOUT).await)?;
    Ok(if *json { text } else { shown::list(&list) })
}

/// The path of a transaction, or of an order for the transaction.
fn path_of(One { hash, network, tenant, .. }: &One, behind: &str) -> Result<String, String> {
    let is_hash =
        hash.strip_prefix("0x").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if !is_hash {
        return Err(format!("{hash:?} is not a transaction's hash: 0x and 64 hexadecimal digits"));
    }
    path(&format!("/outbox/{hash}{behind}"), &[("network", network.as_deref()), ("tenant", tenant.as_deref())])
}

async fn show_one(one: &One) -> Result<String, String> {
    let (found, text) = read(one.admin.get(&path_of(one, "")?, TIMEOUT).await)?;
    Ok(if one.json { text } else { shown::transactions(&found) })
}

async fn order(one: &One, command: &str) -> Result<String, String> {
    let path = path_of(one, &format!("/{command}"))?;
    let (done, text) = read(one.admin.post(&path, TIMEOUT).await)?;
    Ok(if one.json { text } else { shown::done(&done) })
}

async fn quarantine(of: &Quarantine) -> Result<String, String> {
    let Quarantine { tenant, retry, retry_all, page: Page { limit, after, json, admin } } = of;
    if let Some(delivery) = retry {
        let (done, text) = retry_one(admin, delivery, tenant.as_deref()).await?;
        return Ok(if *json { text } else { shown::retried(&done) });
    }
    let (mut after, page) = (after.clone(), limit.to_string());
    let (mut retried, mut refused, mut broken) = (Vec::new(), Vec::new(), None);
    'pages: loop {
        let parameters = [("tenant", tenant.as_deref()), ("after", after.as_deref()), ("limit", Some(&*page))];
        let (list, _) = match read(admin.get(&path("/outbox/quarantine", &parameters)?, TIMEOUT).await) {
            Ok(read) if !retry_all => return Ok(if *json { read.1 } else { shown::quarantine(&read.0) }),
            Ok(read) => read,
            Err(why) => {
                broken = Some(why);
                break;
            }
        };
        for delivery in list["deliveries"].as_array().into_iter().flatten() {
            let (id, tenant) = (delivery["id"].as_str().unwrap_or_default(), delivery["tenant"].as_str());
            match admin.post(&path_of_retry(id, tenant)?, TIMEOUT).await {
                Ok(answer) if answer.status.is_success() => retried.push(answer.json()),
                // As where its endpoint is gone. The delivery holds up no other.
                Ok(answer) => refused.push(refusal(&answer)),
                // The proxy does not answer.
                Err(why) => {
                    broken = Some(why);
                    break 'pages;
                }
            }
            if retried.len() >= *limit {
                break 'pages;
            }
        }
        after = list["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    show(shown::all_retried(retried, refused.is_empty() && broken.is_none(), *json));
    match (broken, refused.is_empty()) {
        (Some(why), _) => Err(why),
        (None, true) => Ok(String::new()),
        (None, false) => Err(shown::not_retried(&refused)),
    }
}

/// The path that takes a delivery out of quarantine.
fn path_of_retry(delivery: &str, tenant: Option<&str>) -> Result<String, String> {
    // The delivery is a part of the path, and as plain as a parameter.
    path("", &[("delivery", Some(delivery))])?;
    path(&format!("/outbox/quarantine/{delivery}/retry"), &[("tenant", tenant)])
}

/// The answer as JSON, with its text.
async fn retry_one(admin: &Admin, delivery: &str, tenant: Option<&str>) -> Result<(Value, String), String> {
    read(admin.post(&path_of_retry(delivery, tenant)?, TIMEOUT).await)
}

async fn replay_of(replay: &Replay) -> Result<String, String> {
    let Replay { from, network, tenant, endpoint, limit, after, yes, admin } = replay;
    let (from, limit) = (from.to_string(), limit.map(|limit| limit.to_string()));
    let path = path(
        "/outbox/replay",
        &[
            ("from", Some(&from)),
            ("network", network.as_deref()),
            ("tenant", tenant.as_deref()),
            ("endpoint", endpoint.as_deref()),
            ("limit", limit.as_deref()),
            ("after", after.as_deref()),
            ("yes", yes.then_some("1")),
        ],
    )?;
    let (done, _) = read(admin.post(&path, REPLAY).await)?;
    Ok(shown::replay(&done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_only_what_was_named() {
        assert_eq!(path("/outbox", &[("a", None), ("b", Some("x")), ("c", Some("y/z"))]).unwrap(), "/outbox?b=x&c=y/z");
        assert!(path("/outbox", &[("tenant", Some("a&yes=1"))]).is_err(), "a value must not bring a parameter");
    }
}
