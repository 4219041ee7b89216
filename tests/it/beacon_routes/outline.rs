//! Reads as much of YAML as an OpenAPI description needs: keys by their indentation, with what is behind and below them.

use std::{fs, path::Path};

use serde_json::Value;

/// A key with all that is below it. What is no key, such as the lines of a text, is one without a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    pub(crate) key: String,
    /// What is behind the key, without quotes.
    pub(crate) value: String,
    pub(crate) below: Vec<Outline>,
    /// Whether it begins an item of a list.
    pub(crate) begins: bool,
    /// The lines below it, as they are.
    pub(crate) text: String,
}

impl Outline {
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let mut root = Self::default();
        let mut at = 0;
        root.below = Self::level(&lines, &mut at, 0);
        assert_eq!(at, lines.len(), "{}: line {:?} is out of place", path.display(), lines.get(at));
        root
    }

    fn level(lines: &[&str], at: &mut usize, least: usize) -> Vec<Self> {
        let mut found = Vec::new();
        while *at < lines.len() && indent(lines[*at]) >= least {
            let here = indent(lines[*at]);
            let line = lines[*at].trim();
            let begins = line.starts_with("- ");
            let line = line.trim_start_matches("- ");
            let (key, value) = line.split_once(':').unwrap_or((line, ""));
            *at += 1;
            let start = *at;
            let below = Self::level(lines, at, here + 1);
            let text = lines[start..*at].join("\n");
            found.push(Self { key: bare(key), value: bare(value), below, begins, text });
        }
        found
    }

    /// What is behind the key or below it as JSON: an object of the keys below, or a text.
    pub(crate) fn json(&self) -> Value {
        if self.below.is_empty() {
            return Value::String(self.value.clone());
        }
        Value::Object(self.below.iter().map(|below| (below.key.clone(), below.json())).collect())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.below.iter().find(|outline| outline.key == key)
    }
}

/// A list's item belongs one step further in than its dash.
fn indent(line: &str) -> usize {
    let inside = line.trim_start();
    line.len() - inside.len() + 2 * usize::from(inside.starts_with("- "))
}

fn bare(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}
