//! `steadfast check`: tests whether the nodes of the settings are reachable and well.

mod diff;
mod survey;

use std::{process::ExitCode, sync::Arc};

use clap::Args;
use futures_util::future::join_all;
use tokio::{task::JoinSet, time::timeout};

use self::survey::{Survey, survey};
use super::{admin::Admin, block_on, show, table::table};
use crate::{
    app::{World, dns::Followed},
    config::{Config, Network, Node as Settings},
    domain::{address::Address, chain::Chain, layer::Layer},
    metrics::Metrics,
    net::elsewhere::OwnAddresses,
    outbox::store::try_folder,
    pool::{
        clock,
        credits::Account,
        health::{Fault, Trouble},
        node::Node,
        probe::{Probe, ProbeClock, misplaced, probe},
        state::near,
    },
};

/// The settings to check.
#[derive(Args)]
pub(super) struct Check {
    #[command(flatten)]
    settings: super::Settings,
    /// Ask a running proxy for the effects of a reload, instead of asking the nodes: nodes that
    /// come, go and change, settings with both values, and those that need a restart.
    ///
    /// Exits with 0 if a reload would change nothing, 1 if something would change, 2 if the reload
    /// would be refused, and 3 if no proxy answers.
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    admin: Admin,
}

pub(super) fn run(Check { settings, diff, admin }: &Check) -> ExitCode {
    if *diff {
        return diff::run(settings, admin);
    }
    if admin.is_named() {
        eprintln!("--admin names a running proxy, which only --diff asks");
        return ExitCode::from(2);
    }
    let config = match settings.read_or_complain() {
        Ok(config) => config,
        Err(code) => return code,
    };
    match block_on(check(&config)) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(class)) => ExitCode::from(class as u8),
        Err(code) => code,
    }
}

/// The class of a complaint about a node: the exit code of the command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The node answers, and not as a node that is well. Also where complaints are of several
    /// classes.
    Failing = 1,
    /// The node does not answer. (2 stands for settings that are wrong.)
    Unreachable = 3,
    /// The node is on another chain.
    WrongChain = 4,
    /// The node is not in sync.
    Behind = 5,
}

/// A complaint in words, and its class.
type Complaint = (Class, String);

/// A node's line, the complaint about the node, and its line of the second table.
struct Line {
    cells: Vec<String>,
    class: Option<Class>,
    survey: Option<Vec<String>>,
}

/// Prints the state of all nodes. Returns the class of the complaints, if there are any.
async fn check(config: &Config) -> Option<Class> {
    let world = World::real(0);
    let metrics = Arc::new(Metrics::new());
    let listening = config.listen.iter().filter_map(Address::ip).chain([config.admin.listen]);
    let own = OwnAddresses::new(listening, world.listen.clone());
    let dns = Followed::new(world.names.clone(), own, metrics.clone()).looked_up(config).await;
    let config = &dns.expand(config);
    let networks = config.networks.iter().map(|network| check_network(network, config, &world, &metrics));
    let lines: Vec<Line> = join_all(networks).await.into_iter().flatten().collect();
    let mut classes: Vec<Class> = lines.iter().filter_map(|line| line.class).collect();
    classes.dedup();
    let class = match classes[..] {
        [] => None,
        [class] => Some(class),
        _ => Some(Class::Failing),
    };
    let head = ["NETWORK", "NODE", "TIER", "URL", "CHAIN", "HEAD", "LATENCY", "STATE"].map(str::to_owned).to_vec();
    let (cells, surveys): (Vec<_>, Vec<_>) = lines.into_iter().map(|line| (line.cells, line.survey)).unzip();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
    show(table(&rows));
    let head = ["NETWORK", "NODE", "SOFTWARE", "STATE FROM", "BLOCKS FROM", "OFFERS"].map(str::to_owned).to_vec();
    let surveys: Vec<Vec<String>> = surveys.into_iter().flatten().collect();
    if !surveys.is_empty() {
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(surveys).collect();
        show(format_args!("\n{}", table(&rows)));
    }
    let class = class.or(outbox_fault(config));
    show(format_args!("{}\n", if class.is_none() { "all is well" } else { "not all is well" }));
    class
}

/// Tells where the outbox has no folder that can be written.
fn outbox_fault(config: &Config) -> Option<Class> {
    let dir = &config.outbox.as_ref()?.dir;
    let why = try_folder(dir).err()?;
    show(format_args!("outbox.dir: no file can be made in {}: {why}\n", dir.display()));
    Some(Class::Failing)
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
        // The questions of a check are few, and no budget keeps them from being asked.
        let unbudgeted = Settings { budget: None, ..settings.clone() };
        let account = Account::new(world.wall.clone(), 0);
        let node = Node::new(&unbudgeted, (network.name.as_str(), layer), &world.dial, limit, 0, metrics, &account);
        let outcome = match node {
            Err(why) => Err((Class::Failing, why)),
            Ok(node) => {
                let _link: JoinSet<()> = node.link_run().into_iter().collect();
                let probed = async {
                    match probe(&ProbeClock::new(&node, limit), layer, None).await {
                        Ok(probe) => Ok(probe),
                        Err(Trouble { text, fault }) => Err(match misplaced(&node, layer).await {
                            Some(what) => (Class::Failing, format!("{what} ({text})")),
                            None => (class(&fault), text),
                        }),
                    }
                };
                let linked = async { node.linked().await.map_err(|why| (Class::Unreachable, why)) };
                let both = async { tokio::try_join!(probed, linked) };
                match timeout(limit, both).await {
                    Err(_) => Err((Class::Unreachable, format!("no answer within {limit:?}"))),
                    Ok(Err(complaint)) => Err(complaint),
                    Ok(Ok((probe, ()))) => {
                        let survey = survey(&node, layer, probe.block.number).await;
                        Ok((probe, survey))
                    }
                }
            }
        };
        (settings, outcome)
    });
    let outcomes = join_all(probes).await;
    let known = || outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).map(|(probe, _)| probe);
    let others = Others {
        best: known().map(|probe| probe.block.number).max().unwrap_or(0),
        chain: Chain::prevailing(known().map(|probe| &probe.chain), None, network.chain_id),
        expected: network.chain_id,
        near: near(layer, &config.health),
        unit: if layer == Layer::El { "blocks" } else { "slots" },
    };
    let line = |(node, outcome): &(&Settings, Result<(Probe, Survey), Complaint>)| {
        let name = format!("{} {}", layer.as_str(), node.name);
        let mut cells = vec![network.name.to_string(), name.clone(), node.tier.to_string(), node.shown_address()];
        let state = match outcome {
            Ok((probe, _)) => {
                cells.push(probe.chain.id.map_or_else(|| "no answer".to_owned(), |id| id.to_string()));
                cells.push(probe.block.number.to_string());
                cells.push(format!("{:.1} ms", probe.latency.as_secs_f64() * 1000.0));
                others.state(probe)
            }
            Err(complaint) => {
                cells.extend([String::new(), String::new(), String::new()]);
                Err(complaint.clone())
            }
        };
        let class = state.as_ref().err().map(|(class, _)| *class);
        cells.push(state.map_or_else(|(_, why)| why, |()| "well".to_owned()));
        let survey = outcome.as_ref().ok().map(|(_, survey)| survey.cells(network.name.to_string(), name));
        Line { cells, class, survey }
    };
    outcomes.iter().map(line).collect()
}

/// The class of a fault of a node that was probed.
fn class(fault: &Fault) -> Class {
    match fault {
        Fault::Unreachable | Fault::Silent | Fault::Dropped => Class::Unreachable,
        _ => Class::Failing,
    }
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
    fn state(&self, probe: &Probe) -> Result<(), Complaint> {
        let behind = |why: String| Err((Class::Behind, why));
        match (self.expected, &self.chain) {
            (Some(expected), _) if !probe.chain.may_be(self.expected) => {
                return Err((Class::WrongChain, format!("on chain {}, not {expected}", probe.chain)));
            }
            (_, Some(chain)) if !probe.chain.agrees_with(chain) => {
                return Err((Class::WrongChain, format!("on chain {}, not {chain}", probe.chain)));
            }
            _ => {}
        }
        if let Some(verdict) = probe.condition.verdict() {
            return behind(verdict.to_string());
        }
        let (lag, unit) = (self.best.saturating_sub(probe.block.number), self.unit);
        match probe.condition.sync_distance {
            _ if lag > self.near => behind(format!("{lag} {unit} behind the best")),
            distance if clock::is_late(distance, self.near) => {
                behind(format!("{distance} {unit} behind by its own word"))
            }
            _ => Ok(()),
        }
    }
}
