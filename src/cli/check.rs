//! `steadfast check`: tests whether the nodes of the settings are reachable and well.

use std::{process::ExitCode, sync::Arc};

use futures_util::future::join_all;
use tokio::{task::JoinSet, time::timeout};

use super::{block_on, table::table};
use crate::{
    app::World,
    config::{Config, Network, Node as Settings},
    domain::{chain::Chain, layer::Layer},
    metrics::Metrics,
    pool::{
        clock,
        health::Trouble,
        node::Node,
        probe::{Probe, misplaced, probe},
        state::near,
    },
};

pub(super) fn run(settings: &super::Settings) -> ExitCode {
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

/// A node's line, and whether the node is well.
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

async fn check_network(network: &Network, config: &Config, world: &World, metrics: &Arc<Metrics>) -> Vec<Line> {
    let sides = [(Layer::El, &network.el), (Layer::Cl, &network.cl)];
    let lines = join_all(sides.map(|(layer, nodes)| check_side(network, layer, nodes, config, world, metrics))).await;
    lines.into_iter().flatten().collect()
}

async fn check_side(
    network: &Network,
    layer: Layer,
    nodes: &[Settings],
    config: &Config,
    world: &World,
    metrics: &Arc<Metrics>,
) -> Vec<Line> {
    let limit = config.health.timeout;
    let probes = nodes.iter().map(|settings| async move {
        let node = Node::new(settings, (network.name.as_str(), layer), &world.dial, limit, 0, metrics, 0);
        let outcome = match node {
            Err(why) => Err(why),
            Ok(node) => {
                let _link: JoinSet<()> = node.link_run().into_iter().collect();
                let probed = async {
                    match probe(&node, layer, None).await {
                        Ok(probe) => Ok(probe),
                        Err(Trouble { text, .. }) => Err(match misplaced(&node, layer).await {
                            Some(what) => format!("{what} ({text})"),
                            None => text,
                        }),
                    }
                };
                let both = async { tokio::try_join!(probed, node.linked()) };
                let outcome = timeout(limit, both).await;
                outcome.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))).map(|(probe, ())| probe)
            }
        };
        (settings, outcome)
    });
    let outcomes = join_all(probes).await;
    let known = || outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok());
    let others = Others {
        best: known().map(|probe| probe.block.number).max().unwrap_or(0),
        chain: Chain::prevailing(known().map(|probe| &probe.chain), None, network.chain_id),
        expected: network.chain_id,
        near: near(layer, &config.health),
        unit: if layer == Layer::El { "blocks" } else { "slots" },
    };
    let line = |(node, outcome): &(&Settings, Result<Probe, String>)| {
        let url = node.http.as_ref().or(node.ws.as_ref()).map(ToString::to_string).unwrap_or_default();
        let name = format!("{} {}", layer.as_str(), node.name);
        let mut cells = vec![network.name.to_string(), name, node.tier.to_string(), url];
        let state = match outcome {
            Ok(probe) => {
                cells.push(probe.chain.id.map_or_else(|| "not told".to_owned(), |id| id.to_string()));
                cells.push(probe.block.number.to_string());
                cells.push(format!("{:.1} ms", probe.latency.as_secs_f64() * 1000.0));
                others.state(probe)
            }
            Err(why) => {
                cells.extend([String::new(), String::new(), String::new()]);
                Err(why.clone())
            }
        };
        let well = state.is_ok();
        cells.push(state.map_or_else(|why| why, |()| "well".to_owned()));
        Line { cells, well }
    };
    outcomes.iter().map(line).collect()
}

/// Everything that a node is compared with: the nodes of its side, and the settings.
struct Others {
    best: u64,
    chain: Option<Chain>,
    expected: Option<u64>,
    near: u64,
    unit: &'static str,
}

impl Others {
    /// The complaint about a node that answers.
    fn state(&self, probe: &Probe) -> Result<(), String> {
        match (self.expected, &self.chain) {
            (Some(expected), _) if !probe.chain.may_be(self.expected) => {
                return Err(format!("on chain {}, not {expected}", probe.chain));
            }
            (_, Some(chain)) if !probe.chain.agrees_with(chain) => {
                return Err(format!("on chain {}, not {chain}", probe.chain));
            }
            _ => {}
        }
        if let Some(verdict) = probe.condition.verdict() {
            return Err(verdict.to_string());
        }
        let (lag, unit) = (self.best.saturating_sub(probe.block.number), self.unit);
        match probe.condition.sync_distance {
            _ if lag > self.near => Err(format!("{lag} {unit} behind the best")),
            distance if clock::is_late(distance, self.near) => Err(format!("{distance} {unit} behind by its own word")),
            _ => Ok(()),
        }
    }
}
