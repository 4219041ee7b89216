//! Drawings of the screen, compared with those in files. `UPDATE=1` writes the files anew.

use std::{fs, path::Path};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::{Value, json};

use super::*;
use crate::cli::{
    admin::AdminUrl,
    top::{
        feed::News,
        screen::{Command, Step},
    },
};

fn node(name: &str, tier: &str, reason: &str, head: Option<u64>, error: Option<&str>) -> Value {
    json!({
        "name": name, "tier": tier, "reason": reason, "usable": matches!(reason, "up" | "lagging by 2"),
        "cordoned": false, "head": head, "lag": head.map(|head| 21_000_000 - head), "latency_ms": head.map(|_| 1.25),
        "in_flight": if reason == "up" { 3 } else { 0 },
        "last_error": error.map(|message| json!({ "message": message, "seconds_ago": 70 })),
    })
}

fn side(active: Option<&str>, nodes: &[Value]) -> Value {
    let backup =
        active.is_some_and(|active| nodes.iter().any(|node| node["name"] == active && node["tier"] == "backup"));
    json!({
        "head": 21_000_000, "active": active, "calls_wait": false, "degraded": false, "serves": active.is_some(),
        "failover": backup, "nodes": nodes,
    })
}

fn snapshot(at: u64, calls: u64, ready: bool, sides: [Value; 2], switches: &Value) -> News {
    let [el, cl] = sides;
    let told = json!({
        "uptime_ms": at, "switches": switches,
        "status": {
            "version": "1.2.3", "ready": ready, "draining": false,
            "networks": [{ "name": "default", "el": el, "cl": cl }],
        },
        "calls": [
            { "network": "default", "layer": "el", "held": if ready { 0 } else { 12 },
              "outcomes": { "result": calls, "no_node": calls / 10 },
              "methods": [["eth_call", calls, if ready { 0 } else { calls / 10 }]] },
        ],
        "attempts": [{ "network": "default", "layer": "el", "node": "geth-1", "answered": calls, "failed": 0 }],
        "clients": {
            "http": 12, "websockets": 3, "subscriptions": { "newHeads": 3, "logs": 4 }, "event_streams": 1,
            "memory_bytes": 12_600_000, "memory_limit_bytes": 4_294_967_296_u64,
        },
    });
    News::Snapshot(serde_json::from_value(told).unwrap())
}

fn quiet(at: u64, calls: u64) -> News {
    let el = side(
        Some("geth-1"),
        &[
            node("geth-1", "primary", "up", Some(21_000_000), None),
            node("geth-2", "primary", "lagging by 2", Some(20_999_998), None),
            node("provider-with-a-long-name", "backup", "up", Some(21_000_000), None),
        ],
    );
    let cl = side(Some("lighthouse-1"), &[node("lighthouse-1", "primary", "up", Some(21_000_000), None)]);
    snapshot(at, calls, true, [el, cl], &json!([]))
}

fn burning(at: u64, calls: u64) -> News {
    let el = side(
        None,
        &[
            node("geth-1", "primary", "down: connection refused", None, Some("connection refused")),
            node("geth-2", "primary", "syncing", Some(20_000_000), None),
            node(
                "provider-with-a-long-name",
                "backup",
                "down: unreachable, and has been for long",
                None,
                Some("HTTP status 503"),
            ),
        ],
    );
    let cl = side(
        Some("remote"),
        &[
            node("lighthouse-1", "primary", "down: silent", None, Some("no answer within 2s")),
            node("remote", "backup", "up", Some(21_000_000), None),
        ],
    );
    let switch = |layer: &str, from: &str, to: Option<&str>, reason: &str, at: u64| json!({ "network": "default", "layer": layer, "from": from, "to": to, "reason": reason, "at_ms": at });
    let switches = json!([
        switch("el", "geth-1", Some("provider-with-a-long-name"), "down", 3_500_000),
        switch("el", "provider-with-a-long-name", None, "down", 3_598_000),
        switch("cl", "lighthouse-1", Some("remote"), "down", 3_550_000),
    ]);
    snapshot(at, calls, false, [el, cl], &switches)
}

fn drawn(screen: &Screen, size: (u16, u16), now: Instant) -> String {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame, screen, now)).unwrap();
    let lines: Vec<String> =
        terminal.backend().to_string().lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn golden(name: &str, found: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/top/draw").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, found).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(found, expected, "{} differs; UPDATE=1 writes it anew", file.display());
}

fn screen_of(news: fn(u64, u64) -> News, now: Instant) -> Screen {
    let mut screen = Screen::new(AdminUrl::of("http://127.0.0.1:9545"));
    screen.hear(news(3_599_000, 1000), now);
    screen.hear(news(3_600_000, 1250), now);
    screen
}

#[tokio::test]
async fn a_quiet_proxy_is_drawn() {
    let now = Instant::now();
    golden("quiet.txt", &drawn(&screen_of(quiet, now), (150, 24), now));
}

#[tokio::test]
async fn a_burning_proxy_is_drawn() {
    let now = Instant::now();
    let mut screen = screen_of(burning, now);
    for _ in 0..2 {
        screen.press(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
    }
    screen.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::NONE));
    golden("burning.txt", &drawn(&screen, (150, 24), now));
}

#[tokio::test]
async fn a_proxy_that_is_away_is_told_with_age_and_reason() {
    let now = Instant::now();
    let mut screen = screen_of(quiet, now);
    screen.hear(News::Away("Connection refused".to_owned()), now);
    let text = drawn(&screen, (100, 24), now + Duration::from_secs(75));
    assert!(text.starts_with("NO ANSWER for 1 min 15 s: Connection refused. Shown is the state of then."), "{text}");
    assert!(text.contains("geth-1"), "{text}");
    // A stream that says nothing more.
    let silent = drawn(&screen_of(quiet, now), (100, 24), now + Duration::from_secs(9));
    assert!(silent.starts_with("NO ANSWER for 9 s: no news"), "{silent}");
    let mut never = Screen::new(AdminUrl::of("http://127.0.0.1:9545"));
    assert!(drawn(&never, (80, 10), now).contains("asking"));
    never.hear(News::Away("Connection refused".to_owned()), now);
    assert!(drawn(&never, (80, 10), now).contains("no answer: Connection refused"));
}

#[tokio::test]
async fn every_size_of_the_terminal_is_drawn() {
    let now = Instant::now();
    let mut screen = screen_of(burning, now);
    screen.press(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
    for size in [(1, 1), (3, 2), (20, 5), (40, 8), (80, 12), (300, 80)] {
        let text = drawn(&screen, size, now);
        assert_eq!(text.lines().count(), usize::from(size.1));
        // The selected node is in view wherever there is room for a line.
        assert!(size.1 < 8 || text.contains(">*"), "{size:?}\n{text}");
    }
}

#[tokio::test]
async fn a_switch_of_a_node_is_asked_about_first() {
    let now = Instant::now();
    let press = |screen: &mut Screen, code| screen.press(KeyEvent::new(code, KeyModifiers::NONE));
    let mut screen = screen_of(quiet, now);
    let second = ["default", "el", "geth-2"].map(str::to_owned);
    press(&mut screen, KeyCode::Tab);
    assert_eq!(screen.selected.as_ref(), Some(&second));
    assert_eq!(press(&mut screen, KeyCode::Char('c')), Step::Draw);
    assert_eq!(press(&mut screen, KeyCode::Char('n')), Step::Draw, "only y does it");
    press(&mut screen, KeyCode::Char('c'));
    assert_eq!(press(&mut screen, KeyCode::Char('y')), Step::Do(Command::Cordon(second.clone())));
    assert_eq!(Command::Cordon(second.clone()).path(), "/nodes/default/el/geth-2/cordon");
    press(&mut screen, KeyCode::Char('u'));
    assert_eq!(press(&mut screen, KeyCode::Char('y')), Step::Do(Command::Uncordon(second)));
    press(&mut screen, KeyCode::Char('d'));
    assert_eq!(press(&mut screen, KeyCode::Char('y')), Step::Do(Command::Drain));
    assert_eq!(press(&mut screen, KeyCode::Char('q')), Step::Quit);
    press(&mut screen, KeyCode::Char('d'));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.press(interrupt), Step::Quit, "also while a question waits");
    // A node that is gone is not selected any more.
    screen.hear(burning(3_601_000, 1), now);
    assert_eq!(screen.selected.as_ref().unwrap()[2], "geth-2");
    press(&mut screen, KeyCode::End);
    assert_eq!(screen.selected.as_ref().unwrap()[2], "remote");
    screen.hear(quiet(3_602_000, 1), now);
    assert_eq!(screen.selected.as_ref().unwrap()[2], "geth-1");
}
