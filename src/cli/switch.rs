//! `steadfast cordon`, `uncordon`, `drain`, `undrain` and `reload`: commands to a running proxy.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::Value;

use super::{
    admin::{Admin, Answer},
    block_on, show,
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

/// A running proxy.
#[derive(Args)]
pub(super) struct Proxy {
    #[command(flatten)]
    admin: Admin,
}

pub(super) fn cordon(Node { name, admin }: &Node, cordoned: bool) -> ExitCode {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if !name.chars().all(is_name) {
        eprintln!("there is no node of such a name: names are letters, digits, `.`, `_` and `-`");
        return ExitCode::FAILURE;
    }
    let path = format!("/nodes/{name}/{}", if cordoned { "cordon" } else { "uncordon" });
    switch(admin, &path, TIMEOUT, "node", |done| {
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
    switch(admin, path, TIMEOUT, "draining", |_| said.to_owned())
}

pub(super) fn reload(Proxy { admin }: &Proxy) -> ExitCode {
    switch(admin, "/reload", RELOAD, "reloaded", |done| {
        format!("reloaded: {}", done["reloaded"].as_str().unwrap_or("?"))
    })
}

/// Sends the command at `path`, and prints the outcome in words. The answer of a proxy has `key`.
fn switch(admin: &Admin, path: &str, time_limit: Duration, key: &str, said: impl Fn(&Value) -> String) -> ExitCode {
    let outcome = match block_on(admin.post(path, time_limit)) {
        Ok(outcome) => outcome,
        Err(code) => return code,
    };
    match outcome {
        Ok(answer) if answer.status.is_success() && answer.json().get(key).is_some() => {
            show(format_args!("{}\n", said(&answer.json())));
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
