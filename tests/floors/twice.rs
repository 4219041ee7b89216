//! Holds the rule for sending twice to one place: `domain` says which calls and requests may be
//! sent twice, and nothing but `call` and `beacon` asks.

use std::path::Path;

/// The functions that decide, each with the file that defines it.
const DECIDE: &[(&str, &str)] = &[
    ("is_repeatable", "src/domain/method.rs"),
    ("is_repeatable", "src/domain/beacon_route.rs"),
    ("may_run_at_two", "src/domain/method.rs"),
];

/// Whether the file at `path` may ask.
fn may_ask(path: &str) -> bool {
    ["src/domain/", "src/call", "src/beacon"].iter().any(|start| path.starts_with(start))
}

/// The lines of the file at `path` that ask and may not.
fn asks(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|_| !may_ask(path));
    let asking = lines.filter(|(_, line)| DECIDE.iter().any(|(name, _)| line.contains(&format!("{name}("))));
    asking.map(|(index, line)| format!("{path}:{}: {}", index + 1, line.trim())).collect()
}

#[test]
fn only_calls_and_beacon_requests_are_sent_twice() {
    let mut sources = Vec::new();
    let mut keep = |path: &str, text: &str| sources.push((path.to_owned(), text.to_owned()));
    super::read_texts(Path::new(env!("CARGO_MANIFEST_DIR")), "src", &mut keep);
    for (name, file) in DECIDE {
        let (_, text) = sources.iter().find(|(path, _)| path == file).expect("the file that decides");
        assert_eq!(text.matches(&format!("fn {name}(")).count(), 1, "{file} defines {name} once");
    }
    let defined: Vec<&str> = sources
        .iter()
        .filter(|(_, text)| DECIDE.iter().any(|(name, _)| text.contains(&format!("fn {name}("))))
        .map(|(path, _)| &**path)
        .collect();
    assert!(defined.iter().all(|path| DECIDE.iter().any(|(_, file)| file == path)), "defined in {defined:?}");
    let found: Vec<String> = sources.iter().flat_map(|(path, text)| asks(path, text)).collect();
    assert!(found.is_empty(), "only `call` and `beacon` may ask whether to send twice:\n{}", found.join("\n"));
    assert_eq!(
        asks("src/door/ws.rs", "\nif method.is_repeatable() {"),
        ["src/door/ws.rs:2: if method.is_repeatable() {"]
    );
}
