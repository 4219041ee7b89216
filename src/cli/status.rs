//! `steadfast status`: prints a running proxy's view of its nodes.

mod fleet;

use std::{io::Write, process::ExitCode, time::Duration};

use clap::Args;
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    admin::{Admin, AdminUrl},
    block_on, show,
    table::table,
};

/// Names the proxy, and the form of the output.
#[derive(Args)]
pub(super) struct Status {
    #[command(flatten)]
    admin: Admin,
    /// Show the table anew every second until Ctrl-C, with its age.
    #[arg(long)]
    watch: bool,
    /// Print everything that is known as JSON.
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Show the replicas of the cluster, as this one knows them, in the place of the nodes.
    #[arg(long, conflicts_with_all = ["watch", "json"])]
    fleet: bool,
    /// Print nothing; only the exit code tells whether the proxy is ready (0) or not (1).
    #[arg(long, conflicts_with_all = ["watch", "json", "fleet"])]
    ready: bool,
    /// Print nothing; only the exit code tells whether the process is alive (0) or not (1).
    #[arg(long, conflicts_with_all = ["watch", "json", "fleet", "ready"])]
    live: bool,
}

/// How long the proxy may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two questions of `--watch`.
const ROUND: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Report {
    version: String,
    ready: bool,
    draining: bool,
    networks: Vec<Network>,
    #[serde(default)]
    cluster: Option<fleet::Fleet>,
}

#[derive(Deserialize)]
struct Network {
    name: String,
    el: Option<Side>,
    cl: Option<Side>,
}

impl Network {
    /// The network's name with each of its sides.
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
    budget: Option<Budget>,
    #[serde(default)]
    idle: bool,
}

/// The credits of a node; of a limit that is not set, neither number is there.
#[derive(Deserialize)]
struct Budget {
    burst: Option<u64>,
    burst_left: Option<u64>,
    per_day: Option<u64>,
    day_left: Option<u64>,
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
        if status.live {
            let answer = status.admin.get("/livez", TIMEOUT).await;
            return answer.is_ok_and(|answer| answer.status.is_success());
        }
        if status.watch {
            watch(&status.admin).await;
            return false;
        }
        let answer = fetch(&status.admin).await;
        let is_ready = answer.as_ref().is_ok_and(|(report, _)| report.ready);
        match answer {
            _ if status.ready => {}
            Ok((_, text)) if status.json => show(text),
            Ok((report, _)) if status.fleet => show(fleet::render(report.cluster.as_ref())),
            Ok((report, _)) => show(render(&report, None)),
            Err(why) => eprintln!("{why}"),
        }
        is_ready
    });
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(code) => code,
    }
}

/// The proxy's report, and its text.
async fn fetch(admin: &Admin) -> Result<(Report, String), String> {
    let answer = admin.get("/status", TIMEOUT).await?;
    let read = || serde_json::from_str(&answer.body).ok().filter(|_| answer.status.is_success());
    match read() {
        Some(report) => Ok((report, answer.body)),
        None => Err(format!(
            "{} answers, and not as a proxy's admin side (HTTP status {})\nis this its admin.listen? --admin names another",
            admin.url(),
            answer.status
        )),
    }
}

/// Shows the report anew every second, until the output is closed.
async fn watch(admin: &Admin) {
    let mut screen = Screen { admin: admin.url(), last: None, trouble: None };
    loop {
        let next = Instant::now() + ROUND;
        let mut asking = std::pin::pin!(fetch(admin));
        let outcome = loop {
            // Both arms are cancel-safe. While no answer comes, the age of the last one goes on.
            tokio::select! {
                biased;
                outcome = &mut asking => break outcome,
                () = sleep(ROUND) => if !screen.draw() { return },
            }
        };
        match outcome {
            Ok((report, _)) => (screen.last, screen.trouble) = (Some((report, Instant::now())), None),
            Err(why) => screen.trouble = Some(why),
        }
        if !screen.draw() {
            return;
        }
        sleep_until(next).await;
    }
}

/// The page that `--watch` shows.
struct Screen {
    admin: AdminUrl,
    /// The last report, and the moment of its arrival.
    last: Option<(Report, Instant)>,
    /// Why no report comes now.
    trouble: Option<String>,
}

impl Screen {
    /// Shows the page. `false` where the output is closed.
    fn draw(&self) -> bool {
        // Clear the screen, and begin at its first line.
        let text = format!("\x1b[2J\x1b[H{}", self.text(Instant::now()));
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
    }

    /// The report with its age; or, while none comes, why, and how old the last one is. Nodes that
    /// were well then may not be now, so an old report is not shown beside an error.
    fn text(&self, now: Instant) -> String {
        let age = |at: &Instant| now.saturating_duration_since(*at).as_secs();
        match (&self.last, &self.trouble) {
            (Some((report, at)), None) => render(report, Some(age(at))),
            (Some((_, at)), Some(why)) => format!("{why}\nlast answer: {} s ago\n", age(at)),
            (None, Some(why)) => format!("{why}\nno answer yet\n"),
            (None, None) => format!("asking {}\n", self.admin),
        }
    }
}

/// The report as a table, with its age in seconds where that is of interest.
fn render(report: &Report, age: Option<u64>) -> String {
    let state = match (report.ready, report.draining) {
        (true, _) => "ready",
        (false, true) => "draining",
        (false, false) => "not ready",
    };
    let age = age.map_or_else(String::new, |seconds| format!(", as of {seconds} s ago"));
    let mut text = format!("steadfast {}: {state}{age}\n\n", report.version);
    let head = ["", "NETWORK", "NODE", "TIER", "URL", "HEAD", "LAG", "LATENCY", "IN FLIGHT", "STATE", "LAST ERROR"];
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
        if side.active.is_none() {
            text.push_str(&format!("network {network}, {layer}: no node can serve; calls wait, and then fail\n"));
        }
    }
    text.push_str(&table(&rows));
    text
}

fn state_of(node: &Node) -> String {
    let state = if node.cordoned { format!("cordoned ({})", node.reason) } else { node.reason.clone() };
    let idle = node.idle.then(|| "idle".to_owned());
    let pair = match &node.pair {
        Some(Pair { name, fault: Some(fault) }) => Some(format!("pair {name}: {fault}")),
        _ => None,
    };
    let credits = node.budget.as_ref().map(Budget::in_words);
    [Some(state), idle, credits, pair].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

impl Budget {
    fn in_words(&self) -> String {
        let at_once = self.burst_left.zip(self.burst).map(|(left, burst)| format!("{left} of {burst}"));
        let today = self.day_left.zip(self.per_day).map(|(left, per_day)| format!("{left} of {per_day} today"));
        let left = [at_once, today].into_iter().flatten().collect::<Vec<_>>();
        format!("credits left: {}", left.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(last: Option<u64>, trouble: Option<&str>) -> String {
        let now = Instant::now();
        let report =
            || Report { version: "1.2.3".into(), ready: true, draining: false, networks: Vec::new(), cluster: None };
        let last = last.map(|age| (report(), now - Duration::from_secs(age)));
        Screen { admin: AdminUrl::of("http://a"), last, trouble: trouble.map(str::to_owned) }.text(now)
    }

    #[test]
    fn a_report_that_is_watched_tells_its_age() {
        assert!(screen(Some(0), None).starts_with("steadfast 1.2.3: ready, as of 0 s ago\n"));
        assert!(screen(Some(4), None).starts_with("steadfast 1.2.3: ready, as of 4 s ago\n"));
    }

    #[test]
    fn the_state_of_a_node_tells_of_its_credits_and_that_it_is_idle() {
        let of = |more: serde_json::Value| {
            let mut node = serde_json::json!({
                "name": "a", "tier": "backup", "url": "http://a", "reason": "up", "cordoned": false, "head": null,
                "lag": null, "latency_ms": null, "in_flight": 0, "last_error": null, "pair": null, "budget": null,
            });
            node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            state_of(&serde_json::from_value(node).unwrap())
        };
        let budget = |burst: Option<u64>, per_day: Option<u64>| {
            serde_json::json!({
                "per_second": burst, "burst": burst, "burst_left": burst.map(|_| 7), "per_day": per_day,
                "day_left": per_day.map(|_| 480),
            })
        };
        assert_eq!(of(serde_json::json!({})), "up");
        let both = serde_json::json!({ "budget": budget(Some(10), Some(500)), "idle": true });
        assert_eq!(of(both), "up; idle; credits left: 7 of 10, 480 of 500 today");
        assert_eq!(of(serde_json::json!({ "budget": budget(None, Some(500)) })), "up; credits left: 480 of 500 today");
    }

    #[test]
    fn a_proxy_that_is_gone_leaves_no_old_report_on_the_screen() {
        assert_eq!(screen(Some(12), Some("gone")), "gone\nlast answer: 12 s ago\n");
        assert_eq!(screen(None, Some("gone")), "gone\nno answer yet\n");
    }
}
