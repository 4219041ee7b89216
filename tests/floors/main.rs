//! Holds `src/` to the floors of the house: a module imports only from lower floors, sockets live
//! in `net`, files stay small.
//!
//! The sources are read as text. A re-export that carries a name upstairs, or a macro that expands
//! to a path, is seen by a compiler only.

mod checks;
mod limits;
mod named;
mod plain;
mod source;
mod twice;
mod words;

use std::{collections::BTreeSet, fs, path::Path};

use source::{Reference, Source};

/// The floors, lowest first. Modules in one row are siblings, and do not import each other.
const FLOORS: &[&[&str]] = &[
    &["domain"],
    &["config", "metrics", "memory"],
    &["net"],
    &["pool", "cluster"],
    &["route"],
    &["exchange"],
    &["call", "beacon", "chain", "spans"],
    &["view", "events", "outbox"],
    &["door"],
];

/// Modules above all floors, which may import anything.
const ROOF: &[&str] = &["app", "cli", "main"];

/// Modules beside the house, with all that each may import. Only the roof and tests import it.
const BESIDE: &[(&str, &[&str])] = &[("devnet", &["domain", "net"])];

/// Rooms within a module that are siblings too. Shared things lie in their parent, or in a room
/// that is not named here.
const ROOMS: &[(&str, &[&str])] =
    &[("door", &["http", "ws", "beacon", "admin"]), ("view", &["heads", "logs", "passthrough"])];

/// Paths that a module must not touch: where the rule holds, the paths, the reason.
const OUT_OF_BOUNDS: &[(Where, &[&str], &str)] = &[
    (
        Where::In("domain"),
        &["tokio", "tokio_rustls", "tokio_tungstenite", "hyper", "hyper_util"],
        "domain knows no runtime",
    ),
    (Where::In("domain"), &["std::fs", "std::process", "std::thread", "std::net::ToSocketAddrs"], "domain does no I/O"),
    (
        Where::NotIn(&["net"]),
        &[
            "tokio::net",
            "std::os::unix::net",
            "std::net::ToSocketAddrs",
            "hyper_util::client",
            "*::TcpStream",
            "*::TcpListener",
        ],
        "only net touches sockets",
    ),
    (
        Where::NotIn(&["net"]),
        &["*::TcpSocket", "*::UdpSocket", "*::UnixStream", "*::UnixListener", "*::UnixDatagram"],
        "only net touches sockets",
    ),
    (
        Where::NotIn(&["cluster"]),
        &["async_nats"],
        "only cluster speaks to NATS, by a client that dials by itself: calls never wait for those connections",
    ),
    (
        Where::NotIn(&["app", "cli", "net"]),
        &["reqwest"],
        "only net touches sockets; reqwest is for webhooks and the command line's own calls",
    ),
];

/// Where a rule of [`OUT_OF_BOUNDS`] holds.
#[derive(Clone, Copy)]
enum Where {
    In(&'static str),
    NotIn(&'static [&'static str]),
}

/// Known breaches: file, what it imports, why that is right. A breach that is no longer there must
/// go from this list.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("src/cluster/store/tests/opening.rs", "tokio::net::TcpListener", "a server of an old version is played there"),
    ("src/cluster/store/tests/opening.rs", "TcpListener", "as above"),
    ("src/cluster/store/tests/proxy.rs", "tokio::net::Tcp", "the way to a real NATS server is cut there"),
    ("src/cluster/store/tests/proxy.rs", "Tcp", "as above"),
    ("src/cluster/store/tests/servers.rs", "std::net::TcpListener", "free ports for real NATS servers"),
    ("src/cluster/store/tests/servers.rs", "TcpListener", "as above"),
];

/// The most lines of a source file: beyond it, the file has two nouns.
const MOST_LINES: usize = 500;

/// Everything wrong with `sources`, one line each: file, line, what.
fn breaches(sources: &[Source], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut excused = BTreeSet::new();
    for source in sources {
        let mut report = |line: usize, what: String| found.push(format!("{}:{line}: {what}", source.path));
        if source.lines > MOST_LINES {
            report(source.lines, format!("{} lines, {MOST_LINES} at most: find the second noun", source.lines));
        }
        for hidden in &source.unreadable {
            report(hidden.line, format!("{} hides the place of a module from this test", hidden.what));
        }
        let Some(home) = source.top() else { continue };
        if !is_known(home) {
            report(1, format!("`{home}` is on no floor: give it one in tests/floors/main.rs"));
            continue;
        }
        for reference in &source.references {
            let Some(wrong) = judge(home, reference) else { continue };
            match exceptions.iter().position(|(file, path, _)| *file == source.path && reference.path.starts_with(path))
            {
                Some(exception) => _ = excused.insert(exception),
                None => report(reference.line, wrong),
            }
        }
    }
    for (index, (file, path, _)) in exceptions.iter().enumerate() {
        if !excused.contains(&index) {
            found.push(format!("{file}: no longer imports {path}: take it off the exceptions in tests/floors/main.rs"));
        }
    }
    found
}

/// The complaint about `reference` in the top-level module `home`, if there is one.
fn judge(home: &str, reference: &Reference) -> Option<String> {
    let path = &*reference.path;
    let Some(inside) = path.strip_prefix("crate") else { return out_of_bounds(home, path) };
    if ROOF.contains(&home) {
        return None;
    }
    let inside = inside.trim_start_matches("::");
    let mut steps = inside.split("::");
    let target = steps.next().unwrap_or_default();
    if matches!(target, "" | "*" | "self") {
        return Some("imports the whole crate: name the module".to_owned());
    }
    if target == home {
        return neighbours(home, &reference.from, steps.next().unwrap_or_default());
    }
    if !is_known(target) {
        return Some(format!(
            "`{path}` is on no floor: import it from its module, or give it one in tests/floors/main.rs"
        ));
    }
    let allowed = if let Some((_, beside)) = BESIDE.iter().find(|(name, _)| *name == home) {
        beside.contains(&target)
    } else if BESIDE.iter().any(|(name, _)| *name == target) {
        reference.in_tests
    } else {
        floor(target).zip(floor(home)).is_some_and(|(target, home)| target < home)
    };
    (!allowed).then(|| format!("{} must not import {}: `{path}`", place(home), place(target)))
}

/// The complaint when an item of the module `home` imports its room `target`: siblings do not
/// import each other, and their shared rooms do not import them.
fn neighbours(home: &str, from: &[String], target: &str) -> Option<String> {
    let (_, rooms) = ROOMS.iter().find(|(name, _)| *name == home)?;
    let room = from.get(1)?;
    let trespass = rooms.contains(&target) && room != target;
    trespass.then(|| format!("{home}::{room} must not import its sibling {home}::{target}"))
}

/// Does `path`, of another crate, belong elsewhere than in `home`?
fn out_of_bounds(home: &str, path: &str) -> Option<String> {
    OUT_OF_BOUNDS.iter().find_map(|(holds, paths, reason)| {
        let holds = match holds {
            Where::In(module) => *module == home,
            Where::NotIn(modules) => !modules.contains(&home),
        };
        let touches = |banned: &&str| match banned.strip_prefix("*::") {
            Some(name) => path.split("::").any(|step| step == name),
            None => path.strip_prefix(*banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")),
        };
        (holds && paths.iter().any(touches)).then(|| format!("`{path}` in {home}: {reason}"))
    })
}

fn is_known(module: &str) -> bool {
    floor(module).is_some() || ROOF.contains(&module) || BESIDE.iter().any(|(name, _)| *name == module)
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn place(module: &str) -> String {
    match floor(module) {
        Some(floor) => format!("{module} (floor {floor})"),
        None if ROOF.contains(&module) => format!("{module} (the roof)"),
        None => format!("{module} (beside the house)"),
    }
}

/// All `.rs` files under `folder`, in order.
fn read_all(root: &Path, folder: &str, sources: &mut Vec<Source>) {
    read_texts(root, folder, &mut |path, text| sources.push(Source::read(path, text)));
}

/// Gives `take` the path and the text of each `.rs` file under `folder`, in order.
fn read_texts(root: &Path, folder: &str, take: &mut impl FnMut(&str, &str)) {
    let mut entries: Vec<fs::DirEntry> =
        fs::read_dir(root.join(folder)).and_then(Iterator::collect).expect("a folder to read");
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{folder}/{}", entry.file_name().display());
        if root.join(&path).is_dir() {
            read_texts(root, &path, take);
        } else if path.ends_with(".rs") {
            take(&path, &fs::read_to_string(entry.path()).expect("a source to read"));
        }
    }
}

#[test]
fn the_sources_keep_to_their_floors() {
    let mut sources = Vec::new();
    read_all(Path::new(env!("CARGO_MANIFEST_DIR")), "src", &mut sources);
    // Reading nothing would find nothing wrong.
    let upstairs = sources.iter().filter(|source| source.top().and_then(floor).is_some_and(|floor| floor > 0));
    let imports =
        upstairs.flat_map(|source| &source.references).filter(|reference| reference.path.starts_with("crate::"));
    assert!(imports.count() > 20, "this test no longer finds the imports that are there");

    let found = breaches(&sources, EXCEPTIONS);
    assert!(found.is_empty(), "{} breaches of the floors:\n{}", found.len(), found.join("\n"));
}

/// The complaints about one file.
fn said_of(path: &str, text: &str) -> Vec<String> {
    breaches(&[Source::read(path, text)], &[])
}

#[test]
fn a_module_may_import_from_below() {
    let fine = [
        ("src/pool/probe.rs", "use crate::{config::Health, domain::{block::BlockRef, hex}, net};"),
        ("src/door/http.rs", "use super::{errors, super::call};\nfn f() { crate::route::plan(); }"),
        ("src/door.rs", "mod http; mod ws; pub use self::{http::Http, ws::Ws};"),
        ("src/door/admin/nodes.rs", "use super::{super::errors, page}; use crate::door::admin::page;"),
        ("src/app.rs", "use crate::{devnet, door, cli};"),
        ("src/cli/dev.rs", "use crate::devnet::Devnet; use reqwest::Client;"),
        ("src/devnet/serve.rs", "use crate::net::Listen; use super::hash; pub(crate) fn f() {}"),
        ("src/net/tcp.rs", "use tokio::net::TcpStream;"),
        ("src/pool/state.rs", "use super::*; mod tests { use super::*; use crate::devnet::Devnet; }"),
        (
            "src/domain/hex.rs",
            "use std::net::IpAddr; // crate::net, tokio\nconst A: &str = \"crate::pool::x tokio::net\";",
        ),
        ("src/lib.rs", "pub mod pool; pub use crate::pool::Pool;"),
        ("src/main.rs", "use steadfast::app;"),
    ];
    for (path, text) in fine {
        assert_eq!(said_of(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn a_breach_is_found_with_its_file_and_line() {
    let wrong = [
        ("src/domain/hex.rs", "\nuse crate::config::Health;", "2: domain (floor 0) must not import config (floor 1)"),
        ("src/config/url.rs", "use crate::metrics::Metrics;", "1: config (floor 1) must not import metrics (floor 1)"),
        (
            "src/pool/probe.rs",
            "use super::super::{\n net,\n call::run};",
            "3: pool (floor 3) must not import call (floor 6)",
        ),
        (
            "src/pool/probe.rs",
            "/* \n */ fn f() { crate::route::plan() }",
            "2: pool (floor 3) must not import route (floor 4)",
        ),
        ("src/net.rs", "use super::pool::Pool;", "1: net (floor 2) must not import pool (floor 3)"),
        (
            "src/pool/state.rs",
            "mod a { mod b { use super::super::super::super::call; } }",
            "1: pool (floor 3) must not import call",
        ),
        (
            "src/pool/state.rs",
            "fn f(x: &'a str) -> Vec<crate::door::Door> {}",
            "1: pool (floor 3) must not import door (floor 8)",
        ),
        (
            "src/pool.rs",
            "macro_rules! m { () => { $crate::door::x() } }",
            "1: pool (floor 3) must not import door (floor 8)",
        ),
        ("src/call.rs", "use crate::chain;", "1: call (floor 6) must not import chain (floor 6)"),
        ("src/call.rs", "use crate::devnet::Devnet;", "1: call (floor 6) must not import devnet (beside the house)"),
        ("src/call.rs", "use crate::cli;", "1: call (floor 6) must not import cli (the roof)"),
        (
            "src/devnet/rpc.rs",
            "use crate::config::Url;",
            "1: devnet (beside the house) must not import config (floor 1)",
        ),
        ("src/door/http.rs", "use super::admin::page;", "1: door::http must not import its sibling door::admin"),
        (
            "src/door/ws/frame.rs",
            "use crate::door::{errors, http};",
            "1: door::ws must not import its sibling door::http",
        ),
        ("src/door/errors.rs", "use super::http::Http;", "1: door::errors must not import its sibling door::http"),
        ("src/view/logs.rs", "use super::heads;", "1: view::logs must not import its sibling view::heads"),
        ("src/net/tcp.rs", "use super::super::*;", "1: imports the whole crate"),
        ("src/net/tcp.rs", "use crate as house;", "1: imports the whole crate"),
        ("src/net/tcp.rs", "use crate::Pool;", "1: `crate::Pool` is on no floor"),
        ("src/shed.rs", "", "1: `shed` is on no floor"),
        (
            "src/domain/hex.rs",
            "fn f() { let _ = tokio::time::sleep(x); }",
            "1: `tokio::time::sleep` in domain: domain knows no runtime",
        ),
        ("src/domain/hex.rs", "use std::{fmt, fs::read};", "1: `std::fs::read` in domain: domain does no I/O"),
        (
            "src/pool.rs",
            "use tokio::{net::TcpStream, sync};",
            "1: `tokio::net::TcpStream` in pool: only net touches sockets",
        ),
        ("src/cli.rs", "use tokio::net as n;", "1: `tokio::net` in cli: only net touches sockets"),
        (
            "src/devnet.rs",
            "use std::net; fn f() { net::TcpListener::bind(x); }",
            "1: `net::TcpListener::bind` in devnet: only net",
        ),
        ("src/pool.rs", "use async_nats::Client;", "1: `async_nats::Client` in pool: only cluster speaks to NATS"),
        ("src/call.rs", "use reqwest::Client;", "1: `reqwest::Client` in call: only net touches sockets"),
        ("src/call.rs", "#[path = \"door.rs\"]\nmod d;", "1: #[path] hides the place of a module"),
        ("src/call.rs", "include!(\"door.rs\");", "1: include! hides the place of a module"),
    ];
    for (path, text, expected) in wrong {
        let said = said_of(path, text);
        assert!(said.len() == 1 && said[0].starts_with(&format!("{path}:{expected}")), "{path}: {text}\n{said:#?}");
    }
}

#[test]
fn a_file_with_too_many_lines_is_found() {
    assert_eq!(said_of("src/call.rs", &"\n".repeat(MOST_LINES)), Vec::<String>::new());
    let said = said_of("src/call.rs", &"\n".repeat(MOST_LINES + 1));
    assert_eq!(said, ["src/call.rs:501: 501 lines, 500 at most: find the second noun"]);
}

#[test]
fn an_exception_excuses_one_breach_and_must_be_needed() {
    let sources = [Source::read("src/net.rs", "use crate::pool::Pool;\nuse crate::call;")];
    let exceptions = [("src/net.rs", "crate::pool::Pool", "for this test"), ("src/net.rs", "crate::door", "gone")];
    let found = breaches(&sources, &exceptions);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("src/net.rs:2: net (floor 2) must not import call"), "{found:#?}");
    assert!(found[1].contains("no longer imports crate::door"), "{found:#?}");
}
