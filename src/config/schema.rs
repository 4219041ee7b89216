//! The settings as a JSON Schema, by which editors complete keys and mark mistakes.
//!
//! The schema is made of the keys that a reading asks for, so that all keys of the reader and no
//! others are in the schema. The schema says less than the reader knows: rules between keys, and
//! the forms of URLs and names, are for `steadfast check` to tell.

use std::path::Path;

use serde_json::{Value, json};

use super::{Flags, form::Form, root::read_and_list_keys};

/// The page whose tables describe the keys.
const DOCS: &str = include_str!("../../docs/CONFIG.md");

/// A file with each kind of table, so that a reading asks for every key.
const TABLES: &str = "
    [[el.primary]]
    [[el.backup]]
    [[cl.primary]]
    [[cl.backup]]
    [[networks.any.el.primary]]
    [[networks.any.el.backup]]
    [[networks.any.cl.primary]]
    [[networks.any.cl.backup]]
    [outbox]
    [cluster]
    [[outbox.tenant]]
    [[outbox.webhook]]
    [[calls.rules]]
";

/// A variable in a string, whose value the schema cannot know.
const VARIABLE: &str = r".*\$\{.*";

/// The JSON Schema of the configuration file.
pub fn schema() -> Value {
    let (_, keys) = read_and_list_keys(Some(TABLES), Path::new(""), &Flags::default(), &|_| None);
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": concat!("Settings of Steadfast ", env!("CARGO_PKG_VERSION")),
    });
    for (key, form) in &keys {
        let described = describe(key, form);
        let place = place(&mut schema, key);
        described.into_iter().for_each(|(word, value)| place[word] = value);
    }
    close(&mut schema);
    schema
}

/// The schema of `key`, such as `networks.<name>.el.primary[].http`, inside that of the whole file.
fn place<'s>(schema: &'s mut Value, key: &str) -> &'s mut Value {
    key.split('.').fold(schema, |table, step| match step.strip_suffix("[]") {
        _ if step == "<name>" => &mut table["additionalProperties"],
        Some(name) => &mut table["properties"][name]["items"],
        None => &mut table["properties"][step],
    })
}

/// The words of the schema for one key.
fn describe(key: &str, form: &Form) -> Vec<(&'static str, Value)> {
    let mut words = match form {
        Form::Text => vec![("type", json!("string"))],
        Form::Duration => with_unit("ms|s|m|h|d"),
        Form::Size => with_unit("B|kB|KiB|MB|MiB|GB|GiB"),
        Form::Choice(choices) => {
            vec![("anyOf", json!([{ "enum": choices }, { "type": "string", "pattern": VARIABLE }]))]
        }
        Form::Integer(range) if *range.end() == u64::MAX => {
            vec![("type", json!("integer")), ("minimum", json!(range.start()))]
        }
        Form::Integer(range) => {
            vec![("type", json!("integer")), ("minimum", json!(range.start())), ("maximum", json!(range.end()))]
        }
        Form::Boolean => vec![("type", json!("boolean"))],
        Form::List => vec![("type", json!("array")), ("items", json!({ "type": "string" }))],
        Form::OneOrMore => {
            vec![("type", json!(["string", "array"])), ("items", json!({ "type": "string" }))]
        }
        Form::StringTable => {
            vec![("type", json!("object")), ("additionalProperties", json!({ "type": "string" }))]
        }
        Form::IntegerTable(range) => {
            let number = json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() });
            vec![("type", json!("object")), ("additionalProperties", number)]
        }
        Form::Table => vec![("type", json!("object"))],
        Form::Tables => vec![("type", json!("array"))],
    };
    if let Some((default, meaning)) = row(key) {
        // Editors show the cell without the page.
        let meaning = without_links(meaning).replace("More below.", "More in docs/CONFIG.md.");
        words.push(("description", json!(format!("{meaning}\n\nDefault: {default}"))));
    }
    words
}

/// A string of a whole number and one of the `units`.
fn with_unit(units: &str) -> Vec<(&'static str, Value)> {
    vec![("type", json!("string")), ("pattern", json!(format!("^([0-9]+ ?({units})|{VARIABLE})$")))]
}

/// Default and meaning of `key`, from the page's tables.
fn row(key: &str) -> Option<(&'static str, &'static str)> {
    let is_of_a_section = ["outbox.", "calls."].iter().any(|section| key.starts_with(section));
    let in_a_section = is_of_a_section.then(|| key.replace("[]", ""));
    let key = in_a_section.as_deref().unwrap_or(key);
    let (nodes, key) = match key.split_once("[].") {
        Some((_, key)) => (true, key),
        None => (false, key),
    };
    // A node has keys that the top level has too.
    let docs = if nodes { DOCS.split_once("\n## Nodes\n")?.1 } else { DOCS };
    let begin = format!("| `{key}` | ");
    let row = docs.lines().find_map(|line| line.strip_prefix(&begin))?;
    row.strip_suffix(" |")?.split_once(" | ")
}

/// The text with `[words](target)` replaced by the words.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(link) = rest.find("](") {
        let Some((open, end)) = rest[..link].rfind('[').zip(rest[link..].find(')')) else { break };
        plain.extend([&rest[..open], &rest[open + 1..link]]);
        rest = &rest[link + end + 1..];
    }
    plain + rest
}

/// Closes each table to keys that the schema does not name.
fn close(schema: &mut Value) {
    let Some(words) = schema.as_object_mut() else { return };
    if words.contains_key("properties") {
        words.entry("type").or_insert_with(|| json!("object"));
        words.entry("additionalProperties").or_insert(json!(false));
    }
    if let Some(properties) = words.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(close);
    }
    for inner in ["items", "additionalProperties"] {
        words.get_mut(inner).into_iter().for_each(close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_form_its_default_and_its_meaning() {
        let schema = schema();
        let timeout = &schema["properties"]["calls"]["properties"]["timeout"];
        assert_eq!(timeout["type"], "string");
        assert_eq!(timeout["pattern"], r"^([0-9]+ ?(ms|s|m|h|d)|.*\$\{.*)$");
        let description = timeout["description"].as_str().unwrap();
        assert!(description.starts_with("The whole call until its answer begins"), "{description}");
        assert!(description.ends_with("Default: `\"30s\"`"), "{description}");
        assert!(description.contains("at 64 B a second or more"), "a link is left: {description}");
        let held = schema["properties"]["calls"]["properties"]["max_held"]["description"].as_str().unwrap();
        assert!(held.contains("More in docs/CONFIG.md.") && !held.contains("below"), "{held}");
        let policy = &schema["properties"]["calls"]["properties"]["policy"];
        assert_eq!(policy["anyOf"][0]["enum"], json!(["first", "spread", "weighted", "fastest"]));
        let window = &schema["properties"]["chain"]["properties"]["window"];
        assert_eq!((&window["minimum"], &window["maximum"]), (&json!(2), &json!(65536)));
        let chain_id = &schema["properties"]["chain_id"];
        assert_eq!(chain_id.get("maximum"), None, "editors read no number of 64 bits");
    }

    #[test]
    fn nodes_of_every_network_have_the_same_keys() {
        let schema = schema();
        let here = &schema["properties"];
        let named = &schema["properties"]["networks"]["additionalProperties"]["properties"];
        for side in ["el", "cl"] {
            for tier in ["primary", "backup"] {
                let node = &here[side]["properties"][tier]["items"];
                assert!(node["properties"]["http"]["description"].is_string(), "{side} {tier}");
                assert_eq!(node["properties"].get("ws").is_some(), side == "el");
                assert_eq!(node["additionalProperties"], false);
                assert_eq!(node, &named[side]["properties"][tier]["items"]);
            }
        }
        let max = &here["el"]["properties"]["primary"]["items"]["properties"]["max_connections"];
        assert!(max["description"].as_str().unwrap().contains("calls.max_node_connections"), "{max}");
    }
    #[test]
    fn every_value_is_described() {
        let (_, keys) = read_and_list_keys(Some(TABLES), Path::new(""), &Flags::default(), &|_| None);
        for (key, _) in keys.iter().filter(|(_, form)| !matches!(form, Form::Table | Form::Tables)) {
            assert!(row(key).is_some(), "docs/CONFIG.md has no row for {key}");
        }
    }
}
