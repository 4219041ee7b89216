//! eRPC's file: YAML with projects, whose upstreams are nodes of any chains.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    import::{Fate, Import, Node, clean, host, quoted},
    tree::{Tree, Value},
};
use crate::domain::layer::Layer;

/// Keys whose purpose is known, and that have no setting here.
const LEFT: [(&str, &str); 16] = [
    ("database", "there is no cache"),
    ("rateLimiters", "rates are the `budget` of a node, or of its account: write them by hand"),
    ("rateLimitBudget", "rates are the `budget` of a node, or of its account: write them by hand"),
    ("rateLimitAutoTune", "a node that answers 429 rests by itself"),
    ("auth", "clients are not asked who they are: keep a gateway in front"),
    ("admin", "the admin side is another"),
    ("hedge", "a second node is asked when the first is not well or time runs out: calls.attempt_timeout"),
    ("circuitBreaker", "nodes go out and come back by what is seen of them: [health]"),
    ("consensus", "answers of several nodes are not compared"),
    ("ignoreMethods", "methods are refused for all nodes: calls.blocked"),
    ("allowMethods", "methods are refused for all nodes: calls.blocked and calls.allowed"),
    ("selectionPolicy", "the choice of a node is by tier, head and order: calls.policy"),
    ("cors", "pages are listed in cors.origins"),
    ("healthCheck", "/health is always there"),
    ("waitBeforeShutdown", "`steadfast drain`, and then SIGTERM"),
    ("providers", "a provider is a node for each chain: write its URL"),
];

pub(super) fn read(text: &str, import: &mut Import) -> Result<(), String> {
    let mut file = Tree::yaml(text, import)?;
    if let Some((line, level)) = file.text("logLevel") {
        match &*level {
            "trace" | "debug" | "info" | "warn" | "error" => import.set(line, "logLevel", "log.filter", quoted(&level)),
            _ => import.leave(line, "logLevel", "is not a level"),
        }
    }
    let mut server = file.map("server");
    if let Some(server) = &mut server {
        read_server(server, import);
    }
    if let Some(mut metrics) = file.map("metrics") {
        read_metrics(&mut metrics, import);
        metrics.leave("metrics", &reason, import);
    }
    let projects = file.list("projects");
    let several = projects.len() > 1;
    for project in projects {
        read_project(project, several, import);
    }
    // A network's timeout says more than the bound for all.
    if let Some(mut server) = server {
        if let Some((line, timeout)) = server.text("maxTimeout") {
            match go_millis(&timeout) {
                Some(_) if import.has("calls.timeout") => {
                    import.leave(line, "server.maxTimeout", "calls.timeout comes from a network's failsafe.timeout");
                }
                Some(millis) => import.set_millis(line, "server.maxTimeout", "calls.timeout", millis),
                None => import.leave(line, "server.maxTimeout", "is not a duration"),
            }
        }
        server.leave("server", &reason, import);
    }
    file.leave("", &reason, import);
    import.lift_single();
    Ok(())
}

/// The reason by the last step of the path.
fn reason(path: &str) -> Option<&'static str> {
    let key = path.rsplit('.').next()?;
    LEFT.iter().find(|(known, _)| *known == key).map(|(_, why)| *why)
}

fn read_server(server: &mut Tree, import: &mut Import) {
    let host = server.text("httpHostV4");
    let port = server.number("httpPort").or_else(|| server.number("httpPortV4"));
    if let Some((line, _)) = server.text("listenV4") {
        import.note(line, "server.listenV4", Fate::NotNeeded("listen has the address".into()));
    }
    let line = host.as_ref().map(|(line, _)| *line).or(port.map(|(line, _)| line));
    if let Some(line) = line {
        let host = host.map_or_else(|| "0.0.0.0".to_owned(), |(_, host)| host);
        let port = port.map_or(4000, |(_, port)| port);
        import.set(line, "server.httpHostV4, httpPort", "listen", quoted(&format!("{host}:{port}")));
    }
    if let Some(socket) = server.take("webSocket") {
        import.note(socket.line, "server.webSocket", Fate::NotNeeded("WebSockets are served on the same port".into()));
    }
}

fn read_metrics(metrics: &mut Tree, import: &mut Import) {
    if let Some((line, _)) = metrics.text("enabled") {
        import.note(line, "metrics.enabled", Fate::NotNeeded("metrics are always there, on the admin side".into()));
    }
    if let Some((line, _)) = metrics.text("hostV4") {
        import.leave(
            line,
            "metrics.hostV4",
            "the admin side has switches too, and stays on loopback: see admin.listen",
        );
    }
    if let Some((line, port)) = metrics.number("port").or_else(|| metrics.number("portV4")) {
        import.set(line, "metrics.port", "admin.listen", format!("\"127.0.0.1:{port}\""));
    }
}

fn read_project(mut project: Tree, several: bool, import: &mut Import) {
    let name = project.text("id").map(|(_, id)| clean(&id)).unwrap_or_default();
    let path = format!("projects.{name}");
    let prefix = if several { format!("{name}-") } else { String::new() };
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    for mut network in project.list("networks") {
        if let Some((line, _)) = network.text("architecture").filter(|(_, name)| name != "evm") {
            import.leave(line, format!("{path}.networks.architecture"), "is not that of Ethereum");
        }
        let chain = network.map("evm").and_then(|mut evm| {
            let chain = evm.number("chainId");
            evm.leave(&format!("{path}.networks.evm"), &reason, import);
            chain
        });
        let path = format!("{path}.networks.{}", chain.map_or(0, |(_, id)| id));
        if let Some((line, id)) = chain {
            let alias = network.text("alias").map(|(_, alias)| clean(&alias));
            let name = format!("{prefix}{}", alias.unwrap_or_else(|| format!("evm-{id}")));
            import.note(line, format!("{path}.evm.chainId"), Fate::Became("chain_id".into()));
            names.entry(id).or_insert(name);
        }
        for failsafe in failsafes(&mut network) {
            read_failsafe(failsafe, &format!("{path}.failsafe"), import);
        }
        network.leave(&path, &reason, import);
    }
    let upstreams = project.list("upstreams");
    let chains: BTreeSet<u64> =
        names.keys().copied().chain(upstreams.iter().filter_map(|one| chain_of(&mut one.clone()))).collect();
    for upstream in upstreams {
        read_upstream(upstream, (&path, &prefix), &names, &chains, import);
    }
    project.leave(&path, &reason, import);
}

/// The failsafe of a network: one, or a list of which the entry for all methods counts.
fn failsafes(network: &mut Tree) -> Vec<Tree> {
    match network.take("failsafe") {
        None => Vec::new(),
        Some(Tree { value: Value::List(all), .. }) => all,
        Some(one) => vec![one],
    }
}

fn read_failsafe(mut failsafe: Tree, path: &str, import: &mut Import) {
    if let Some((line, methods)) = failsafe.text("matchMethod")
        && methods != "*"
    {
        return import.leave(line, path, "rules for single methods are not there");
    }
    if let Some(mut timeout) = failsafe.map("timeout") {
        if let Some((line, text)) = timeout.text("duration") {
            let key = format!("{path}.timeout.duration");
            match go_millis(&text) {
                Some(millis) => import.set_millis(line, &key, "calls.timeout", millis),
                None => import.leave(line, key, "is not a duration"),
            }
        }
        timeout.leave(&format!("{path}.timeout"), &reason, import);
    }
    if let Some(mut retry) = failsafe.map("retry") {
        if let Some((line, attempts)) = retry.number("maxAttempts") {
            let key = format!("{path}.retry.maxAttempts");
            match attempts {
                0 => import.leave(line, key, "is not a number of attempts: see calls.attempts"),
                _ => import.set(line, key, "calls.attempts", attempts.to_string()),
            }
        }
        let pauses = |_: &str| Some("pauses between attempts have no setting");
        retry.leave(&format!("{path}.retry"), &pauses, import);
    }
    failsafe.leave(path, &reason, import);
}

fn chain_of(upstream: &mut Tree) -> Option<u64> {
    upstream.map("evm")?.number("chainId").map(|(_, id)| id)
}

fn read_upstream(
    mut upstream: Tree,
    (path, prefix): (&str, &str),
    names: &BTreeMap<u64, String>,
    chains: &BTreeSet<u64>,
    import: &mut Import,
) {
    let id = upstream.text("id").map(|(_, id)| id);
    let kind = upstream.text("type").filter(|(_, kind)| kind != "evm");
    let mut evm = upstream.map("evm");
    let chain = evm.as_mut().and_then(|evm| evm.number("chainId")).map(|(_, id)| id);
    let group = upstream.text("group");
    let is_backup = group.as_ref().is_some_and(|(_, group)| group == "fallback");
    let Some((line, endpoint)) = upstream.text("endpoint") else {
        let path = format!("{path}.upstreams");
        import.leave(upstream.line, path.clone(), "has no endpoint");
        return upstream.leave(&path, &|_| Some("its upstream is left out"), import);
    };
    let scheme = endpoint.split_once("://").map(|(scheme, _)| scheme);
    let is_short = scheme.is_some_and(|scheme| !["http", "https", "ws", "wss"].contains(&scheme));
    // Behind the scheme of a short form stands a key.
    let host = if is_short { "node" } else { host(&endpoint) };
    let name = id.unwrap_or_else(|| host.to_owned());
    let path = format!("{path}.upstreams.{}", clean(&name));
    if let Some(evm) = evm {
        evm.leave(&format!("{path}.evm"), &reason, import);
    }
    if let Some((line, _)) = kind {
        import.leave(line, format!("{path}.type"), "is not a plain node of Ethereum: see that its URL is for JSON-RPC");
    }
    if let Some((line, _)) = group.filter(|_| !is_backup) {
        import.leave(line, format!("{path}.group"), "groups other than fallback are not there");
    }
    if is_short {
        let why = "is a provider's short form: write the URL that the provider shows for the chain";
        import.leave(line, format!("{path}.endpoint"), why);
        return upstream.leave(&path, &|_| Some("its upstream is left out"), import);
    }
    let chain = chain.or(chains.first().copied().filter(|_| chains.len() == 1));
    if chain.is_none() && chains.len() > 1 {
        let why = "names no chain, and there are several: put it where it belongs";
        import.leave(line, format!("{path}.endpoint"), why);
        return upstream.leave(&path, &|_| Some("its upstream is left out"), import);
    }
    let network = match chain {
        None => format!("{prefix}main"),
        Some(id) => names.get(&id).cloned().unwrap_or_else(|| format!("{prefix}evm-{id}")),
    };
    if let Some(id) = chain {
        import.chain(&network, id);
    }
    let mut node = Node::new(Layer::El, is_backup, &name, endpoint);
    if let Some(mut rpc) = upstream.map("jsonRpc") {
        node.headers = rpc.texts("headers");
        rpc.leave(&format!("{path}.jsonRpc"), &reason, import);
    }
    import.add(line, format!("{path}.endpoint"), &network, node);
    let own = |key: &str| {
        let known = reason(key);
        known.or(key.ends_with(".failsafe").then_some("rules for single nodes are not there"))
    };
    upstream.leave(&path, &own, import);
}

/// Milliseconds of a duration in the form of Go: `1m30s`, `1.5s`, `500ms`.
fn go_millis(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut millis = 0.0;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let each = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return None,
        };
        millis += number.parse::<f64>().ok()? * each;
        rest = after;
    }
    // Years of milliseconds fit.
    (1.0..1e12).contains(&millis).then_some(millis.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_are_read() {
        for (text, millis) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("500ms", Some(500)),
            ("5", None),
            ("", None),
            ("1d", None),
        ] {
            assert_eq!(go_millis(text), millis, "{text}");
        }
    }
}
