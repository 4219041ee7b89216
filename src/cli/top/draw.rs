//! Draws the screen. Colours repeat the words and marks.

use std::time::Duration;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};
use tokio::time::Instant;

use super::{
    model::{Node, Side, Snapshot, Switch},
    screen::Screen,
};

/// A snapshot that is older than this is told to be old: one comes each second.
const FRESH: Duration = Duration::from_secs(3);
/// Lines for the last switches, with their title.
const SWITCHES: u16 = 6;
/// The columns of a node's line; the last one takes the rest of the line.
const COLUMNS: [(&str, usize, bool); 9] = [
    ("", 2, false),
    ("NODE", 20, false),
    ("TIER", 8, false),
    ("STATE", 26, false),
    ("HEAD", 11, true),
    ("LAG", 9, true),
    ("LATENCY", 10, true),
    ("IN FLIGHT", 10, true),
    ("CALLS/S", 9, true),
];

const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const CAREFUL: Style = Style::new().fg(Color::Yellow);
const GOOD: Style = Style::new().fg(Color::Green);

/// Draws all of it, at the moment `now`.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, now: Instant) {
    let foot = if screen.question.is_some() || screen.message.is_some() { 2 } else { 1 };
    let switches = if frame.area().height >= 16 { SWITCHES } else { 0 };
    let heights = [Constraint::Length(3), Constraint::Min(1), Constraint::Length(switches), Constraint::Length(foot)];
    let [head, body, below, keys] = Layout::vertical(heights).areas(frame.area());
    let width = usize::from(frame.area().width);
    show(frame, head, header(screen, now));
    if let Some(snapshot) = &screen.snapshot {
        let is_old = is_old(screen, now);
        let (lines, selected) = nodes(screen, snapshot, width);
        let lines = if is_old { lines.into_iter().map(|line| line.style(FAINT)).collect() } else { lines };
        // The selected node stays in view.
        let height = usize::from(body.height);
        let first = selected.map_or(0, |at| (at + 1).saturating_sub(height));
        show(frame, body, lines.into_iter().skip(first).collect());
        show(frame, below, last_switches(snapshot, usize::from(below.height)));
    }
    show(frame, keys, footer(screen));
}

fn show(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines), area);
}

fn is_old(screen: &Screen, now: Instant) -> bool {
    screen.away.is_some() || screen.at.is_none_or(|at| now.saturating_duration_since(at) > FRESH)
}

fn header<'a>(screen: &'a Screen, now: Instant) -> Vec<Line<'a>> {
    let Some(snapshot) = &screen.snapshot else {
        let why = screen.away.as_ref().map_or_else(|| "asking".to_owned(), |why| format!("no answer: {why}"));
        let style = if screen.away.is_some() { BAD } else { TITLE };
        return vec![Line::styled(format!("steadfast top  {}", screen.admin), TITLE), Line::styled(why, style)];
    };
    let status = &snapshot.status;
    let (state, style) = match (status.ready, status.draining) {
        (true, _) => ("ready", GOOD),
        (false, true) => ("draining", CAREFUL),
        (false, false) => ("NOT READY", BAD),
    };
    let age = screen.at.map_or(0, |at| now.saturating_duration_since(at).as_secs());
    let mut first = vec![
        Span::styled(format!("steadfast {}  ", status.version), TITLE),
        Span::styled(state, style),
        Span::raw(format!("  up {}  {}", span(snapshot.uptime_ms / 1000), screen.admin)),
    ];
    if is_old(screen, now) {
        let why = screen.away.as_deref().unwrap_or("no news");
        first = vec![Span::styled(format!("NO ANSWER for {}: {why}. Shown is the state of then.", span(age)), BAD)];
    }
    let clients = &snapshot.clients;
    let [calls, lost] = screen.rates.all_calls().map_or(["-".to_owned(), "-".to_owned()], |rates| rates.map(rate));
    let subscriptions: u64 = clients.subscriptions.values().sum();
    let second = vec![
        Span::raw(format!("calls {calls}/s  unanswered ")),
        Span::styled(format!("{lost}/s"), if lost == "0.0" || lost == "-" { Style::new() } else { BAD }),
        Span::styled(format!("  held {}", snapshot.held()), if snapshot.held() > 0 { CAREFUL } else { Style::new() }),
        Span::raw(format!(
            "  clients {} http, {} ws with {subscriptions} subscriptions, {} event streams  memory {} of {}",
            clients.http,
            clients.websockets,
            clients.event_streams,
            size(clients.memory_bytes),
            size(clients.memory_limit_bytes)
        )),
    ];
    vec![Line::from(first), Line::from(second), Line::raw("")]
}

/// The lines of all nodes, and which of them is the selected one's.
fn nodes<'a>(screen: &Screen, snapshot: &'a Snapshot, width: usize) -> (Vec<Line<'a>>, Option<usize>) {
    let mut lines = Vec::new();
    let mut selected = None;
    for (network, layer, side) in snapshot.sides() {
        if !lines.is_empty() {
            lines.push(Line::raw(""));
        }
        lines.push(title(screen, network, layer, side));
        let head: Vec<String> = COLUMNS.iter().map(|(name, ..)| (*name).to_owned()).collect();
        lines.push(Line::styled(format!("{}  LAST ERROR", columns(&head)), FAINT));
        for node in &side.nodes {
            let place = [network.to_owned(), layer.to_owned(), node.name.clone()];
            let is_selected = screen.selected.as_ref() == Some(&place);
            if is_selected {
                selected = Some(lines.len());
            }
            let is_active = side.active.as_ref() == Some(&node.name);
            let calls = screen.rates.attempts(&place).map_or_else(|| "-".to_owned(), rate);
            let text: String = line(node, is_active, is_selected, &calls).chars().take(width).collect();
            let mut style = match (node.usable, node.cordoned) {
                (_, true) => CAREFUL,
                (true, false) if node.reason == "up" => Style::new(),
                (true, false) => CAREFUL,
                (false, false) => BAD,
            };
            if is_selected {
                style = style.add_modifier(Modifier::REVERSED);
            }
            lines.push(Line::styled(text, style));
        }
    }
    (lines, selected)
}

fn title<'a>(screen: &Screen, network: &'a str, layer: &'a str, side: &'a Side) -> Line<'a> {
    let head = side.head.map_or_else(|| "no head".to_owned(), |head| format!("head {head}"));
    let [calls, lost] =
        screen.rates.calls(network, layer).map_or(["-".to_owned(), "-".to_owned()], |both| both.map(rate));
    let mut spans = vec![
        Span::styled(format!("{network} {layer}"), TITLE),
        Span::raw(format!("  {head}  calls {calls}/s, unanswered {lost}/s  ")),
    ];
    let active = side.active.as_deref().unwrap_or("none");
    spans.push(match (side.serves, side.degraded, side.failover) {
        (false, ..) => Span::styled("NO NODE CAN SERVE: calls wait, and then fail", BAD),
        (true, true, _) => {
            Span::styled(format!("calls go to {active}, the least bad: no node is usable by the rules"), BAD)
        }
        (true, false, true) => Span::styled(format!("calls go to the backup {active}"), CAREFUL),
        (true, false, false) => Span::styled(format!("calls go to {active}"), GOOD),
    });
    if side.calls_wait {
        spans.push(Span::styled("; they wait for a node at the head", CAREFUL));
    }
    Line::from(spans)
}

/// The line of a node. `>` marks the node that calls go to, and `*` the selected one.
fn line(node: &Node, is_active: bool, is_selected: bool, calls: &str) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mark = format!("{}{}", if is_active { '>' } else { ' ' }, if is_selected { '*' } else { ' ' });
    let state = if node.cordoned { format!("cordoned ({})", node.reason) } else { node.reason.clone() };
    let cells = [
        mark,
        node.name.clone(),
        node.tier.clone(),
        state,
        number(node.head),
        number(node.lag),
        node.latency_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
        node.in_flight.to_string(),
        calls.to_owned(),
    ];
    let error = node.last_error.as_ref();
    let error = error.map_or_else(String::new, |error| format!("{} ({} ago)", error.message, span(error.seconds_ago)));
    format!("{}  {error}", columns(&cells)).trim_end().to_owned()
}

/// The cells in columns. A cell that is too long is cut, and ends with an ellipsis.
fn columns(cells: &[String]) -> String {
    let cell = |(text, (_, width, is_right)): (&String, &(&str, usize, bool))| {
        let (width, is_right) = (*width, *is_right);
        let text: String = match text.chars().count() > width {
            true => text.chars().take(width - 1).chain(std::iter::once('…')).collect(),
            false => text.clone(),
        };
        if is_right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    };
    cells.iter().zip(&COLUMNS).map(cell).collect::<Vec<_>>().join(" ")
}

fn last_switches(snapshot: &Snapshot, height: usize) -> Vec<Line<'_>> {
    let mut switches: Vec<&Switch> = snapshot.switches.iter().collect();
    switches.sort_by_key(|switch| std::cmp::Reverse(switch.at_ms));
    let mut lines = vec![Line::styled("Switches", TITLE)];
    if switches.is_empty() {
        lines.push(Line::raw("none yet"));
    }
    for Switch { network, layer, from, to, reason, at_ms } in switches.into_iter().take(height.saturating_sub(1)) {
        let ago = span(snapshot.uptime_ms.saturating_sub(*at_ms) / 1000);
        let name = |node: &Option<String>| node.clone().unwrap_or_else(|| "none".to_owned());
        let style = if to.is_none() { BAD } else { Style::new() };
        let text = format!("{ago:>9} ago  {network} {layer}  {} → {}: {reason}", name(from), name(to));
        lines.push(Line::styled(text, style));
    }
    lines
}

fn footer(screen: &Screen) -> Vec<Line<'_>> {
    let keys = Line::styled("q quit   ↑↓ tab select   c cordon   u uncordon   d drain", FAINT);
    if let Some(command) = &screen.question {
        return vec![Line::styled(format!("{}  y does it, any other key does not", command.question()), TITLE), keys];
    }
    match &screen.message {
        Some(message) => vec![Line::styled(message.as_str(), TITLE), keys],
        None => vec![keys],
    }
}

/// A number of things in a second.
fn rate(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// A span of time in its two largest units.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (0..units.len() - 1).find(|unit| bytes >> (10 * (unit + 1)) == 0).unwrap_or(units.len() - 1);
    format!("{} {}", bytes >> (10 * unit), units[unit])
}

#[cfg(test)]
mod tests;
