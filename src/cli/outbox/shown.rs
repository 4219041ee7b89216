//! The answers of the admin side about the outbox, in words for a terminal.

use serde_json::{Value, json};

use crate::cli::table::table;

/// Refusals that are told one by one.
const MOST_REFUSALS: usize = 10;

/// A field as text; a dash where there is none.
fn word(of: &Value, key: &str) -> String {
    match &of[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn entries<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    of[key].as_array().into_iter().flatten()
}

/// The table, or `none` where there is no row but the head.
fn rows(rows: &[Vec<String>], none: &str) -> String {
    if rows.len() == 1 { format!("{none}\n") } else { table(rows) }
}

/// Where the next page begins.
fn next(list: &Value) -> String {
    list["next"].as_str().map(|next| format!("there is more: --after {next}\n")).unwrap_or_default()
}

/// The state, with a word for one that is not sent any more.
fn state(of: &Value) -> String {
    let state = word(of, "state");
    match of["stopped"].as_str() {
        Some(stopped) if stopped != state => format!("{state} ({stopped})"),
        _ => state,
    }
}

pub(super) fn list(list: &Value) -> String {
    let head = ["NETWORK", "TENANT", "HASH", "STATE", "BLOCK", "FROM", "NONCE", "ACCEPTED"];
    let mut all = vec![head.map(str::to_owned).to_vec()];
    for of in entries(list, "transactions") {
        all.push(vec![
            word(of, "network"),
            word(of, "tenant"),
            word(of, "hash"),
            state(of),
            word(&of["block"], "number"),
            word(of, "from"),
            word(of, "nonce"),
            word(of, "accepted_at"),
        ]);
    }
    rows(&all, "no such transaction is kept") + &next(list)
}

pub(super) fn transactions(found: &Value) -> String {
    entries(found, "transactions").map(transaction).collect::<Vec<_>>().join("\n")
}

fn transaction(of: &Value) -> String {
    let mut text = format!("{}\n", word(of, "hash"));
    let reason = of["reason"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
    let by = of["replaced_by"].as_str().map(|by| format!(" by {by}")).unwrap_or_default();
    let fields = [
        ("state", format!("{}{reason}{by}", state(of))),
        ("network", word(of, "network")),
        ("tenant", word(of, "tenant")),
        ("from", format!("{}, nonce {}", word(of, "from"), word(of, "nonce"))),
        ("accepted", word(of, "accepted_at")),
        ("deadline", word(of, "deadline")),
        ("request", word(of, "request_id")),
        ("trace", word(of, "traceparent")),
        ("kept until", word(of, "keep_until")),
    ];
    for (name, value) in fields.iter().filter(|(_, value)| value != "-") {
        text.push_str(&format!("  {name:<10}  {value}\n"));
    }
    for refusal in entries(of, "refusals") {
        let (node, code, message) = (word(refusal, "node"), word(refusal, "code"), word(refusal, "message"));
        text.push_str(&format!("  refused     by {node}: {message} ({code})\n"));
    }
    let mut history = vec![["", "TIME", "STATE", "NODE", "BLOCK", "WHY"].map(str::to_owned).to_vec()];
    for step in entries(of, "history") {
        let block = &step["block"];
        let at = if block.is_null() { "-".to_owned() } else { format!("{} {}", block["number"], word(block, "hash")) };
        history.push(vec![
            String::new(),
            word(step, "at"),
            word(step, "state"),
            word(step, "node"),
            at,
            word(step, "reason"),
        ]);
    }
    text + &table(&history)
}

pub(super) fn done(done: &Value) -> String {
    let what = match done["done"].as_str() {
        Some("resend") => "is sent now, to the nodes of outbox.send_to that do not rest",
        Some("cancel") => "is cancelled",
        Some("drop") => "is dropped",
        _ => "?",
    };
    let note = done["note"].as_str().map(|note| format!("{note}\n")).unwrap_or_default();
    let (hash, network, tenant) = (word(done, "hash"), word(done, "network"), word(done, "tenant"));
    format!("{hash} ({network}, {tenant}) {what}\n{note}")
}

pub(super) fn quarantine(list: &Value) -> String {
    let head = ["TENANT", "DELIVERY", "EVENT", "ATTEMPTS", "GIVEN UP", "WHY"];
    let mut all = vec![head.map(str::to_owned).to_vec()];
    for of in entries(list, "deliveries") {
        all.push(["tenant", "id", "kind", "attempts", "given_up_at", "reason"].map(|key| word(of, key)).to_vec());
    }
    rows(&all, "no delivery is in quarantine") + &next(list)
}

pub(super) fn retried(done: &Value) -> String {
    format!("{} is out of quarantine, and tried at once\n", word(done, "retried"))
}

/// `is_all`: none of the list stays.
pub(super) fn all_retried(retried: Vec<Value>, is_all: bool, is_json: bool) -> String {
    match (is_json, retried.is_empty() && is_all) {
        (true, _) => format!("{}\n", json!({ "deliveries": retried })),
        (false, true) => "no delivery is in quarantine\n".to_owned(),
        (false, false) => retried.iter().map(self::retried).collect(),
    }
}

/// Why deliveries stay in quarantine.
pub(super) fn not_retried(refused: &[String]) -> String {
    let shown: String = refused.iter().take(MOST_REFUSALS).map(|why| format!("{why}\n")).collect();
    format!("{shown}{} deliveries stay in quarantine", refused.len())
}

pub(super) fn replay(done: &Value) -> String {
    let (deliveries, transactions) = (word(done, "deliveries"), word(done, "transactions"));
    let (network, from) = (word(done, "network"), word(done, "from"));
    let endpoint = done["endpoint"].as_str().map(|name| format!(" to {name}")).unwrap_or_default();
    let looked = format!("of {transactions} transactions of {network}, in blocks from {from} on");
    let more = done["next"].as_str().map(|next| format!("there are more than the limit: go on with --after {next}\n"));
    let more = more.unwrap_or_default();
    if done["dry"] == true {
        format!("{deliveries} deliveries{endpoint} would be made, {looked}\n{more}nothing was done: add --yes\n")
    } else {
        format!("{deliveries} deliveries{endpoint} are made, {looked}\n{more}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_where_the_next_page_begins() {
        let one = json!({
            "network": "default", "tenant": "bank", "hash": "0x01", "state": "mined", "stopped": "cancelled",
            "block": { "number": 7, "hash": "0x02" }, "from": "0x03", "nonce": 4, "accepted_at": "then",
        });
        let text = list(&json!({ "transactions": [one], "next": "bank/default/0x01" }));
        let words = "default  bank    0x01  mined (cancelled)  7      0x03  4      then\n";
        assert!(text.contains(words), "{text}");
        assert!(text.ends_with("there is more: --after bank/default/0x01\n"));
        assert_eq!(list(&json!({ "transactions": [], "next": null })), "no such transaction is kept\n");
    }

    #[test]
    fn deliveries_out_of_quarantine_are_told_in_both_forms() {
        let done = json!({ "retried": "evt_1@billing", "tenant": "bank" });
        let words = "evt_1@billing is out of quarantine, and tried at once\n";
        assert_eq!(all_retried(vec![done.clone()], true, false), words);
        let told: Value = serde_json::from_str(&all_retried(vec![done.clone()], true, true)).unwrap();
        assert_eq!(told["deliveries"], json!([done]));
        assert_eq!(all_retried(Vec::new(), false, false), "");
        assert_eq!(all_retried(Vec::new(), true, false), "no delivery is in quarantine\n");
    }

    #[test]
    fn the_words_of_nodes_that_refuse_are_shown() {
        let refusal = json!({ "node": "el-1", "code": -32000, "message": "txpool is full" });
        let text = transactions(&json!({ "transactions": [{ "hash": "0x01", "refusals": [refusal], "history": [] }] }));
        assert!(text.contains("  refused     by el-1: txpool is full (-32000)\n"), "{text}");
    }

    #[test]
    fn a_cancel_says_that_nothing_is_unsent() {
        let answer = json!({
            "done": "cancel", "hash": "0x01", "network": "default", "tenant": "bank", "note": "It cannot be unsent.",
        });
        assert_eq!(done(&answer), "0x01 (default, bank) is cancelled\nIt cannot be unsent.\n");
    }

    #[test]
    fn a_dry_replay_says_that_nothing_was_done() {
        let mut answer = json!({
            "dry": true, "network": "default", "from": 5, "endpoint": "billing", "transactions": 9, "deliveries": 3,
            "more": false,
        });
        let text = replay(&answer);
        assert!(
            text.starts_with("3 deliveries to billing would be made") && text.contains("nothing was done"),
            "{text}"
        );
        answer["dry"] = false.into();
        assert!(replay(&answer).starts_with("3 deliveries to billing are made"));
    }
}
