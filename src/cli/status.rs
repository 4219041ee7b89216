//! `steadfast status`: the nodes of a running proxy as it sees them.

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Args;
use serde::Deserialize;

use super::{block_on, table::table};

/// Which proxy, and how to show it.
#[derive(Args)]
pub(super) struct Status {
    /// The proxy's admin side.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9545")]
    admin: String,
    /// Show it anew every second until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Print nothing; only the exit code tells whether the proxy is ready (0) or not (1).
    #[arg(long, conflicts_with = "watch")]
    ready: bool,
}

/// How long the proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Report {
    version: String,
    ready: bool,
    draining: bool,
    networks: Vec<Network>,
}

#[derive(Deserialize)]
struct Network {
    name: String,
    el: Option<Side>,
    cl: Option<Side>,
}

impl Network {
    /// Its name with each side that it has.
    fn sides(&self) -> impl Iterator<Item = (&str, &'static str, &Side)> {
        let sides = [("el", &self.el), ("cl", &self.cl)];
        sides.into_iter().filter_map(|(layer, side)| Some((&*self.name, layer, side.as_ref()?)))
    }
}

#[derive(Deserialize)]
struct Side {
    active: Option<String>,
    degraded: bool,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
    tier: String,
    url: String,
    reason: String,
    cordoned: bool,
    head: Option<u64>,
    lag: Option<u64>,
    latency_ms: Option<f64>,
    in_flight: usize,
    last_error: Option<LastError>,
    pair: Option<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    fault: Option<String>,
}

#[derive(Deserialize)]
struct LastError {
    message: String,
    seconds_ago: u64,
}

pub(super) fn run(status: &Status) -> ExitCode {
    let shown = block_on(async {
        loop {
            let report = fetch(&status.admin).await;
            let is_ready = report.as_ref().is_ok_and(|report| report.ready);
            if status.ready {
                return is_ready;
            }
            if status.watch {
                // Home, and clear to the end of the screen.
                print!("\x1b[H\x1b[2J");
            }
            match report {
                Ok(report) => print!("{}", render(&report)),
                Err(why) => eprintln!("{why}"),
            }
            if !status.watch {
                return is_ready;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(code) => code,
    }
}

async fn fetch(admin: &str) -> Result<Report, String> {
    let url = format!("{}/status", admin.trim_end_matches('/'));
    let unreachable = |error: reqwest::Error| {
        let error = error.without_url();
        let causes = std::iter::successors(Some(&error as &dyn Error), |&error| error.source());
        let error = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        format!(
            "{admin} does not answer as a proxy's admin side: {error}\nis it running, and is this its admin.listen?"
        )
    };
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(unreachable)?;
    let response = client.get(&url).send().await.and_then(reqwest::Response::error_for_status).map_err(unreachable)?;
    response.json().await.map_err(unreachable)
}

fn render(report: &Report) -> String {
    let state = match (report.ready, report.draining) {
        (true, _) => "ready",
        (false, true) => "draining",
        (false, false) => "not ready",
    };
    let mut text = format!("steadfast {}: {state}\n\n", report.version);
    let head = ["", "NETWORK", "NODE", "TIER", "URL", "HEAD", "LAG", "LATENCY", "CALLS", "STATE", "LAST ERROR"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (network, layer, side) in report.networks.iter().flat_map(Network::sides) {
        for node in &side.nodes {
            let is_active = side.active.as_ref() == Some(&node.name);
            let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let error = node.last_error.as_ref();
            rows.push(vec![
                if is_active { ">".to_owned() } else { String::new() },
                network.to_owned(),
                format!("{layer} {}", node.name),
                node.tier.clone(),
                node.url.clone(),
                number(node.head),
                number(node.lag),
                node.latency_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
                node.in_flight.to_string(),
                state_of(node),
                error.map_or_else(String::new, |error| format!("{} ({} s ago)", error.message, error.seconds_ago)),
            ]);
        }
        if side.degraded {
            text.push_str(&format!(
                "network {network}, {layer}: no node is usable by the rules; the least bad one serves\n"
            ));
        }
    }
    text.push_str(&table(&rows));
    text
}

fn state_of(node: &Node) -> String {
    let state = if node.cordoned { format!("cordoned ({})", node.reason) } else { node.reason.clone() };
    match &node.pair {
        Some(Pair { name, fault: Some(fault) }) => format!("{state}; pair {name}: {fault}"),
        _ => state,
    }
}
