//! `steadfast cordon`, `uncordon`, `drain`, `undrain` and `reload`: commands to a running proxy.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    admin::{Admin, Answer},
    block_on,
};

/// How long a switch may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A reload waits for new nodes for as long as a probe may take, which is a minute at most.
const RELOAD: Duration = Duration::from_secs(90);

/// A node of a running proxy.
#[derive(Args)]
pub(super) struct Node {
    /// The node's name, with its network, its side or both before it where several nodes have that
    /// name: base/el/geth-1.
    #[arg(value_name = "NODE")]
    name: String,
    #[command(flatten)]
    admin: Admin,
}

/// Orders for all replicas of a cluster, given to one of them.
#[derive(Subcommand)]
pub(super) enum Fleet {
    /// Take a node out of use at all replicas: it gets no new calls, and stays probed.
    ///
    /// The wish is written once, counts at replicas that start later too, and ends with
    /// `steadfast fleet uncordon`. `steadfast status --fleet` shows which replica has applied it.
    Cordon(Node),
    /// Take the wish for a cordon back. A replica's own `steadfast cordon` stays.
    Uncordon(Node),
}

/// A running proxy.
#[derive(Args)]
pub(super) struct Proxy {
    #[command(flatten)]
    admin: Admin,
}

pub(super) fn fleet(fleet: &Fleet) -> ExitCode {
    let (Node { name, admin }, cordoned) = match fleet {
        Fleet::Cordon(node) => (node, true),
        Fleet::Uncordon(node) => (node, false),
    };
    if !is_name(name) {
        return ExitCode::FAILURE;
    }
    let path = format!("/fleet/nodes/{name}/{}", if cordoned { "cordon" } else { "uncordon" });
    switch(admin, &path, TIMEOUT, |done| {
        let word = |key: &str| done[key].as_str().unwrap_or("?").to_owned();
        let wish = if cordoned { "to be cordoned at all replicas" } else { "no longer to be cordoned by the fleet" };
        format!("{} ({}, {}) is {wish}: revision {}", word("node"), word("network"), word("layer"), done["revision"])
    })
}

/// Whether a node can have this name; complains if not.
fn is_name(name: &str) -> bool {
    let is_good = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    if !is_good {
        eprintln!("there is no node of such a name: names are letters, digits, `.`, `_` and `-`");
    }
    is_good
}

pub(super) fn cordon(Node { name, admin }: &Node, cordoned: bool) -> ExitCode {
    if !is_name(name) {
        return ExitCode::FAILURE;
    }
    let path = format!("/nodes/{name}/{}", if cordoned { "cordon" } else { "uncordon" });
    switch(admin, &path, TIMEOUT, |done| {
        let word = |key: &str| done[key].as_str().unwrap_or("?").to_owned();
        let node = format!("{} ({}, {})", word("node"), word("network"), word("layer"));
        let warning = done["warning"].as_str().map(|warning| format!("\nwarning: {warning}")).unwrap_or_default();
        match cordoned {
            true => format!("{node} is cordoned: it gets no new calls and stays probed{warning}"),
            false => format!("{node} is no longer cordoned{warning}"),
        }
    })
}

pub(super) fn drain(Proxy { admin }: &Proxy, draining: bool) -> ExitCode {
    let (path, said) = match draining {
        true => ("/drain", "draining: /health and /readyz answer 503, and calls are still served"),
        false => ("/undrain", "no longer draining"),
    };
    switch(admin, path, TIMEOUT, |_| said.to_owned())
}

pub(super) fn reload(Proxy { admin }: &Proxy) -> ExitCode {
    switch(admin, "/reload", RELOAD, |done| format!("reloaded: {}", done["reloaded"].as_str().unwrap_or("?")))
}

/// Sends the command at `path`, and prints the outcome in words.
fn switch(admin: &Admin, path: &str, time_limit: Duration, said: impl Fn(&Value) -> String) -> ExitCode {
    let outcome = match block_on(admin.post(path, time_limit)) {
        Ok(outcome) => outcome,
        Err(code) => return code,
    };
    match outcome {
        Ok(answer) if answer.status.is_success() => {
            println!("{}", said(&answer.json()));
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            eprintln!("{}", refusal(&answer));
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Why the proxy did not obey.
pub(super) fn refusal(answer: &Answer) -> String {
    match answer.json()["error"].as_str() {
        Some(why) => why.to_owned(),
        None => format!("the admin side answered with HTTP status {}: is this a proxy's admin.listen?", answer.status),
    }
}
