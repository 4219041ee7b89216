//! Nodes: which there are, what befalls them, what the proxy thinks of them.

use std::time::Duration;

use cucumber::{gherkin::Step, given, then, when};
use reqwest::Method;
use serde_json::{Value, json};
use steadfast::{devnet::Fault, domain::layer::Layer};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    network::here,
    world::{Named, Proxy, eventually, reply, soon},
};

#[given(regex = r"^an? (primary|backup) (consensus node )?(\S+)$")]
async fn a_node(proxy: &mut Proxy, tier: String, consensus: String, name: String) {
    let tier = if tier == "primary" { "primary" } else { "backup" };
    let layer = if consensus.is_empty() { Layer::El } else { Layer::Cl };
    proxy.nodes.push(Named { name, layer, tier, url: "http://{addr}".into(), more: String::new() });
}

#[given(expr = "a block every {int} ms")]
async fn block_time(proxy: &mut Proxy, millis: u64) {
    proxy.block_time = Some(Duration::from_millis(millis));
}

#[given("the settings:")]
async fn settings(proxy: &mut Proxy, step: &Step) {
    for row in &step.table.as_ref().expect("a table").rows {
        proxy.settings.insert(row[0].clone(), row[1].clone());
    }
}

#[given("the default health settings")]
async fn default_health(proxy: &mut Proxy) {
    proxy.settings.retain(|key, _| !key.starts_with("health."));
}

#[given("the proxy runs")]
async fn runs(proxy: &mut Proxy) {
    proxy.start().await;
    all_probed(proxy).await;
}

/// Waits until every node was heard or found wanting.
async fn all_probed(proxy: &Proxy) {
    eventually("every node is probed", soon(), async || {
        let status = proxy.status().await;
        let known = |node: &Value| node["head"].is_number() || node["last_error"].is_object();
        match status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(known)) {
            true => Ok(()),
            false => Err(format!("{status:#}")),
        }
    })
    .await;
}

#[given("the proxy runs, and no node was ever up")]
async fn runs_without_nodes(proxy: &mut Proxy) {
    let network = proxy.network().await;
    for name in proxy.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
        here(network.kill(proxy.at(&name)).await);
    }
    runs(proxy).await;
}

/// Has a pretend node err in its own way.
pub async fn befalls(proxy: &mut Proxy, name: &str, fault: Fault) {
    proxy.since = Instant::now();
    let node = proxy.node(name);
    node.set_fault(fault);
    timeout(soon(), node.settled()).await.expect("the fault is felt");
}

#[given(
    regex = r"^(\S+) (goes down|hangs|answers with garbage|answers with HTTP 500|answers with HTTP 429|starts to sync)$"
)]
#[when(
    regex = r"^(\S+) (goes down|hangs|answers with garbage|answers with HTTP 500|answers with HTTP 429|starts to sync)$"
)]
async fn fails(proxy: &mut Proxy, name: String, how: String) {
    proxy.since = Instant::now();
    let (network, at) = (proxy.network().await, proxy.at(&name));
    let fault = match how.as_str() {
        "goes down" => return here(network.kill(at).await),
        "hangs" => return here(network.hang(at).await),
        "answers with garbage" => Fault::Garbage,
        "answers with HTTP 500" => Fault::Failing,
        "answers with HTTP 429" => Fault::rate_limited(1),
        _ => Fault::Syncing,
    };
    befalls(proxy, &name, fault).await;
}

#[given(expr = "{word} falls {int} block(s) behind")]
#[when(expr = "{word} falls {int} block(s) behind")]
async fn lags(proxy: &mut Proxy, name: String, blocks: u64) {
    proxy.since = Instant::now();
    here(proxy.net().lag(proxy.at(&name), blocks).await);
}

#[when(expr = "{word} claims a head {int} blocks too high")]
async fn lies(proxy: &mut Proxy, name: String, blocks: u64) {
    befalls(proxy, &name, Fault::lie(blocks)).await;
}

#[when(expr = "{word} returns as a node of chain {int}")]
async fn other_chain(proxy: &mut Proxy, name: String, chain: u64) {
    let node = proxy.node(&name);
    node.set_fault(Fault::wrong_chain(chain));
    node.clear_fault("down");
    timeout(soon(), node.settled()).await.expect("the node listens");
}

#[given(expr = "{word} answers {int} ms late")]
#[when(expr = "{word} answers {int} ms late")]
async fn slow(proxy: &mut Proxy, name: String, millis: u64) {
    befalls(proxy, &name, Fault::slow(millis)).await;
}

#[given(regex = r"^(\S+) loses its answers to (\w+_\w+)$")]
#[when(regex = r"^(\S+) loses its answers to (\w+_\w+)$")]
async fn loses(proxy: &mut Proxy, name: String, method: String) {
    befalls(proxy, &name, Fault::cut_answer(&[&method])).await;
}

#[when(expr = "{word} breaks off in the middle of its answers")]
async fn breaks_off(proxy: &mut Proxy, name: String) {
    befalls(proxy, &name, Fault::CutMidBody).await;
}

#[when(expr = "{word} answers every call with error {int} {string}")]
async fn errs(proxy: &mut Proxy, name: String, code: i64, message: String) {
    befalls(proxy, &name, Fault::rpc_error(code, &message)).await;
}

#[when(expr = "{word} stops following the chain")]
async fn freezes(proxy: &mut Proxy, name: String) {
    proxy.since = Instant::now();
    here(proxy.net().freeze(proxy.at(&name)).await);
}

#[when(expr = "{word} is well again")]
async fn well_again(proxy: &mut Proxy, name: String) {
    proxy.since = Instant::now();
    here(proxy.net().start(proxy.at(&name)).await);
}

#[given(regex = r"^(\d+) (?:block is|blocks are) mined$")]
#[when(regex = r"^(\d+) (?:block is|blocks are) mined$")]
async fn mined(proxy: &mut Proxy, blocks: u64) {
    here(proxy.network().await.mine(blocks).await);
}

#[when(expr = "{int} blocks are mined, one every {int} ms")]
async fn mined_slowly(proxy: &mut Proxy, blocks: u64, millis: u64) {
    for _ in 0..blocks {
        here(proxy.network().await.mine(1).await);
        // The chain's own pace, and nothing to wait for.
        sleep(Duration::from_millis(millis)).await;
    }
}

#[then(regex = r"^(\S+) is found (up|lagging|stalled|syncing|suspect|wrong_chain|optimistic|el_offline|resting|down)$")]
async fn found(proxy: &mut Proxy, name: String, verdict: String) {
    let proxy = &*proxy;
    eventually(&format!("{name} is found {verdict}"), soon(), async || {
        let node = proxy.status_of(&name).await;
        if node["verdict"] == *verdict { Ok(()) } else { Err(format!("{node:#}")) }
    })
    .await;
    agree(proxy).await;
}

#[then(regex = r"^(\S+) is found (up|suspect), and never unusable, for (\d+) ms$")]
async fn stays(proxy: &mut Proxy, name: String, verdict: String, millis: u64) {
    let until = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < until {
        let node = proxy.status_of(&name).await;
        assert_eq!(node["verdict"], *verdict, "{node:#}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[then(expr = "{word} is known to be behind")]
async fn behind(proxy: &mut Proxy, name: String) {
    let proxy = &*proxy;
    eventually(&format!("{name} is known to be behind"), soon(), async || {
        let node = proxy.status_of(&name).await;
        // One block may only mean that the others were probed later.
        if node["lag"].as_u64().is_some_and(|lag| lag > 1) { Ok(()) } else { Err(format!("{node:#}")) }
    })
    .await;
}

#[then(expr = "{word} is found down: {string}")]
async fn found_down(proxy: &mut Proxy, name: String, reason: String) {
    let proxy = &*proxy;
    eventually(&format!("{name} is found down: {reason}"), soon(), async || {
        let node = proxy.status_of(&name).await;
        let right = node["verdict"] == "down" && node["reason"] == format!("down: {reason}");
        if right { Ok(()) } else { Err(format!("{node:#}")) }
    })
    .await;
}

#[then(expr = "{word} is up again after no fewer than {int} good probes")]
async fn proved(proxy: &mut Proxy, name: String, probes: u64) {
    let proxy = &*proxy;
    eventually(&format!("{name} is up again"), soon(), async || {
        let node = proxy.status_of(&name).await;
        if node["usable"] == true { Ok(()) } else { Err(format!("{node:#}")) }
    })
    .await;
    let made = proxy.node(&name).count(proxy.probe());
    assert!(made >= probes, "{made} probes since {name} was well again");
}

#[then(expr = "{word} needs {int} good probes to return")]
async fn needs(proxy: &mut Proxy, name: String, probes: u64) {
    let proxy = &*proxy;
    eventually(&format!("{name} needs {probes} good probes"), soon(), async || {
        let node = proxy.status_of(&name).await;
        if node["good_probes_needed"] == probes { Ok(()) } else { Err(format!("{node:#}")) }
    })
    .await;
}

#[then(expr = "{word} goes on being probed, {int} times, never more than {int} ms apart")]
async fn probed(proxy: &mut Proxy, name: String, times: usize, millis: u64) {
    let proxy = &*proxy;
    let probes = eventually(&format!("{name} is probed {times} times"), soon(), async || {
        let requests = proxy.node(&name).requests();
        let probes = requests.iter().filter(|r| r.method == proxy.probe() && r.at > proxy.since);
        let probes: Vec<Instant> = std::iter::once(proxy.since).chain(probes.map(|r| r.at)).collect();
        if probes.len() > times { Ok(probes) } else { Err(format!("{} times", probes.len() - 1)) }
    })
    .await;
    let gap = probes.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(gap <= Duration::from_millis(millis), "a gap of {gap:?}");
}

#[then(expr = "the pool's head is the chain's")]
async fn head_is_the_chains(proxy: &mut Proxy) {
    let proxy = &*proxy;
    eventually("the pool's head is the chain's", soon(), async || {
        let (status, head) = (proxy.status().await, proxy.net().height());
        if status["head"] == head { Ok(()) } else { Err(format!("the chain is at {head}: {status:#}")) }
    })
    .await;
    agree(proxy).await;
}

#[then("the status says that the pool is degraded")]
async fn degraded(proxy: &mut Proxy) {
    degradation(proxy, true).await;
}

#[then("the status says that the pool is no longer degraded")]
async fn not_degraded(proxy: &mut Proxy) {
    degradation(proxy, false).await;
}

async fn degradation(proxy: &Proxy, degraded: bool) {
    eventually("the status tells of it", soon(), async || {
        let status = proxy.status().await;
        match status["degraded"] == degraded && (!degraded || status["failover"] == true) {
            true => Ok(()),
            false => Err(format!("{status:#}")),
        }
    })
    .await;
    agree(proxy).await;
}

#[then(regex = "^the status tells of (a|no) failover, and status and metrics agree$")]
async fn failover(proxy: &mut Proxy, what: String) {
    let proxy = &*proxy;
    eventually(&format!("the status tells of {what} failover"), soon(), async || {
        let status = proxy.status().await;
        if status["failover"] == (what == "a") { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    agree(proxy).await;
}

#[then(expr = "the proxy has counted a switch for the reason {word}")]
async fn switched(proxy: &mut Proxy, reason: String) {
    let layer = proxy.layer().as_str();
    let line = format!(r#"steadfast_switches_total{{layer="{layer}",network="default",reason="{reason}"}}"#);
    let proxy = &*proxy;
    eventually(&format!("a switch for the reason {reason}"), soon(), async || match proxy.metric(&line).await {
        Some(count) if count >= 1.0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[then("status and metrics agree")]
async fn status_and_metrics(proxy: &mut Proxy) {
    agree(proxy).await;
}

/// Every fact of the status stands in the metrics too.
async fn agree(proxy: &Proxy) {
    eventually("status and metrics agree", soon(), async || {
        let status = proxy.status().await;
        let (_, metrics) = proxy.get("/metrics").await;
        let has = |line: String| metrics.lines().any(|l| l == line).then_some(()).ok_or(line);
        let one = |yes: bool| u8::from(yes);
        let layer = proxy.layer().as_str();
        let whole = || -> Result<(), String> {
            if status["head"].is_number() {
                has(format!(r#"steadfast_pool_head{{layer="{layer}",network="default"}} {}"#, status["head"]))?;
            }
            let failover = one(status["failover"] == true);
            has(format!(r#"steadfast_failover_active{{layer="{layer}",network="default"}} {failover}"#))?;
            for node in status["nodes"].as_array().unwrap() {
                let (name, tier) = (node["name"].as_str().unwrap(), node["tier"].as_str().unwrap());
                let labels = format!(r#"layer="{layer}",network="default",node="{name}""#);
                has(format!(r#"steadfast_node_usable{{{labels},tier="{tier}"}} {}"#, one(node["usable"] == true)))?;
                has(format!(r#"steadfast_active_node{{{labels}}} {}"#, one(status["active"] == *name)))?;
                has(format!(r#"steadfast_node_verdict{{{labels},verdict={}}} 1"#, node["verdict"]))?;
                for (key, metric) in [("head", "node_head"), ("lag", "node_lag")] {
                    if node[key].is_number() {
                        has(format!("steadfast_{metric}{{{labels}}} {}", node[key]))?;
                    }
                }
            }
            Ok(())
        };
        whole().map_err(|line| format!("no line {line} beside {status:#}\n{metrics}"))
    })
    .await;
}

#[then(expr = "no client is shown a lower block than before, {int} times")]
async fn forwards(proxy: &mut Proxy, times: usize) {
    for _ in 0..times {
        shown(proxy).await;
    }
}

#[then(expr = "no client is shown a lower block than before until the chain is at {int}")]
async fn forwards_until(proxy: &mut Proxy, height: u64) {
    let until = Instant::now() + soon();
    while proxy.highest < height {
        assert!(Instant::now() < until, "the chain is at {}, not at {height}", proxy.highest);
        shown(proxy).await;
        sleep(Duration::from_millis(10)).await;
    }
}

async fn shown(proxy: &mut Proxy) {
    let highest = proxy.highest;
    let number = match proxy.layer() {
        Layer::El => {
            let reply = proxy.call("eth_blockNumber", &json!([])).await.json();
            let text = reply["result"].as_str().unwrap_or_else(|| panic!("no block: {reply}"));
            u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
        }
        Layer::Cl => {
            let reply = reply(proxy.beacon(Method::GET, "/eth/v1/beacon/headers/head")).await.json();
            let slot = reply["data"]["header"]["message"]["slot"].as_str();
            slot.unwrap_or_else(|| panic!("no slot: {reply}")).parse().unwrap()
        }
    };
    assert!(number >= highest, "from {highest} to {number}: {:#}", proxy.status().await);
    proxy.highest = number;
}
