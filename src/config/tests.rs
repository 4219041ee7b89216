//! The example and the docs, held against the keys that the reader asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::{root::read_and_list_keys, *};

const DOCS: &str = include_str!("../../docs/CONFIG.md");

fn any_variable(name: &str) -> Option<String> {
    let is_a_hooks = name.contains("HOOK");
    Some(if is_a_hooks { "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" } else { "s3cret" }.into())
}

/// The example with every setting in force.
fn example_in_full() -> String {
    let setting = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    example().lines().map(|line| setting(line) + "\n").collect()
}

/// The settings without those that this build refuses.
fn readable(settings: &str) -> String {
    let is_refused = |line: &str| line.contains("endpoint = ") || line.contains("OTLP_TOKEN");
    settings
        .lines()
        .filter(|line| cfg!(feature = "otlp") || !is_refused(line))
        .map(|line| line.to_owned() + "\n")
        .collect()
}

/// A folder that holds a `ca.pem`.
fn folder_with_a_certificate() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/configuration"))
}

fn read_example_in_full() -> (Config, Vec<String>) {
    let folder = folder_with_a_certificate();
    let (config, keys) =
        read_and_list_keys(Some(&readable(&example_in_full())), folder, &Flags::default(), &any_variable);
    (config.unwrap_or_else(|problems| panic!("{problems:#?}")), keys.into_keys().collect())
}

/// The keys that hold values, without those of tables. A node's keys stand as `node.http`, for
/// every layer and tier.
fn settings(keys: &[String]) -> Vec<String> {
    let is_a_table = |key: &str| {
        let inside = |other: &String| other.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
        key.ends_with(".primary") || key.ends_with(".backup") || keys.iter().any(inside)
    };
    let settings: BTreeSet<String> = keys
        .iter()
        .filter(|key| !is_a_table(key))
        .map(|key| match key.split_once("[].") {
            Some((list @ ("outbox.tenant" | "outbox.webhook" | "calls.rules"), key)) => format!("{list}.{key}"),
            Some((_, key)) => format!("node.{key}"),
            None => key.clone(),
        })
        .collect();
    settings.into_iter().collect()
}

/// The settings of the full example: each named as by [`settings`], with the text of its value.
fn written_in_the_example() -> BTreeMap<String, String> {
    let mut table = String::new();
    let mut written = BTreeMap::new();
    for line in example_in_full().lines() {
        if let Some(list) = line.strip_prefix("[[") {
            assert!(list.ends_with("]]"), "{line}");
            table = match list {
                "outbox.tenant]]" => "outbox.tenant.",
                "outbox.webhook]]" => "outbox.webhook.",
                "calls.rules]]" => "calls.rules.",
                _ => "node.",
            }
            .into();
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = format!("{}.", name.replace("networks.base", "networks.<name>"));
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            written.insert(format!("{table}{key}"), value.to_owned());
        }
    }
    written
}

#[test]
fn the_example_is_the_defaults_and_its_nodes() {
    let config = Config::parse(example(), &|_| None).unwrap();
    let defaults = Config::from_flags(&Flags {
        el: vec!["http://127.0.0.1:18545,ws://127.0.0.1:18546".into()],
        cl: vec!["http://127.0.0.1:5052".into()],
        ..Flags::default()
    })
    .unwrap();
    let mut expected = defaults;
    expected.networks[0].el[0].name = "geth-1".parse().unwrap();
    expected.networks[0].cl[0].name = "lighthouse-1".parse().unwrap();
    assert_eq!(config, expected);
}

#[test]
fn every_commented_setting_of_the_example_is_its_default() {
    let (full, _) = read_example_in_full();
    let bare = Config::parse(example(), &|_| None).unwrap();
    assert_eq!(full.workers, NonZeroUsize::new(4));
    assert_eq!(full.max_client_memory, Some(512 << 20));
    assert_eq!(full.chain.timeout, Some(std::time::Duration::from_secs(10)));
    assert_eq!(full.networks[0].chain_id, Some(1));
    assert_eq!(full.networks.len(), 2);
    assert_eq!(full.networks[0].el[1].ca_file.as_ref().unwrap().certificates.len(), 1);
    assert_eq!(full.tracing.endpoint.is_some(), cfg!(feature = "otlp"));
    let chain = Chain { timeout: None, ..full.chain };
    let outbox = full.outbox.expect("the example has the outbox");
    assert_eq!((outbox.tenants.len(), outbox.webhooks.len()), (1, 2));
    assert_eq!(outbox.tenant_header.as_ref().unwrap(), "x-tenant-id");
    assert_eq!(Outbox { tenants: Vec::new(), webhooks: Vec::new(), tenant_header: None, ..outbox }, Outbox::default());
    assert_eq!(full.calls.rules.len(), 2);
    let calls = Calls { rules: Vec::new(), ..full.calls };
    let tracing = Tracing { sample: full.tracing.sample, ..Tracing::default() };
    let networks = bare.networks.clone();
    let cluster = full.cluster.expect("the example has the cluster");
    let plain = "[cluster]\nname = \"a\"\nreplica = \"a\"\nnats = \"nats://a\"\n[[el.primary]]\nhttp = \"http://a\"";
    let plain = Config::parse(plain, &|_| None).unwrap().cluster.unwrap();
    let Cluster { name, replica, nats, credentials, ca_file, dir, on_lead, on_fence, .. } = cluster.clone();
    assert_eq!(cluster, Cluster { name, replica, nats, credentials, ca_file, dir, on_lead, on_fence, ..plain });
    let (outbox, cluster, workers, max_client_memory) = (None, None, None, None);
    let full = Config { workers, max_client_memory, calls, chain, tracing, networks, outbox, cluster, ..full };
    assert_eq!(full, bare);
}

#[test]
fn every_key_that_is_read_is_in_the_example() {
    let (_, keys) = read_example_in_full();
    let written: Vec<String> = written_in_the_example().into_keys().collect();
    assert_eq!(settings(&keys), written);
}

#[test]
fn every_key_that_is_read_is_in_the_docs_with_its_default() {
    let (_, keys) = read_example_in_full();
    let written = written_in_the_example();
    for setting in settings(&keys) {
        let no_default = [
            "workers",
            "max_client_memory",
            "chain_id",
            "networks.<name>.chain_id",
            "chain.timeout",
            "tracing.endpoint",
            "tracing.headers",
            "outbox.tenant_header",
            "cluster.name",
            "cluster.replica",
            "cluster.nats",
            "cluster.credentials",
            "cluster.ca_file",
            "cluster.dir",
            "cluster.on_lead",
            "cluster.on_fence",
        ];
        let of_a_list =
            ["outbox.tenant.", "outbox.webhook.", "calls.rules."].iter().any(|list| setting.starts_with(list));
        let no_default = no_default.contains(&setting.as_str()) || of_a_list;
        let row = match setting.strip_prefix("node.") {
            Some(key) => format!("| `{key}` | "),
            None if no_default => format!("| `{setting}` | "),
            None => format!("| `{setting}` | `{}` | ", written[&setting]),
        };
        assert!(DOCS.contains(&row), "docs/CONFIG.md lacks {row}");
    }
}

#[test]
fn every_key_in_the_docs_is_read() {
    let (_, keys) = read_example_in_full();
    let settings = settings(&keys);
    let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    for (key, _) in rows.filter(|(key, _)| !key.starts_with("--")) {
        let known =
            [key.to_owned(), format!("node.{key}")].iter().any(|key| settings.contains(key) || keys.contains(key));
        assert!(known, "docs/CONFIG.md describes {key}, which nothing reads");
    }
}

#[test]
fn every_example_in_the_docs_is_read_without_an_error() {
    let folder = folder_with_a_certificate();
    let mut seen = 0;
    for block in DOCS.split("```toml\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let block = block.replace("internal-ca.pem", "ca.pem").replace("/run/secrets/billing", "webhook.secret");
        let has_nodes = ["primary]]", "backup]]"].iter().any(|tier| block.contains(tier));
        let nodes = if has_nodes { "" } else { "[[el.primary]]\nhttp = \"http://127.0.0.1:18545\"\n" };
        let text = readable(&format!("{block}\n{nodes}"));
        let (config, _) = read_and_list_keys(Some(&text), folder, &Flags::default(), &any_variable);
        assert!(config.is_ok(), "{text}\n{config:#?}");
        seen += 1;
    }
    assert!(seen >= 9, "only {seen} examples were found");
}

/// Whether `value` fits `schema`, by the words that [`schema`] uses.
fn fits(value: &toml::Value, schema: &serde_json::Value) -> Result<(), String> {
    if let Some(choices) = schema.get("anyOf") {
        let words = choices[0]["enum"].as_array().unwrap();
        let fits = words.iter().any(|word| word.as_str() == value.as_str());
        return fits.then_some(()).ok_or_else(|| format!("{value} is none of {words:?}"));
    }
    if let Some(kinds) = schema["type"].as_array() {
        let as_one = |kind| serde_json::json!({ "type": kind, "items": schema["items"] });
        let fits = kinds.iter().any(|kind| fits(value, &as_one(kind)).is_ok());
        return fits.then_some(()).ok_or_else(|| format!("{value} is none of {kinds:?}"));
    }
    match (schema["type"].as_str(), value) {
        (Some("string"), toml::Value::String(text)) => match schema.get("pattern").and_then(|pattern| pattern.as_str())
        {
            None => Ok(()),
            Some(pattern) => {
                let units = pattern.split_once("?(").unwrap().1.split_once(')').unwrap().0;
                let fits = units.split('|').any(|unit| {
                    let number = text.strip_suffix(unit).map(str::trim_end);
                    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
                });
                fits.then_some(()).ok_or_else(|| format!("{text} has none of the units {units}"))
            }
        },
        (Some("integer"), toml::Value::Integer(number)) => {
            let number = u64::try_from(*number).unwrap();
            let least = schema["minimum"].as_u64().unwrap();
            let most = schema.get("maximum").map_or(u64::MAX, |most| most.as_u64().unwrap());
            (least..=most).contains(&number).then_some(()).ok_or_else(|| format!("{number} of {schema}"))
        }
        (Some("boolean"), toml::Value::Boolean(_)) => Ok(()),
        (Some("array"), toml::Value::Array(items)) => items.iter().try_for_each(|item| fits(item, &schema["items"])),
        (Some("object"), toml::Value::Table(table)) => table.iter().try_for_each(|(key, value)| {
            let known = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
            let known = known.filter(|schema| schema.is_object()).ok_or_else(|| format!("{key} is no key"))?;
            fits(value, known).map_err(|why| format!("{key}: {why}"))
        }),
        (kind, value) => Err(format!("{value} is not of type {kind:?}")),
    }
}

#[test]
fn the_full_example_fits_the_schema() {
    let example: toml::Value = toml::from_str(&example_in_full()).unwrap();
    assert_eq!(fits(&example, &schema()), Ok(()));
    let wrong: toml::Value = toml::from_str("[calls]\ntimeuot = \"1s\"").unwrap();
    assert_eq!(fits(&wrong, &schema()), Err("calls: timeuot is no key".to_owned()));
    let wrong: toml::Value = toml::from_str("[calls]\ntimeout = \"1 day\"").unwrap();
    assert!(fits(&wrong, &schema()).is_err());
}
