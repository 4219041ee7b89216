//! haproxy's file: sections of lines, each of which begins with a keyword.

use super::{
    groups::{Group, Server, add_all},
    import::{Fate, Import, quoted},
};

/// Keywords for which nothing has to be set.
const NOT_NEEDED: [(&str, &str); 14] = [
    ("mode", "calls are HTTP"),
    ("option httpchk", "nodes are asked for head, chain and whether they sync"),
    ("http-check", "nodes are asked for head, chain and whether they sync"),
    ("option redispatch", "a call goes on to another node where that is safe"),
    ("retry-on", "a call goes on to another node where that is safe"),
    ("option allbackups", "with calls.policy = \"spread\" all backups take turns"),
    ("option http-keep-alive", "connections are kept"),
    ("option http-server-close", "connections are kept"),
    ("option forwardfor", "nodes are not told of clients"),
    ("option httplog", "see log.access"),
    ("timeout tunnel", "WebSockets are pinged: ws.ping_interval"),
    ("timeout check", "see health.timeout"),
    ("daemon", "systemd, or another, runs the process"),
    ("nbthread", "there is a thread for each core: workers"),
];
/// Keywords that there is no setting for.
const LEFT: [(&str, &str); 9] = [
    ("timeout connect", "2 s, without a setting"),
    ("timeout client", "clients have bounds of their own"),
    ("stick-table", "there are no limits of rates: keep haproxy in front"),
    ("stick", "filters and subscriptions are the proxy's own"),
    ("cookie", "filters and subscriptions are the proxy's own"),
    ("stats", "the dashboard is on the admin side"),
    ("external-check", "nodes are asked for head, chain and whether they sync"),
    ("acl", "paths are fixed: /, /ws, /eth/…, /<network>"),
    ("use_backend", "paths are fixed: /, /ws, /eth/…, /<network>"),
];
/// Parameters of a server for which nothing has to be set.
const PARAMETERS: [&str; 7] = ["check", "check-ssl", "verify", "sni", "alpn", "resolvers", "init-addr"];

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Section {
    Global,
    Defaults,
    Frontend,
    /// `backend` or `listen`, by its place among the groups.
    Servers(usize),
    /// A section that is left out as a whole.
    Other,
}

pub(super) fn read(text: &str, import: &mut Import) -> Result<(), String> {
    let mut groups: Vec<Group> = Vec::new();
    let mut section = None;
    for (at, text) in text.lines().enumerate() {
        let line = at + 1;
        let words = words(text).map_err(|why| format!("{line}: {why}"))?;
        let Some((word, values)) = words.split_first() else { continue };
        let name = || values.first().cloned().unwrap_or_default();
        match &**word {
            "global" => section = Some(Section::Global),
            "defaults" => section = Some(Section::Defaults),
            "frontend" => section = Some(Section::Frontend),
            "backend" | "listen" => {
                groups.push(Group { name: name(), ..Group::default() });
                section = Some(Section::Servers(groups.len() - 1));
            }
            "userlist" | "peers" | "resolvers" | "mailers" | "program" | "cache" | "ring" | "http-errors" => {
                import.leave(line, word.clone(), "is left out as a whole");
                section = Some(Section::Other);
            }
            _ => match &section {
                None => return Err(format!("{line}: stands in no section: is this a file of haproxy?")),
                Some(Section::Other) => {}
                Some(Section::Servers(at)) => read_of_servers(line, word, values, &mut groups[*at], import),
                Some(section) => read_line(line, word, values, section == &Section::Global, import),
            },
        }
    }
    add_all(&groups, "server", import);
    import.lift_single();
    Ok(())
}

/// A line of a `backend`, or of a `listen`.
fn read_of_servers(line: usize, word: &str, values: &[String], group: &mut Group, import: &mut Import) {
    match word {
        "server" => group.servers.extend(read_server(line, values, import)),
        "default-server" => {
            read_parameters(line, values, "default-server", None, import);
        }
        "http-request" | "http-send-name-header" => match values {
            [action, name, value, ..] if action == "set-header" && !value.contains("%[") => {
                group.headers.push((name.clone(), value.clone()));
                import.note(
                    line,
                    format!("http-request set-header {name}"),
                    Fate::Became("headers of the nodes".into()),
                );
            }
            _ => import.leave(line, word, "is not known"),
        },
        _ => read_line(line, word, values, false, import),
    }
}

fn read_line(line: usize, word: &str, values: &[String], is_global: bool, import: &mut Import) {
    let first = values.first().map_or("", String::as_str);
    let both = format!("{word} {first}");
    match (word, &*both) {
        ("bind", _) => read_bind(line, values, import),
        ("default_backend", _) => import.note(line, word, Fate::NotNeeded("its servers are nodes".into())),
        ("balance", _) => match first {
            "roundrobin" | "leastconn" | "static-rr" | "random" => {
                import.set(line, &*both, "calls.policy", quoted("spread"));
            }
            "first" => import.set(line, &*both, "calls.policy", quoted("first")),
            _ => import.note(line, both, Fate::NotNeeded("filters and subscriptions are the proxy's own".into())),
        },
        (_, "timeout server") => set_time(line, &both, values.get(1), "calls.timeout", import),
        (_, "timeout queue") => set_time(line, &both, values.get(1), "calls.hold", import),
        ("retries", _) => match first.parse::<u64>() {
            // The first attempt counts here.
            Ok(retries) => import.set(line, word, "calls.attempts", retries.saturating_add(1).to_string()),
            Err(_) => import.leave(line, word, "is not a number"),
        },
        ("maxconn", _) => match first.parse::<u64>() {
            Ok(most) if is_global => import.set(line, "maxconn", "max_connections", most.to_string()),
            _ => import.leave(line, word, "one bound holds for all clients: max_connections"),
        },
        _ => {
            let find = |known: &str| known == word || known == both;
            if let Some((known, why)) = NOT_NEEDED.iter().find(|(known, _)| find(known)) {
                import.note(line, *known, Fate::NotNeeded((*why).to_owned()));
            } else if let Some((known, why)) = LEFT.iter().find(|(known, _)| find(known)) {
                import.leave(line, *known, *why);
            } else {
                let key = if ["option", "timeout"].contains(&word) { both } else { word.to_owned() };
                import.leave(line, key, "is not known");
            }
        }
    }
}

fn set_time(line: usize, key: &str, value: Option<&String>, setting: &'static str, import: &mut Import) {
    match value.and_then(|value| millis(value)) {
        Some(millis) => import.set_millis(line, key, setting, millis),
        None => import.leave(line, key, "is not a time"),
    }
}

/// `bind *:8545`, `bind :8545`, `bind 127.0.0.1:8545`, with parameters.
fn read_bind(line: usize, values: &[String], import: &mut Import) {
    let address = values.first().map_or("", String::as_str);
    if values.iter().any(|word| word == "ssl") {
        return import.leave(line, "bind", "there is no TLS to clients: keep haproxy in front");
    }
    let port = address.strip_prefix("*:").or_else(|| address.strip_prefix(':'));
    let full = port.map_or_else(|| address.to_owned(), |port| format!("0.0.0.0:{port}"));
    match full.parse::<std::net::SocketAddr>() {
        Ok(_) => import.set(line, "bind", "listen", quoted(&full)),
        Err(_) => import.leave(line, "bind", "is not an IP address and a port"),
    }
}

/// `name address[:port] [parameters]`.
fn read_server(line: usize, values: &[String], import: &mut Import) -> Option<Server> {
    let [name, address, parameters @ ..] = values else {
        import.leave(line, "server", "has no name and address");
        return None;
    };
    if address.starts_with('/') || address.starts_with("unix@") || address.starts_with("abns@") {
        import.leave(line, "server", "is a Unix socket");
        return None;
    }
    let mut server = Server {
        line,
        name: Some(name.clone()),
        address: address.clone(),
        is_backup: false,
        is_tls: false,
        max_connections: None,
    };
    if !read_parameters(line, parameters, "server", Some(&mut server), import) {
        import.leave(line, "server … disabled", "is out of use: add it, and take it out with `steadfast cordon`");
        return None;
    }
    Some(server)
}

/// Reads the parameters of a `server`, or of all servers. Returns `false` for a server that is out
/// of use.
fn read_parameters(
    line: usize,
    words: &[String],
    of: &str,
    mut server: Option<&mut Server>,
    import: &mut Import,
) -> bool {
    let mut words = words.iter();
    let mut is_used = true;
    while let Some(word) = words.next() {
        let key = format!("{of} … {word}");
        let mut number = || words.next().and_then(|value| value.parse::<u64>().ok()).filter(|number| *number > 0);
        match (&**word, &mut server) {
            ("backup", Some(server)) => server.is_backup = true,
            ("disabled", _) => is_used = false,
            ("ssl", Some(server)) => server.is_tls = true,
            ("maxconn", Some(server)) => server.max_connections = number(),
            ("inter", _) => set_time(line, &key, words.next(), "health.interval", import),
            ("fall" | "rise", _) => {
                let setting = if word == "fall" { "health.fall" } else { "health.rise" };
                match number() {
                    Some(count) => import.set(line, key, setting, count.to_string()),
                    None => import.leave(line, key, "is not a number"),
                }
            }
            ("verify", _) if words.clone().next().is_some_and(|value| value == "none") => {
                words.next();
                import.leave(line, key, "certificates are always verified: see ca_file of a node");
            }
            ("ca-file", _) => {
                words.next();
                import.leave(line, key, "see ca_file of a node");
            }
            (known, _) if PARAMETERS.contains(&known) => {
                let has_value = !["check", "check-ssl"].contains(&known);
                has_value.then(|| words.next());
            }
            (
                "weight" | "port" | "addr" | "fastinter" | "downinter" | "slowstart" | "cookie" | "id" | "maxqueue",
                _,
            ) => {
                words.next();
                import.leave(line, key, "has no setting");
            }
            _ => import.leave(line, key, "is not known"),
        }
    }
    is_used
}

/// Milliseconds of a time, which is also the unit of a time without one.
fn millis(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let each = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(each).filter(|millis| *millis > 0)
}

/// The words of a line, without its comment.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(rest.next()),
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quotation has no end".to_owned()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_into_words() {
        assert_eq!(words("  a \"b c\" d\\ e 'f\"g' # h").unwrap(), ["a", "b c", "d e", "f\"g"]);
        assert_eq!(words("# all").unwrap(), [""; 0]);
        assert!(words("a \"b").is_err());
    }

    #[test]
    fn a_time_without_a_unit_is_in_milliseconds() {
        assert_eq!(
            (millis("2000"), millis("2s"), millis("1m"), millis("2d")),
            (Some(2000), Some(2000), Some(60_000), None)
        );
    }

    #[test]
    fn a_line_outside_of_sections_is_refused() {
        let why = read("# x\nserver a b\n", &mut Import::default()).unwrap_err();
        assert!(why.starts_with("2: stands in no section"), "{why}");
    }
}
