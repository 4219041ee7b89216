//! nginx's file: directives that end with `;`, or have a block.

use std::collections::BTreeMap;

use super::{
    groups::{Group, MAX_SERVERS, Server, add_all},
    import::{Fate, Import, quoted},
};

/// A directive: its words, the first of which is its name, and its block.
#[derive(Clone, Debug)]
struct Directive {
    line: usize,
    words: Vec<String>,
    block: Option<Vec<Directive>>,
}

/// Directives for which nothing has to be set.
const NOT_NEEDED: [(&str, &str); 16] = [
    ("proxy_http_version", "HTTP/1.1 is spoken to nodes"),
    ("proxy_next_upstream", "a call goes on to another node where that is safe"),
    ("proxy_next_upstream_tries", "see calls.attempts"),
    ("proxy_next_upstream_timeout", "see calls.timeout"),
    ("keepalive", "connections to nodes are kept"),
    ("keepalive_timeout", "connections to nodes are kept"),
    ("keepalive_requests", "connections to nodes are kept"),
    ("ip_hash", "filters and subscriptions are the proxy's own"),
    ("hash", "filters and subscriptions are the proxy's own"),
    ("zone", "there is one process"),
    ("proxy_buffering", "answers are passed on as they come"),
    ("proxy_request_buffering", "a call is read whole, and a beacon request as it comes"),
    ("worker_processes", "there is a thread for each core"),
    ("worker_connections", "see max_connections"),
    ("server_name", "see hosts"),
    ("default_type", "answers have their types"),
];
/// Directives that there is no setting for.
const LEFT: [(&str, &str); 8] = [
    ("ssl_certificate", "there is no TLS to clients: keep nginx in front"),
    ("ssl_certificate_key", "there is no TLS to clients: keep nginx in front"),
    ("limit_req", "there are no limits of rates: keep nginx in front"),
    ("limit_conn", "see max_connections and shared_addresses"),
    ("proxy_cache", "there is no cache"),
    ("proxy_connect_timeout", "2 s, without a setting"),
    ("auth_basic", "clients are not asked who they are: keep nginx in front"),
    ("include", "other files are not read"),
];
/// Blocks whose content is looked at.
const BLOCKS: [&str; 4] = ["http", "server", "events", "stream"];
/// Blocks in blocks, at most.
const MAX_DEPTH: usize = 64;
/// Parameters of a server that there is no setting for.
const PARAMETERS: [&str; 6] = ["weight", "slow_start", "service", "route", "drain", "backup"];

pub(super) fn read(text: &str, import: &mut Import) -> Result<(), String> {
    let directives = parse(text)?;
    let mut found = Found::default();
    collect(&directives, &mut found, import);
    let mut groups = Vec::new();
    let by_name = found.upstreams.iter().enumerate().rev().map(|(at, upstream)| (upstream.name.clone(), at)).collect();
    let mut count = 0;
    for location in &found.locations {
        if let Some(group) = group_of(location, &by_name, &mut found.upstreams, import) {
            count += group.servers.len();
            groups.push(group);
        }
        if count > MAX_SERVERS {
            return Err(format!("{}: there are more than {MAX_SERVERS} servers", location.line));
        }
    }
    for upstream in found.upstreams.iter().filter(|upstream| !upstream.is_used) {
        import.leave(upstream.line, format!("upstream {}", upstream.name), "no proxy_pass leads to it");
    }
    add_all(&groups, "server", import);
    import.lift_single();
    Ok(())
}

#[derive(Default)]
struct Found {
    upstreams: Vec<Upstream>,
    locations: Vec<Location>,
}

struct Upstream {
    line: usize,
    name: String,
    servers: Vec<Server>,
    is_used: bool,
}

struct Location {
    path: String,
    line: usize,
    target: String,
    headers: Vec<(String, String)>,
    is_ws: bool,
}

fn collect(directives: &[Directive], found: &mut Found, import: &mut Import) {
    for Directive { line, words, block } in directives {
        let (name, values) = words.split_first().map_or(("", &[][..]), |(name, values)| (name, values));
        match (name, block) {
            ("upstream", Some(block)) => read_upstream(*line, values, block, found, import),
            ("location", Some(block)) => read_location(*line, values, block, found, import),
            (_, Some(block)) if BLOCKS.contains(&name) => collect(block, found, import),
            (_, Some(_)) => import.leave(*line, name, "is not known"),
            ("listen", None) => read_listen(*line, values, import),
            (_, None) => read_setting(*line, name, values, import),
        }
    }
}

/// `8545`, `127.0.0.1:8545`, `[::]:8545`, with parameters.
fn read_listen(line: usize, values: &[String], import: &mut Import) {
    let Some(address) = values.first() else { return };
    if values.iter().any(|word| word == "ssl" || word == "quic") {
        return import.leave(line, "listen", "there is no TLS to clients: keep nginx in front");
    }
    let full = match address.parse::<u16>() {
        Ok(port) => format!("0.0.0.0:{port}"),
        Err(_) => address.replace("*:", "0.0.0.0:"),
    };
    match full.parse::<std::net::SocketAddr>() {
        Ok(_) => import.set(line, "listen", "listen", quoted(&full)),
        Err(_) => import.leave(line, "listen", "is not an IP address and a port"),
    }
}

/// A directive that is a setting for all nodes.
fn read_setting(line: usize, name: &str, values: &[String], import: &mut Import) {
    let value = values.first().map_or("", String::as_str);
    match name {
        "client_max_body_size" => match size(value) {
            Some(size) => import.set(line, name, "calls.max_body", quoted(&size)),
            None => import.leave(line, name, "is no size, or none at all: see calls.max_body"),
        },
        "proxy_read_timeout" => match millis(value) {
            Some(millis) => import.set_millis(line, name, "calls.timeout", millis),
            None => import.leave(line, name, "is not a time"),
        },
        "least_conn" => import.set(line, name, "calls.policy", quoted("spread")),
        "gzip" => import.leave(line, name, "keep nginx in front, or leave it"),
        _ => match NOT_NEEDED.iter().find(|(known, _)| *known == name) {
            Some((_, why)) => import.note(line, name, Fate::NotNeeded((*why).to_owned())),
            None => {
                let known = LEFT.iter().find(|(known, _)| *known == name);
                import.leave(line, name, known.map_or("is not known", |(_, why)| why));
            }
        },
    }
}

fn read_upstream(line: usize, values: &[String], block: &[Directive], found: &mut Found, import: &mut Import) {
    let name = values.first().cloned().unwrap_or_default();
    let mut servers = Vec::new();
    for directive in block {
        match directive.words.split_first() {
            Some((word, values)) if word == "server" => servers.extend(read_server(directive.line, values, import)),
            Some((word, values)) => read_setting(directive.line, word, values, import),
            None => {}
        }
    }
    let is_divided = block.iter().any(|one| ["ip_hash", "hash"].contains(&one.words.first().map_or("", |word| word)));
    if !is_divided && !import.has("calls.policy") && servers.iter().filter(|server| !server.is_backup).count() > 1 {
        // Round robin.
        import.set(line, format!("upstream {name}"), "calls.policy", quoted("spread"));
    }
    found.upstreams.push(Upstream { line, name, servers, is_used: false });
}

fn read_server(line: usize, values: &[String], import: &mut Import) -> Option<Server> {
    let (address, parameters) = values.split_first()?;
    if address.starts_with("unix:") {
        import.leave(line, "server", "is a Unix socket");
        return None;
    }
    let mut server = Server {
        line,
        name: None,
        address: address.clone(),
        is_resolved: false,
        is_backup: false,
        is_tls: false,
        max_connections: None,
    };
    for (at, parameter) in parameters.iter().enumerate() {
        let (word, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (word, value.parse::<u64>()) {
            ("backup", Err(_)) if value.is_empty() => server.is_backup = true,
            ("resolve", _) => server.is_resolved = server.has_name(),
            ("down", _) => {
                import.leave(line, "server … down", "is out of use: add it, and take it out with `steadfast cordon`");
                return None;
            }
            // 0: without a bound.
            ("max_conns", Ok(most)) => server.max_connections = Some(most).filter(|most| *most > 0),
            ("max_fails", Ok(0)) => import.leave(line, "server … max_fails", "nodes are always probed: health.fall"),
            ("max_fails", Ok(fails)) => import.set(line, "server … max_fails", "health.fall", fails.to_string()),
            ("max_conns" | "max_fails", Err(_)) => {
                import.leave(line, format!("server … {word}"), "is not a number");
            }
            ("fail_timeout", _) => {
                import.note(
                    line,
                    "server … fail_timeout",
                    Fate::NotNeeded("nodes are probed: health.interval, health.rise".into()),
                );
            }
            (known, _) if PARAMETERS.contains(&known) => {
                import.leave(line, format!("server … {known}"), "has no setting");
            }
            // The word may be a secret, and is told by its place.
            _ => import.leave(line, format!("server … word {}", at + 3), "is not known"),
        }
    }
    Some(server)
}

fn read_location(line: usize, values: &[String], block: &[Directive], found: &mut Found, import: &mut Import) {
    let path = values.last().cloned().unwrap_or_default();
    let mut location = Location { path, line, target: String::new(), headers: Vec::new(), is_ws: false };
    for directive in block {
        let Some((word, values)) = directive.words.split_first() else { continue };
        match &**word {
            "proxy_pass" => {
                location.target = values.first().cloned().unwrap_or_default();
                location.line = directive.line;
            }
            "proxy_set_header" => read_header(directive.line, values, &mut location, import),
            _ if directive.block.is_some() => import.leave(directive.line, word.clone(), "is not known"),
            _ => read_setting(directive.line, word, values, import),
        }
    }
    if location.target.is_empty() {
        import.leave(line, "location", "has no proxy_pass");
    } else {
        found.locations.push(location);
    }
}

fn read_header(line: usize, values: &[String], location: &mut Location, import: &mut Import) {
    let [name, value] = values else { return import.leave(line, "proxy_set_header", "has no name and value") };
    let key = format!("proxy_set_header {name}");
    let lower = name.to_ascii_lowercase();
    if lower == "upgrade" || lower == "connection" {
        location.is_ws |= lower == "upgrade";
        return import.note(line, key, Fate::NotNeeded("WebSockets are served by themselves".into()));
    }
    if lower == "host" || lower.starts_with("x-forwarded") || lower == "x-real-ip" {
        return import.note(line, key, Fate::NotNeeded("nodes are not told of clients".into()));
    }
    if value.contains('$') {
        return import.leave(line, key, "is made of a client's request: see calls.forward_headers");
    }
    if location.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
        return import.leave(line, key, "is there twice: a node has one of each");
    }
    location.headers.push((name.clone(), value.clone()));
    import.note(line, key, Fate::Became("headers of the nodes".into()));
}

/// The group that a location leads to, of upstreams with these places `by_name`.
fn group_of(
    location: &Location,
    by_name: &BTreeMap<String, usize>,
    upstreams: &mut [Upstream],
    import: &mut Import,
) -> Option<Group> {
    let Location { path, line, target, headers, is_ws } = location;
    let Some((scheme, rest)) = target.split_once("://") else {
        import.leave(*line, "proxy_pass", "is not a URL");
        return None;
    };
    if target.contains('$') {
        import.leave(*line, "proxy_pass", "has a variable in it");
        return None;
    }
    let (authority, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let upstream = by_name.get(authority).map(|at| &mut upstreams[*at]);
    let is_tls = scheme == "https";
    let servers = match upstream {
        Some(upstream) => {
            upstream.is_used = true;
            upstream.servers.clone()
        }
        None => vec![Server {
            line: *line,
            name: None,
            address: authority.to_owned(),
            is_resolved: false,
            is_backup: false,
            is_tls,
            max_connections: None,
        }],
    };
    // A location for calls and WebSockets alike is one for calls: a link is another setting.
    let is_only_ws = *is_ws && path.trim_matches('/').split('/').any(|step| step == "ws" || step == "wss");
    Some(Group {
        name: authority.to_owned(),
        servers,
        headers: headers.clone(),
        location: Some(path.clone()),
        path: if tail == "/" { String::new() } else { tail.to_owned() },
        is_ws: is_only_ws,
        is_tls,
    })
}

/// A size of nginx, in the form of sizes here.
fn size(text: &str) -> Option<String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match &*unit.to_ascii_lowercase() {
        "" => "B",
        "k" => "KiB",
        "m" => "MiB",
        "g" => "GiB",
        _ => return None,
    };
    number.parse::<u64>().ok().filter(|number| *number > 0).map(|number| format!("{number}{unit}"))
}

/// Milliseconds of a time; a time without a unit is in seconds.
fn millis(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let each = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(each).filter(|millis| *millis > 0)
}

/// Splits the file into directives.
fn parse(text: &str) -> Result<Vec<Directive>, String> {
    // The open blocks, each with its directive.
    let mut open: Vec<(Vec<Directive>, Directive)> = Vec::new();
    let mut here = Vec::new();
    let mut words = Vec::new();
    let (mut first, mut line) = (1, 1);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' => line += 1,
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            ';' | '{' => {
                let words = std::mem::take(&mut words);
                let directive = Directive { line: first, words, block: None };
                match c {
                    ';' => here.push(directive),
                    _ if open.len() >= MAX_DEPTH => return Err(format!("{line}: blocks are nested too deep")),
                    _ => open.push((std::mem::take(&mut here), directive)),
                }
            }
            '}' if !words.is_empty() => return Err(format!("{first}: a directive has no `;`")),
            '}' => {
                let (outer, mut directive) = open.pop().ok_or(format!("{line}: a `}}` closes nothing"))?;
                directive.block = Some(std::mem::replace(&mut here, outer));
                here.push(directive);
            }
            c if c.is_whitespace() => {}
            c => {
                if words.is_empty() {
                    first = line;
                }
                let mut word = String::new();
                if c == '"' || c == '\'' {
                    let mut is_open = true;
                    while let Some(next) = rest.next() {
                        match next {
                            '\\' => word.extend(rest.next()),
                            next if next == c => {
                                is_open = false;
                                break;
                            }
                            next => {
                                line += usize::from(next == '\n');
                                word.push(next);
                            }
                        }
                    }
                    if is_open {
                        return Err(format!("{first}: a quotation has no end"));
                    }
                } else {
                    let mut next = Some(c);
                    while let Some(c) = next {
                        word.push(c);
                        // A variable's braces are part of its word.
                        if c == '$' && rest.next_if_eq(&'{').is_some() {
                            word.push('{');
                            while let Some(c) = rest.next_if(|c| *c != '\n') {
                                word.push(c);
                                if c == '}' {
                                    break;
                                }
                            }
                        }
                        next = rest.next_if(|c| !c.is_whitespace() && !matches!(c, ';' | '{' | '}'));
                    }
                }
                words.push(word);
            }
        }
    }
    match open.last() {
        Some((_, directive)) => Err(format!("{}: a `{{` is not closed", directive.line)),
        None if !words.is_empty() => Err(format!("{first}: a directive has no `;`")),
        None => Ok(here),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_told_apart() {
        let text = "a 1; # b;\nc 'x; y' \"z\\\"\" {\n d ${e}f;\n}\n";
        let found = parse(text).unwrap();
        assert_eq!((found[0].line, &*found[0].words.join("|")), (1, "a|1"));
        assert_eq!((found[1].line, &*found[1].words.join("|")), (2, "c|x; y|z\""));
        assert_eq!(found[1].block.as_ref().unwrap()[0].words.join("|"), "d|${e}f");
        for (text, wrong) in [
            ("a {\n b;\n", "1: a `{` is not closed"),
            ("a;\n}", "2: a `}` closes nothing"),
            ("a;\nb", "2: a directive has no `;`"),
            ("a \"b", "1: a quotation has no end"),
            ("a {\n b\n}\nc;", "2: a directive has no `;`"),
            (&*"a {".repeat(200_000), "1: blocks are nested too deep"),
        ] {
            assert_eq!(parse(text).unwrap_err(), wrong);
        }
    }

    #[test]
    fn sizes_and_times_have_their_units() {
        assert_eq!(size("10m").as_deref(), Some("10MiB"));
        assert_eq!((size("64K").as_deref(), size("0"), size("1t")), (Some("64KiB"), None, None));
        assert_eq!(
            (millis("60"), millis("500ms"), millis("1m"), millis("x")),
            (Some(60_000), Some(500), Some(60_000), None)
        );
    }

    #[test]
    fn words_of_an_unknown_kind_are_not_shown() {
        let text = "upstream x { server a:1 v4lue v4lue=1 max_conns=v4lue max_fails=v4lue weight=v4lue; \
            server b resolve; server 10.0.0.1 resolve max_conns=0; } server { location / { proxy_pass http://x; \
            proxy_set_header A one; proxy_set_header a v4lue; } }";
        let mut import = Import::default();
        read(text, &mut import).unwrap();
        let notes: Vec<_> = import.notes.iter().map(ToString::to_string).collect();
        assert!(notes.iter().all(|note| !note.contains("v4lue")), "{notes:?}");
        for note in ["server … word 3: is not known", "server … max_conns: is not a number", "header a: is there twice"]
        {
            assert!(notes.iter().any(|other| other.contains(note)), "{note}: {notes:?}");
        }
        let file = import.file("#");
        assert!(file.contains("http = \"dns+http://b\"") && file.contains("http = \"http://10.0.0.1\""), "{file}");
        assert!(file.contains("{ \"A\" = \"one\" }") && !file.contains("max_connections"), "{file}");
    }

    #[test]
    fn an_upstream_that_is_used_again_and_again_is_bounded() {
        let servers: String = (0..2000).map(|at| format!("server h:{at};")).collect();
        let locations = "location /a/ { proxy_pass http://x; }".repeat(2000);
        let text = format!("upstream x {{ {servers} }} server {{ {locations} }}");
        let why = read(&text, &mut Import::default()).unwrap_err();
        assert!(why.ends_with("there are more than 100000 servers"), "{why}");
    }
}
