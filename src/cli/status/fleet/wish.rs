//! The operator's wishes, in words.

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Wish {
    subject: String,
    state: Option<String>,
    obeyed: Option<String>,
    by: Option<String>,
    revision: Option<u64>,
    unreadable: Option<String>,
    ignored: bool,
    replicas: Vec<Reached>,
}

#[derive(Deserialize)]
struct Reached {
    replica: String,
    met: bool,
    last_error: Option<Why>,
}

#[derive(Deserialize)]
struct Why {
    text: String,
}

impl Wish {
    /// A line for the wish, and a line for each replica that has not applied the wish.
    pub(super) fn words(&self) -> String {
        let Self { subject, state, obeyed, by, revision, unreadable, ignored, replicas } = self;
        let by = by.as_deref().unwrap_or("?");
        let mut text = match (state, revision, unreadable) {
            (Some(state), Some(revision), _) => format!("wish of {by}: {subject} {state}, revision {revision}"),
            (_, Some(revision), Some(why)) => {
                let obeyed = obeyed.as_deref().unwrap_or("nothing");
                format!("wish for {subject}, revision {revision}, cannot be read ({why}): {obeyed} counts meanwhile")
            }
            _ => format!("the wish for {subject} has ended"),
        };
        if *ignored {
            return text + ": ignored, since there are too many wishes\n";
        }
        let met = replicas.iter().filter(|of| of.met).count();
        text += &format!(": applied by {met} of {}\n", replicas.len());
        for Reached { replica, last_error, .. } in replicas.iter().filter(|of| !of.met) {
            let why = last_error.as_ref().map_or("not applied yet", |why| &why.text);
            text += &format!("  {replica}: {why}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(change: serde_json::Value) -> String {
        let mut told = json!({
            "subject": "main el a", "state": "cordoned", "obeyed": "cordoned", "by": "r1", "revision": 4,
            "unreadable": null, "ignored": false, "replicas": [
                { "replica": "r1", "met": true, "last_error": null },
                { "replica": "r2", "met": false, "last_error": { "reason": "no_node", "text": "no such node" } },
                { "replica": "r3", "met": false, "last_error": null },
            ],
        });
        for (name, value) in change.as_object().unwrap() {
            told[name] = value.clone();
        }
        serde_json::from_value::<Wish>(told).unwrap().words()
    }

    /// C17: each replica that has not applied a wish has a line, with its last error.
    #[test]
    fn a_wish_has_a_line_for_each_replica_that_lags() {
        let lag = ": applied by 1 of 3\n  r2: no such node\n  r3: not applied yet\n";
        assert_eq!(words(json!({})), format!("wish of r1: main el a cordoned, revision 4{lag}"));
        let unread = json!({ "state": null, "by": null, "unreadable": "not JSON" });
        let text = "wish for main el a, revision 4, cannot be read (not JSON): cordoned counts meanwhile";
        assert_eq!(words(unread), format!("{text}{lag}"));
        let ended = json!({ "state": null, "obeyed": null, "by": null, "revision": null });
        assert_eq!(words(ended), format!("the wish for main el a has ended{lag}"));
        let ignored = "wish of r1: main el a cordoned, revision 4: ignored, since there are too many wishes\n";
        assert_eq!(words(json!({ "ignored": true })), ignored);
    }
}
