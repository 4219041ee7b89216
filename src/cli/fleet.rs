//! `steadfast fleet …`: wishes of the operator for all replicas of a cluster, given to any of
//! these.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{admin::Admin, block_on, show, switch::refusal};
use crate::config;

/// How long the replica may take to answer: the store may be asked several times.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest time that `--wait` takes.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The pause between two looks at the replicas.
const LOOK: Duration = Duration::from_millis(200);

/// Wishes for all replicas of a cluster. The replica that is asked writes the wish, and all apply
/// the wish.
#[derive(Subcommand)]
pub(super) enum Fleet {
    /// Take a node out of use at all replicas: it gets no new calls, and stays probed.
    ///
    /// The wish counts at replicas that start later too, and ends with `steadfast fleet uncordon`.
    /// A replica that the store does not reach keeps the last wish. Exits with 1 if nothing is
    /// wished, or if a replica has not applied the wish after --wait; `steadfast status --fleet`
    /// shows which.
    Cordon(Node),
    /// End the wish for a node. A node stays out of use where a replica's own operator has cordoned
    /// it.
    Uncordon(Node),
    /// Take a node out of use at all replicas, to take it away: it gets no new calls, and those
    /// under way end.
    ///
    /// The same as a cordon, but for the word that `steadfast status --fleet` shows.
    Drain(Node),
    /// Give the logs of all replicas another level.
    ///
    /// The level takes the place of log.filter until `steadfast fleet log --default`.
    Log(Log),
}

/// A node of all replicas.
#[derive(Args)]
pub(super) struct Node {
    /// The node's name, with its network, its side or both before it where several nodes have that
    /// name: base/el/geth-1.
    #[arg(value_name = "NODE")]
    name: String,
    /// The node's network, where several nodes have the name.
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// The node's side, where several nodes have the name.
    #[arg(long, value_name = "LAYER")]
    layer: Option<Layer>,
    #[command(flatten)]
    asked: Asked,
}

/// Execution or consensus.
#[derive(Clone, Copy, ValueEnum)]
enum Layer {
    /// Execution.
    El,
    /// Consensus.
    Cl,
}

/// A level of the log.
#[derive(Args)]
pub(super) struct Log {
    /// The level.
    #[arg(value_name = "LEVEL", required_unless_present = "default", conflicts_with = "default")]
    level: Option<Level>,
    /// End the wish: each replica logs by its own settings again.
    #[arg(long)]
    default: bool,
    #[command(flatten)]
    asked: Asked,
}

/// The least weighty lines that are logged.
#[derive(Clone, Copy, ValueEnum)]
enum Level {
    /// Errors alone.
    Error,
    /// Warnings too.
    Warn,
    /// The usual lines.
    Info,
    /// Lines for debugging too.
    Debug,
    /// All lines.
    Trace,
}

/// The replica that is asked, and the time for all to apply the wish.
#[derive(Args)]
pub(super) struct Asked {
    /// How long to wait until all active replicas have applied the wish, or said why not.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = wait)]
    wait: Duration,
    #[command(flatten)]
    admin: Admin,
}

fn wait(text: &str) -> Result<Duration, String> {
    let time = config::duration(text).map_err(|why| why.to_string())?;
    if time > LONGEST_WAIT {
        return Err("must be 10 minutes at most".to_owned());
    }
    Ok(time)
}

pub(super) fn run(fleet: &Fleet) -> ExitCode {
    let (path, asked) = match fleet {
        Fleet::Cordon(node) => (path(node, "cordon"), &node.asked),
        Fleet::Uncordon(node) => (path(node, "uncordon"), &node.asked),
        Fleet::Drain(node) => (path(node, "drain"), &node.asked),
        Fleet::Log(log) => (Ok(format!("/cluster/wishes/log/{}", level(log))), &log.asked),
    };
    let outcome = match path {
        Ok(path) => block_on(order(&path, asked)),
        Err(why) => Ok(Err(why)),
    };
    match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}

/// The path of an order for a node.
fn path(Node { name, network, layer, .. }: &Node, word: &str) -> Result<String, String> {
    let layer = layer.map(|layer| match layer {
        Layer::El => "el",
        Layer::Cl => "cl",
    });
    let full = [network.as_deref(), layer, Some(&**name)].into_iter().flatten().collect::<Vec<_>>().join("/");
    if full.is_empty() || !full.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c)) {
        return Err("there is no node of such a name: names are letters, digits, `.`, `_` and `-`".to_owned());
    }
    Ok(format!("/cluster/wishes/nodes/{full}/{word}"))
}

fn level(Log { level, .. }: &Log) -> &'static str {
    match level {
        None => "default",
        Some(Level::Error) => "error",
        Some(Level::Warn) => "warn",
        Some(Level::Info) => "info",
        Some(Level::Debug) => "debug",
        Some(Level::Trace) => "trace",
    }
}

/// Gives the order, and waits for the replicas.
async fn order(path: &str, Asked { wait, admin }: &Asked) -> Result<ExitCode, String> {
    let answer = admin.post(path, TIMEOUT).await?;
    let done = answer.json();
    if !answer.status.is_success() || done.get("subject").is_none() {
        return Err(refusal(&answer));
    }
    show(said(&done));
    if wait.is_zero() {
        return Ok(ExitCode::SUCCESS);
    }
    let end = Instant::now() + *wait;
    loop {
        // A replica that does not answer meanwhile is asked again.
        let status = admin.get("/status", TIMEOUT).await;
        let replicas = status.as_ref().ok().and_then(|answer| replicas(&answer.json(), &done));
        let is_over = Instant::now() >= end;
        match replicas {
            Some(replicas) if is_over || replicas.iter().all(Replica::is_settled) => {
                replicas.iter().for_each(|replica| show(format_args!("{}\n", replica.words())));
                let is_met = replicas.iter().all(|replica| replica.is_met);
                return Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            None if is_over => return Err(status.err().unwrap_or_else(|| "the replica has no view yet".to_owned())),
            _ => sleep(LOOK).await,
        }
    }
}

/// The answer to an order in words.
fn said(done: &Value) -> String {
    let subject = done["subject"].as_str().unwrap_or("?");
    let revision = &done["revision"];
    let mut text = match (done["state"].as_str(), done["before"].as_u64()) {
        (Some(state), _) => format!("{subject} is to be {state} at all replicas: revision {revision}\n"),
        (None, Some(before)) => format!("the wish for {subject} has ended: it was revision {before}\n"),
        (None, None) => format!("there was no wish for {subject}\n"),
    };
    let at: Vec<&str> = done["cordoned_at"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if done["state"].is_null() && !at.is_empty() {
        text += &format!(
            "{subject} stays cordoned at {}, by the replica's own operator: `steadfast uncordon` there ends that\n",
            at.join(", ")
        );
    }
    if let Some(warning) = done["warning"].as_str() {
        text += &format!("warning: {warning}\n");
    }
    text
}

/// A replica's way with the wish.
struct Replica {
    name: String,
    is_met: bool,
    last_error: Option<String>,
}

impl Replica {
    /// Whether the replica has applied the wish, or has said why not.
    fn is_settled(&self) -> bool {
        self.is_met || self.last_error.is_some()
    }

    fn words(&self) -> String {
        let Self { name, is_met, last_error } = self;
        match last_error {
            Some(why) => format!("{name}: not applied: {why}"),
            None if *is_met => format!("{name}: applied"),
            None => format!("{name}: not applied yet"),
        }
    }
}

/// The active replicas, each with its way with the wish that `done` has brought about; none where
/// the replica that is asked has no view.
fn replicas(status: &Value, done: &Value) -> Option<Vec<Replica>> {
    let cluster = &status["cluster"];
    let wishes = cluster["wishes"].as_array()?;
    if cluster["view"].is_null() {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let Some(wish) = wishes.iter().find(|wish| wish["subject"] == done["subject"]) else {
        // Nothing is wished any more, and no replica reports the wish.
        let is_met = done["state"].is_null();
        let members = cluster["view"]["members"].as_array().into_iter().flatten();
        let active = members.filter(|member| member["state"] == "active");
        let replica = |member: &Value| Replica { name: text(&member["replica"]), is_met, last_error: None };
        return Some(active.map(replica).collect());
    };
    // The replica that is asked may not have heard of the order yet.
    let is_heard = match done["revision"].as_u64() {
        Some(revision) => wish["revision"].as_u64() >= Some(revision),
        None => wish["revision"] != done["before"],
    };
    let replica = |of: &Value| Replica {
        name: text(&of["replica"]),
        is_met: is_heard && of["met"] == true,
        last_error: of["last_error"]["text"].as_str().filter(|_| is_heard).map(str::to_owned),
    };
    Some(wish["replicas"].as_array().into_iter().flatten().map(replica).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn done(state: Option<&str>, revision: Option<u64>, before: Option<u64>) -> Value {
        json!({
            "subject": "main el geth-2", "state": state, "revision": revision, "before": before,
            "cordoned_at": ["r3"], "warning": null,
        })
    }

    fn lines(wishes: Value, done: &Value) -> Vec<String> {
        let members = json!([{ "replica": "r1", "state": "active" }, { "replica": "r2", "state": "failed" }]);
        let status = json!({ "cluster": { "wishes": wishes, "view": { "number": 1, "members": members } } });
        replicas(&status, done).unwrap().iter().map(Replica::words).collect()
    }

    /// C17: one line for each replica, of the wish that was given and of none before.
    #[test]
    fn each_replica_has_a_line_on_the_wish() {
        let of = |met: bool, error: Option<&str>| json!([{ "replica": "r1", "met": met, "last_error": error.map(|text| json!({ "text": text })) }]);
        let wish = |revision, of: Value| json!([{ "subject": "main el geth-2", "revision": revision, "replicas": of }]);
        let order = done(Some("cordoned"), Some(7), Some(5));
        assert_eq!(lines(wish(7, of(true, None)), &order), ["r1: applied"]);
        assert_eq!(lines(wish(7, of(false, None)), &order), ["r1: not applied yet"]);
        assert_eq!(lines(wish(7, of(false, Some("no node"))), &order), ["r1: not applied: no node"]);
        assert_eq!(lines(wish(5, of(true, None)), &order), ["r1: not applied yet"]);
        assert_eq!(lines(json!([]), &order), ["r1: not applied yet"]);
        let ended = done(None, None, Some(7));
        assert_eq!(lines(wish(7, of(true, None)), &ended), ["r1: not applied yet"]);
        assert_eq!(lines(json!([]), &ended), ["r1: applied"]);
        assert!(replicas(&json!({ "cluster": { "wishes": [], "view": null } }), &ended).is_none());
    }

    #[test]
    fn an_order_is_answered_in_words() {
        let text = said(&done(Some("cordoned"), Some(7), None));
        assert_eq!(text, "main el geth-2 is to be cordoned at all replicas: revision 7\n");
        let text = said(&done(None, None, Some(7)));
        assert!(text.starts_with("the wish for main el geth-2 has ended: it was revision 7\n"), "{text}");
        assert!(text.contains("stays cordoned at r3"), "{text}");
        assert!(said(&done(None, None, None)).starts_with("there was no wish for main el geth-2\n"));
    }

    #[test]
    fn a_node_is_named_with_flags_or_with_slashes() {
        use clap::FromArgMatches;
        let path_of = |words: &[&str]| {
            let words = [&["steadfast", "fleet"], words].concat();
            let matches = crate::cli::built().try_get_matches_from(words).map_err(|error| error.to_string())?;
            match crate::cli::Cli::from_arg_matches(&matches).unwrap().command {
                crate::cli::Command::Fleet(Fleet::Cordon(node)) => path(&node, "cordon"),
                crate::cli::Command::Fleet(Fleet::Log(log)) => Ok(level(&log).to_owned()),
                _ => panic!("another command"),
            }
        };
        let node = "/cluster/wishes/nodes/base/el/geth-1/cordon";
        assert_eq!(path_of(&["cordon", "geth-1", "--network", "base", "--layer", "el"]).unwrap(), node);
        assert_eq!(path_of(&["cordon", "base/el/geth-1", "--wait", "0s"]).unwrap(), node);
        assert_eq!(path_of(&["log", "debug"]).unwrap(), "debug");
        assert_eq!(path_of(&["log", "--default"]).unwrap(), "default");
        for bad in [&["cordon", "a?b"][..], &["log"], &["log", "loud"], &["log", "info", "--default"]] {
            assert!(path_of(bad).is_err(), "{bad:?}");
        }
        assert!(path_of(&["cordon", "a", "--wait", "11m"]).unwrap_err().contains("10 minutes at most"));
    }
}
