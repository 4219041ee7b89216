//! `steadfast check --diff`: tells what a reload would do to the running process.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use serde_json::Value;

use crate::cli::{
    Settings,
    admin::{Admin, Answer},
    block_on, show,
};

/// How long the proxy may take to read its file and to compare.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome: the exit code of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A reload would change nothing.
    Same = 0,
    /// A reload would change something.
    Differs = 1,
    /// A reload would be refused, or the proxy reads another file.
    Refused = 2,
    /// No proxy answers.
    NoProcess = 3,
}

pub(super) fn run(settings: &Settings, admin: &Admin) -> ExitCode {
    if settings.file().is_none() || settings.listen.is_some() || settings.admin_listen.is_some() {
        eprintln!("--diff asks a running proxy, which reads its own file with its own flags: leave the flags out");
        return ExitCode::from(Outcome::Refused as u8);
    }
    let answer = match block_on(admin.post("/reload?dry=1", TIMEOUT)) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let (outcome, said) = match answer {
        Ok(answer) => judge(&answer, settings.config.as_deref()),
        Err(why) => (Outcome::NoProcess, why),
    };
    match outcome {
        Outcome::Same | Outcome::Differs => show(said),
        Outcome::Refused | Outcome::NoProcess => eprintln!("{}", said.trim_end()),
    }
    ExitCode::from(outcome as u8)
}

/// The outcome by the proxy's answer, and the words for it. `meant` is the file that the operator
/// has in mind.
fn judge(answer: &Answer, meant: Option<&Path>) -> (Outcome, String) {
    let told = answer.json();
    let Some(changes) = told["changes"].as_bool() else {
        return match told["error"].as_str().filter(|_| answer.status.as_u16() == 422) {
            Some(why) => (Outcome::Refused, format!("a reload would be refused:\n{why}\n")),
            None => {
                let status = answer.status;
                let why =
                    format!("the admin side answered with HTTP status {status}: is this a proxy's admin.listen?\n");
                (Outcome::NoProcess, why)
            }
        };
    };
    let file = told["file"].as_str().unwrap_or("the settings");
    if let Some(meant) = meant.filter(|meant| !is_same(meant, Path::new(file))) {
        let why = format!(
            "the proxy reads {file}, and not {}: write the changes there, or leave --config out to see what {file} would change\n",
            meant.display()
        );
        return (Outcome::Refused, why);
    }
    if !changes {
        return (Outcome::Same, format!("a reload of {file} would change nothing\n"));
    }
    let list = list(&told);
    match told["error"].as_str() {
        Some(why) => {
            (Outcome::Refused, format!("a reload of {file} would be refused:\n{why}\n\nthe changes are\n{list}"))
        }
        None => (Outcome::Differs, format!("a reload of {file} would\n{list}")),
    }
}

/// Whether both paths lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// A line for each change.
fn list(told: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut lines = String::new();
    for node in all(&told["nodes"]) {
        let [network, layer, name, tier] = ["network", "layer", "node", "tier"].map(|key| text(&node[key]));
        let (verb, urls) = match node["change"].as_str() {
            Some("added") => ("add", all(&node["urls"]).iter().map(text).collect::<Vec<_>>().join(", ")),
            Some("removed") => ("remove", String::new()),
            _ => ("change", String::new()),
        };
        let line = format!("  {verb:<6}  {network} {layer} {name} ({tier})  {urls}");
        lines.push_str(line.trim_end());
        lines.push('\n');
        for setting in all(&node["settings"]) {
            let [key, from, to] = ["key", "from", "to"].map(|key| text(&setting[key]));
            lines.push_str(&format!("            {key}: {from} → {to}\n"));
        }
    }
    for setting in all(&told["settings"]) {
        let [key, from, to] = ["key", "from", "to"].map(|key| text(&setting[key]));
        let fixed = if setting["needs_restart"] == true { "  (needs a restart)" } else { "" };
        lines.push_str(&format!("  change  {key}: {from} → {to}{fixed}\n"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use serde_json::json;

    use super::*;

    fn judged(status: u16, told: &Value, meant: Option<&str>) -> (Outcome, String) {
        let answer = Answer { status: StatusCode::from_u16(status).unwrap(), body: told.to_string() };
        judge(&answer, meant.map(Path::new))
    }

    fn told() -> Value {
        json!({
            "file": "/etc/s.toml", "changes": true, "error": null,
            "settings": [
                { "key": "calls.timeout", "from": "30s", "to": "15s", "needs_restart": false },
                { "key": "workers", "from": "not set", "to": "4", "needs_restart": true },
            ],
            "nodes": [
                { "network": "default", "layer": "el", "node": "a", "tier": "primary", "change": "changed", "urls": [],
                  "settings": [{ "key": "headers.x", "from": "***", "to": "*** (another)" }] },
                { "network": "base", "layer": "cl", "node": "b", "tier": "backup", "change": "added",
                  "urls": ["http://b/***"], "settings": [] },
                { "network": "base", "layer": "cl", "node": "c", "tier": "primary", "change": "removed", "urls": [],
                  "settings": [] },
            ],
        })
    }

    #[test]
    fn each_change_has_a_line() {
        let (outcome, text) = judged(200, &told(), Some("/etc/s.toml"));
        assert_eq!(outcome, Outcome::Differs);
        assert_eq!(
            text,
            "a reload of /etc/s.toml would\n\
             \x20 change  default el a (primary)\n\
             \x20           headers.x: *** → *** (another)\n\
             \x20 add     base cl b (backup)  http://b/***\n\
             \x20 remove  base cl c (primary)\n\
             \x20 change  calls.timeout: 30s → 15s\n\
             \x20 change  workers: not set → 4  (needs a restart)\n"
        );
    }

    #[test]
    fn the_outcome_has_a_class() {
        let nothing = json!({ "file": "/etc/s.toml", "changes": false, "settings": [], "nodes": [] });
        assert_eq!(judged(200, &nothing, None).0, Outcome::Same);
        let mut fixed = told();
        fixed["error"] = json!("workers: cannot be changed");
        let (outcome, text) = judged(422, &fixed, None);
        assert_eq!(outcome, Outcome::Refused);
        assert!(text.contains("would be refused:\nworkers: cannot") && text.contains("calls.timeout"), "{text}");
        assert_eq!(judged(422, &json!({ "error": "s.toml:1: x" }), None).0, Outcome::Refused);
        let (outcome, text) = judged(200, &told(), Some("/etc/other.toml"));
        assert_eq!(outcome, Outcome::Refused);
        assert!(text.contains("reads /etc/s.toml, and not /etc/other.toml"), "{text}");
        assert_eq!(judged(404, &json!({ "error": "there is nothing" }), None).0, Outcome::NoProcess);
        assert_eq!(judged(200, &Value::Null, None).0, Outcome::NoProcess);
    }
}
