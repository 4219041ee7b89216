//! Keeps a node's secrets out of texts for clients and operators.

use super::node::Node;

impl Node {
    /// Whether the node's configuration holds secrets.
    pub fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// `bytes` without the configuration's secrets; `None` if there are none in `bytes`.
    pub fn redact(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.secrets.redact(bytes)
    }

    /// `text` for people: short, on one line, and without the configuration's secrets.
    pub fn redact_text(&self, text: &str) -> String {
        let text = match self.secrets.redact(text.as_bytes()) {
            Some(text) => String::from_utf8_lossy(&text).into_owned(),
            None => text.to_owned(),
        };
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
    }
}
