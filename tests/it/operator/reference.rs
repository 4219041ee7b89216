//! The metrics, status and settings of a running proxy, held against the reference.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;
use steadfast::devnet::{Devnet, Fault, Options};

use crate::common::{
    client::call,
    sim::{Net, Proxy},
    until,
};

const STATUS: &str = include_str!("../../../docs/STATUS.md");
const METRICS: &str = include_str!("../../../docs/METRICS.md");

/// The cells of each row whose first cell has names in backticks: these names, and the second
/// cell's.
fn rows(page: &str) -> impl Iterator<Item = (Vec<String>, Vec<String>)> {
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(move |row| {
        let row = format!("`{row}");
        let mut cells = row.split(" | ");
        (quoted(cells.next().unwrap_or_default()), quoted(cells.next().unwrap_or_default()))
    })
}

/// A proxy with something to tell of everything: both sides, a pair, a WebSocket, a node that
/// rests, one that is down, a switch.
async fn proxy_with_much_to_tell(net: &Net) -> (Proxy, Devnet) {
    let options = Options { execution: 3, consensus: 2, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let [one, two, three] = [0, 1, 2].map(|node| devnet.el(node).http_url());
    let (ws, cl, other) = (devnet.el(0).ws_url(), devnet.cl(0).http_url(), devnet.cl(1).http_url());
    let settings = format!(
        "[[el.primary]]\nname = \"el-1\"\nhttp = \"{one}\"\nws = \"{ws}\"\npair = \"a\"\n\
         [[el.primary]]\nname = \"el-2\"\nhttp = \"{two}\"\nbudget.per_day = 1000000\n[[el.backup]]\nname = \"el-3\"\nhttp = \"{three}\"\n\
         [[cl.primary]]\nname = \"cl-1\"\nhttp = \"{cl}\"\npair = \"a\"\n[[cl.backup]]\nname = \"cl-2\"\nhttp = \"{other}\"\n\
         [outbox]\n[[outbox.webhook]]\nname = \"billing\"\nurl = \"https://hooks.example/\"\nevents = [\"tx.final\"]\n\
         secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n\
         [cluster]\nname = \"eu\"\nreplica = \"r1\"\nnats = \"nats://unused\"\n\
         heartbeat = \"100ms\"\nsafety_margin = \"100ms\"\nfailover_timeout = \"500ms\"\n"
    );
    let proxy = Proxy::launch(net, &settings).await;
    until("all are up", async || proxy.verdicts().await == ["up", "up", "up"]).await;
    until("its link runs", async || proxy.node("el-1").await["link"]["heads"].is_boolean()).await;
    devnet.el(2).set_fault(Fault::Down);
    devnet.el(0).set_fault(Fault::http_status(429, &["eth_gasPrice"]));
    proxy.post(call(1, "eth_gasPrice", "[]")).await;
    until("one rests and one is down", async || {
        proxy.node("el-1").await["resting"].is_object() && proxy.node("el-3").await["last_error"].is_object()
    })
    .await;
    until("it leads", async || proxy.admin("/leader").await.status == 200).await;
    proxy.operate("/nodes/el-2/cordon").await;
    proxy.operate("/nodes/el-2/uncordon").await;
    (proxy, devnet)
}

/// The paths of all fields of `value`, each as the reference calls it.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    // Sides and nodes are described once.
    let path = match path {
        "networks[].el" | "networks[].cl" if value.is_object() => "side",
        "side.nodes[]" => "node",
        path => path,
    };
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                found.insert(below.clone());
                fields(member, &below, found);
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| fields(entry, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn every_field_of_the_status_is_in_the_reference() {
    let net = Net::default();
    let (proxy, _devnet) = proxy_with_much_to_tell(&net).await;
    let mut shown = BTreeSet::new();
    fields(&proxy.admin("/status").await.json(), "", &mut shown);
    // These have the names of their members in their rows.
    let lists = ["leader", "view", "last_fence", "nodes", "changes", "replicas"].map(|list| format!("cluster.{list}"));
    let (members, mut shown): (BTreeSet<_>, BTreeSet<_>) = shown
        .into_iter()
        .partition(|field| lists.iter().any(|list| field.starts_with(list) && field.len() > list.len() + 1));
    for member in members.iter().filter(|member| !member.contains(".verdicts.")) {
        let (list, name) = (lists.iter().find(|list| member.starts_with(*list)).unwrap(), member.rsplit('.').next());
        let row = STATUS.lines().find(|line| line.starts_with(&format!("| `{list}`"))).unwrap_or_default();
        assert!(row.contains(&format!("`{}`", name.unwrap())), "docs/STATUS.md lacks {member}");
    }
    assert!(members.len() > 30, "{members:?}");
    // Only what is in them is described.
    shown.retain(|field| {
        !["websockets", "networks", "outbox", "outbox.networks", "outbox.webhooks", "cluster", "cluster.store"]
            .contains(&field.as_str())
    });
    let is_field = |name: &String| !name.starts_with(['/', '<']) && !name.starts_with("steadfast");
    let is_level = |name: &String| name.chars().all(|c| c.is_ascii_uppercase());
    let described: BTreeSet<String> =
        rows(STATUS).flat_map(|(names, _)| names).filter(|name| is_field(name) && !is_level(name)).collect();
    let described: BTreeSet<String> = described.into_iter().filter(|name| !name.contains(' ')).collect();
    let missing: Vec<_> = shown.difference(&described).collect();
    assert!(missing.is_empty(), "docs/STATUS.md lacks {missing:?}");
    let unseen: Vec<_> = described.difference(&shown).filter(|name| name.contains(['.', '['])).collect();
    assert!(unseen.is_empty(), "docs/STATUS.md describes {unseen:?}, which /status does not show");
}

#[tokio::test(start_paused = true)]
async fn every_metric_and_its_labels_are_in_the_reference() {
    let net = Net::default();
    let (proxy, _devnet) = proxy_with_much_to_tell(&net).await;
    let described: BTreeMap<String, BTreeSet<String>> =
        rows(METRICS).map(|(names, labels)| (names[0].clone(), labels.into_iter().collect())).collect();
    let text = proxy.admin("/metrics").await.text();
    let mut seen = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once('{').unwrap_or_else(|| (line.split(' ').next().unwrap(), ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let labels = labels.rsplit_once('}').map_or("", |(labels, _)| labels);
        let labels: BTreeSet<String> = labels
            .split("\",")
            .filter_map(|label| label.split_once("=\""))
            .map(|(label, _)| label.to_owned())
            .filter(|label| label != "le")
            .collect();
        let expected = described.get(base).unwrap_or_else(|| panic!("docs/METRICS.md lacks {base}"));
        assert_eq!(&labels, expected, "{line}");
        seen += 1;
    }
    assert!(seen > 100, "{text}");
}

#[tokio::test(start_paused = true)]
async fn counters_begin_at_zero_and_the_process_is_there() {
    let net = Net::default();
    let (proxy, _devnet) = proxy_with_much_to_tell(&net).await;
    let text = proxy.admin("/metrics").await.text();
    for line in [
        r#"steadfast_switches_total{layer="cl",network="default",reason="lagging"} 0"#,
        r#"steadfast_filters_dropped_total{network="default",reason="gap"} 0"#,
        r#"steadfast_publications_again_total{network="default",reason="lost"} 0"#,
        r#"steadfast_notifications_total{kind="attestation"} 0"#,
        r#"steadfast_notifications_total{kind="newHeads"} 0"#,
        r#"steadfast_reloads_total{outcome="refused"} 0"#,
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
    }
    for name in ["cpu_seconds_total", "open_fds", "max_fds", "resident_memory_bytes", "start_time_seconds", "threads"] {
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} "))?.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= 0.0), "process_{name}: {value:?}");
    }
}

/// The names of all metrics that the sources declare, without `steadfast_`.
fn declared() -> BTreeSet<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics");
    let files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
    let mut names = BTreeSet::new();
    for file in files.chain([folder.with_extension("rs")]) {
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        // Fields of what the derive makes metrics of.
        let fields =
            text.split("#[metric(").skip(1).filter_map(|after| after.split_once(")]\n")?.1.trim().split_once(':'));
        let fields = fields.map(|(name, _)| name.trim_start_matches("pub(super) ").to_owned());
        names.extend(fields.filter(|name| !name.contains(char::is_whitespace)));
        let text: String = text.split_whitespace().collect();
        for start in ["\"steadfast_", "gauge(\""] {
            let after = text.split(start).skip(1).filter_map(|after| after.split('"').next());
            let is_name = |name: &&str| !name.contains('{') && !name.starts_with("steadfast_");
            names.extend(after.filter(is_name).map(str::to_owned));
        }
    }
    names
}

#[test]
fn every_metric_that_is_declared_is_described_and_no_other() {
    let described = rows(METRICS).flat_map(|(names, _)| names);
    let described: BTreeSet<String> = described
        .filter(|name| !name.starts_with("process_"))
        .map(|name| name.strip_prefix("steadfast_").unwrap_or_else(|| panic!("{name} is a stranger")).to_owned())
        .collect();
    let declared = declared();
    assert!(declared.len() > 35, "{declared:?}");
    let missing: Vec<_> = declared.difference(&described).collect();
    assert!(missing.is_empty(), "docs/METRICS.md lacks {missing:?}");
    let unknown: Vec<_> = described.difference(&declared).collect();
    assert!(unknown.is_empty(), "docs/METRICS.md describes {unknown:?}, which nothing declares");
}
