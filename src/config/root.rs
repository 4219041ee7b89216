//! The top level of the file, and the rules that hold between its sections.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::Path,
};

use toml::de::DeTable;

use super::{
    ADMIN_LISTEN, Addresses, Admin, Beacon, Calls, Chain, Cluster, Compression, Config, Cors, Filters, Flags, Health,
    Hosts, LISTEN, Log, MAX_CONNECTIONS, Network, Outbox, Problem, SHUTDOWN_GRACE, Tracing, Url, Ws,
    form::Form,
    listen,
    node::ONE_IS_THE_LINKS,
    reader::Reader,
    reading::{Env, Finished, Reading},
};
use crate::domain::address::Address;

/// Reads `text`, or the flags alone when there is none.
pub(super) fn read(text: Option<&str>, folder: &Path, flags: &Flags, env: &Env<'_>) -> Result<Config, Vec<Problem>> {
    read_and_list_keys(text, folder, flags, env).0
}

/// [`read`], and every key that was asked for with the form of its value.
pub(super) fn read_and_list_keys(
    text: Option<&str>,
    folder: &Path,
    flags: &Flags,
    env: &Env<'_>,
) -> (Result<Config, Vec<Problem>>, BTreeMap<String, Form>) {
    let source = text.unwrap_or_default();
    let (table, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        return (Err(errors.iter().map(|error| syntax(source, error)).collect()), BTreeMap::new());
    }
    let table = table.into_inner();
    let reading = Reading::new(source, &table, folder, env);
    let mut root = Reader::root(&reading, table);
    let networks = if text.is_some() {
        flags.check_beside_a_file(&reading);
        Network::read_all(&mut root)
    } else {
        flags.network(&reading).into_iter().collect()
    };
    let mode = listen::mode(&mut root);
    let config = Config {
        listen: listen::clients(&mut root, LISTEN, mode),
        hosts: Hosts::read(&mut root),
        workers: root.integer("workers", 1..=1024).and_then(|n| usize::try_from(n).ok()).and_then(NonZeroUsize::new),
        max_connections: root.count("max_connections", MAX_CONNECTIONS),
        shared_addresses: Addresses::read(&mut root, "shared_addresses"),
        max_client_memory: root.size_if_set("max_client_memory"),
        reload_on_change: root.boolean("reload_on_change", false),
        admin: admin(&mut root),
        shutdown_grace: root.duration_or_zero("shutdown_grace", SHUTDOWN_GRACE),
        health: Health::read(root.section("health")),
        calls: Calls::read(root.section("calls")),
        chain: Chain::read(root.section("chain")),
        filters: Filters::read(root.section("filters")),
        cors: Cors::read(root.section("cors")),
        compression: Compression::read(root.section("compression")),
        ws: Ws::read(root.section("ws")),
        beacon: Beacon::read(root.section("beacon")),
        log: Log::read(root.section("log")),
        tracing: Tracing::read(root.section("tracing")),
        outbox: Outbox::read_if_set(&mut root),
        cluster: Cluster::read_if_set(&mut root),
        networks,
    };
    drop(root);
    let config = override_and_check(config, flags, &reading, text.is_some(), mode);
    let Finished { problems, asked } = reading.finish();
    (if problems.is_empty() { Ok(config) } else { Err(problems) }, asked)
}

fn admin(root: &mut Reader<'_>) -> Admin {
    let mut section = root.section("admin");
    Admin { listen: section.parse("listen", listen::ip).unwrap_or(ADMIN_LISTEN), hosts: Hosts::read(&mut section) }
}

fn override_and_check(mut config: Config, flags: &Flags, reading: &Reading<'_>, has_file: bool, mode: u32) -> Config {
    let place = |key: &'static str, flag: &'static str, value: &Option<String>| match value {
        None if has_file => key,
        _ => flag,
    };
    let (listen, admin_listen) =
        (place("listen", "--listen", &flags.listen), place("admin.listen", "--admin-listen", &flags.admin_listen));
    // Of a flag, a relative path starts at the working directory.
    match flags.listen.as_ref().map(|value| listen::address(value, Path::new(""), mode)) {
        Some(Ok(address)) => config.listen = vec![address],
        Some(Err(wrong)) => reading.fail(listen, wrong.to_string()),
        None => {}
    }
    match flags.admin_listen.as_ref().map(|value| listen::ip(value)) {
        Some(Ok(address)) => config.admin.listen = address,
        Some(Err(wrong)) => reading.fail(admin_listen, wrong.to_string()),
        None => {}
    }
    let ips: Vec<SocketAddr> = config.listen.iter().filter_map(Address::ip).collect();
    reading.check(
        !ips.iter().any(|own| listen::overlap(*own, config.admin.listen)),
        admin_listen,
        &[listen],
        "must not be the address that clients connect to (`listen`): give it a port of its own",
    );
    let own = ips.iter().map(|own| (*own, listen)).chain([(config.admin.listen, admin_listen)]);
    for (own, place) in own {
        let nodes = config.networks.iter().flat_map(|network| network.el.iter().chain(&network.cl));
        let loops = nodes.flat_map(|node| node.http.iter().chain(&node.ws)).any(|url| leads_to(url, own));
        reading.check(!loops, place, &[], "is the address of one of the nodes too: Steadfast would call itself");
    }
    let nodes = config.networks.iter().flat_map(|network| &network.el);
    let loops =
        nodes.filter_map(|node| node.ipc.as_ref()).any(|ipc| config.listen.iter().any(|own| own.path() == Some(ipc)));
    reading.check(!loops, listen, &[], "is the `ipc` of one of the nodes too: Steadfast would call itself");
    let one_for_all = config.calls.max_node_connections == 1;
    let mut nodes = config.networks.iter().flat_map(|network| &network.el);
    let is_left_out = nodes.any(|node| node.max_connections.is_none() && node.has_link_beside_requests());
    reading.check(!(one_for_all && is_left_out), "calls.max_node_connections", &[], ONE_IS_THE_LINKS);
    if config.networks.is_empty() {
        let nodes = ["el", "cl", "networks", "--el", "--el-backup", "--cl", "--cl-backup"];
        let message = if has_file {
            "names no node: it needs at least one [[el.primary]] or [[cl.primary]]"
        } else {
            "needs the URL of at least one node (or --cl, or a file)"
        };
        reading.check(false, if has_file { "" } else { "--el" }, &nodes, message);
    }
    config
}

/// Whether `url` is this machine's `own` address, as far as can be told without asking a name
/// server.
fn leads_to(url: &Url, own: SocketAddr) -> bool {
    if own.port() == 0 || url.port() != own.port() {
        return false;
    }
    match url.host().parse::<IpAddr>() {
        Ok(ip) => ip == own.ip() || (own.ip().is_unspecified() && ip.is_loopback()),
        Err(_) => &**url.host() == "localhost" && (own.ip().is_loopback() || own.ip().is_unspecified()),
    }
}

/// The parser's words without its picture of the line, which may show a secret.
fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| 1 + before.matches('\n').count());
    let column = before.map(|before| 1 + before.rsplit('\n').next().unwrap_or(before).chars().count());
    let column = column.map(|column| format!(" at column {column}")).unwrap_or_default();
    Problem {
        path: String::new(),
        line,
        message: format!("is not TOML{column}: {}", error.message().replace('\n', " ")),
    }
}
