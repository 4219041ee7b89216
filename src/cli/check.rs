//! `steadfast check`: is what the settings name there, and is it well?

use std::{process::ExitCode, sync::Arc};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Settings, block_on, table::table};
use crate::{
    app::World,
    config::{Config, Network},
    metrics::Metrics,
    pool::{board::Probe, node::Node, probe::probe},
};

pub(super) fn run(settings: &Settings) -> ExitCode {
    let config = match settings.read_or_complain() {
        Ok(config) => config,
        Err(code) => return code,
    };
    match block_on(check(&config)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(code) => code,
    }
}

/// One node's line, and whether it is well.
struct Line {
    cells: Vec<String>,
    well: bool,
}

async fn check(config: &Config) -> bool {
    let world = World::real(0);
    let metrics = Arc::new(Metrics::new());
    let networks = config.networks.iter().map(|network| check_network(network, config, &world, &metrics));
    let lines: Vec<Line> = join_all(networks).await.into_iter().flatten().collect();
    let head = ["NETWORK", "NODE", "TIER", "URL", "CHAIN", "HEAD", "LATENCY", "STATE"].map(str::to_owned).to_vec();
    let well = lines.iter().all(|line| line.well);
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(lines.into_iter().map(|line| line.cells)).collect();
    print!("{}", table(&rows));
    println!("{}", if well { "all is well" } else { "not all is well" });
    well
}

async fn check_network(network: &Network, config: &Config, world: &World, metrics: &Metrics) -> Vec<Line> {
    let probes = network.el.iter().map(|settings| async move {
        let node = Node::new(settings, settings.name.as_str(), &world.dial, config.health.timeout, 0, metrics);
        let outcome = match &node {
            Err(why) => Err(why.clone()),
            Ok(node) => match timeout(config.health.timeout, probe(node, true)).await {
                Ok(outcome) => outcome.map_err(|trouble| trouble.text),
                Err(_) => Err(format!("no answer within {:?}", config.health.timeout)),
            },
        };
        (settings, outcome)
    });
    let outcomes = join_all(probes).await;
    let best = outcomes.iter().filter_map(|(_, outcome)| Some(outcome.as_ref().ok()?.block.number)).max();
    let first = outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().ok()?.chain_id);
    let chain = network.chain_id.or(first);
    let mut lines: Vec<Line> = outcomes
        .iter()
        .map(|(node, outcome)| {
            let url = node.http.as_ref().or(node.ws.as_ref()).map(ToString::to_string).unwrap_or_default();
            let name = format!("el {}", node.name);
            let mut cells = vec![network.name.to_string(), name, node.tier.to_string(), url];
            let state = match outcome {
                Ok(probe) => {
                    cells.push(probe.chain_id.map_or_else(String::new, |id| id.to_string()));
                    cells.push(probe.block.number.to_string());
                    cells.push(format!("{:.1} ms", probe.latency.as_secs_f64() * 1000.0));
                    state(probe, chain, best, config.health.max_lag_blocks)
                }
                Err(why) => {
                    cells.extend([String::new(), String::new(), String::new()]);
                    Err(why.clone())
                }
            };
            let well = state.is_ok();
            cells.push(state.map_or_else(|why| why, |()| "well".to_owned()));
            Line { cells, well }
        })
        .collect();
    lines.extend(network.cl.iter().map(|node| {
        let url = node.http.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut cells = vec![network.name.to_string(), format!("cl {}", node.name), node.tier.to_string(), url];
        cells.extend([String::new(), String::new(), String::new()]);
        cells.push("consensus nodes are not served by this version".to_owned());
        Line { cells, well: false }
    }));
    lines
}

/// What is wrong with a node that answers, beside the others.
fn state(probe: &Probe, chain: Option<u64>, best: Option<u64>, near: u64) -> Result<(), String> {
    match (chain, probe.chain_id) {
        (Some(expected), Some(id)) if id != expected => return Err(format!("on chain {id}, not {expected}")),
        _ => {}
    }
    if probe.syncing {
        return Err("syncing".to_owned());
    }
    let lag = best.unwrap_or(0).saturating_sub(probe.block.number);
    if lag > near { Err(format!("{lag} blocks behind the best")) } else { Ok(()) }
}
