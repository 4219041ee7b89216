//! haproxy's file: sections of lines, each of which begins with a keyword.

mod parameters;

use self::parameters::Parameters;
use super::{
    groups::{Group, Server, VARIABLE, add_all},
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
    // Parameters of the servers behind: of all sections, and of the present one.
    let (mut of_all, mut of_these) = (Parameters::default(), Parameters::default());
    for (at, text) in text.lines().enumerate() {
        let line = at + 1;
        let words = words(text).map_err(|why| format!("{line}: {why}"))?;
        let Some((word, values)) = words.split_first() else { continue };
        let name = || values.first().cloned().unwrap_or_default();
        match &**word {
            "global" => section = Some(Section::Global),
            "defaults" => {
                of_all = Parameters::default();
                section = Some(Section::Defaults);
            }
            "frontend" => section = Some(Section::Frontend),
            "backend" | "listen" => {
                groups.push(Group { name: name(), ..Group::default() });
                of_these = of_all.clone();
                section = Some(Section::Servers(groups.len() - 1));
            }
            "userlist" | "peers" | "resolvers" | "mailers" | "program" | "cache" | "ring" | "http-errors" => {
                import.leave(line, word.clone(), "is left out as a whole");
                section = Some(Section::Other);
            }
            _ => match &section {
                None => return Err(format!("{line}: stands in no section: is this a file of haproxy?")),
                Some(Section::Other) => {}
                Some(Section::Servers(at)) => {
                    read_of_servers(line, word, values, (&mut groups[*at], &mut of_these), import);
                }
                Some(Section::Defaults) if word == "default-server" => of_all.read(line, values, word, 2, import),
                Some(section) => read_line(line, word, values, section == &Section::Global, import),
            },
        }
    }
    add_all(&groups, "server", import);
    import.lift_single();
    Ok(())
}

/// A line of a `backend`, or of a `listen`.
fn read_of_servers(
    line: usize,
    word: &str,
    values: &[String],
    (group, parameters): (&mut Group, &mut Parameters),
    import: &mut Import,
) {
    match word {
        "server" => group.servers.extend(read_server(line, values, parameters, import)),
        "server-template" => group.servers.extend(read_template(line, values, parameters, import)),
        "default-server" => parameters.read(line, values, word, 2, import),
        "http-request" => read_request_rule(line, values, group, import),
        _ => read_line(line, word, values, false, import),
    }
}

/// `http-request set-header NAME VALUE`, without a condition.
fn read_request_rule(line: usize, values: &[String], group: &mut Group, import: &mut Import) {
    let [action, name, value, condition @ ..] = values else {
        return import.leave(line, "http-request", "is not known");
    };
    if action != "set-header" {
        return import.leave(line, "http-request", "is not known");
    }
    let key = format!("http-request set-header {name}");
    if !condition.is_empty() {
        return import.leave(line, key, "has a condition, and headers of a node go along with each call");
    }
    // `%%` is a percent sign, and any other one begins a variable.
    if value.replace("%%", "").contains('%') {
        return import.leave(line, key, "is made of a client's request: see calls.forward_headers");
    }
    // The last one holds.
    group.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    group.headers.push((name.clone(), value.replace("%%", "%")));
    import.note(line, key, Fate::Became("headers of the nodes".into()));
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
            _ => import.note(line, word, Fate::NotNeeded("filters and subscriptions are the proxy's own".into())),
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
                import.leave(line, word, "is not known");
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

/// `bind *:8545`, `bind :8545`, `bind 127.0.0.1:8545`, `bind unix@/run/a.ipc`, with parameters.
fn read_bind(line: usize, values: &[String], import: &mut Import) {
    let address = values.first().map_or("", String::as_str);
    if values.iter().any(|word| word == "ssl") {
        return import.leave(line, "bind", "there is no TLS to clients: keep haproxy in front");
    }
    let file = address.strip_prefix("unix@").or_else(|| address.starts_with('/').then_some(address));
    parameters::read_of_bind(line, values, file.is_some(), import);
    if let Some(file) = file {
        return import.set(line, "bind", "listen", quoted(&format!("unix:{file}")));
    }
    let port = address.strip_prefix("*:").or_else(|| address.strip_prefix(':'));
    let full = port.map_or_else(|| address.to_owned(), |port| format!("0.0.0.0:{port}"));
    match full.parse::<std::net::SocketAddr>() {
        Ok(_) => import.set(line, "bind", "listen", quoted(&full)),
        Err(_) => import.leave(line, "bind", "is not an IP address and a port, nor a Unix socket"),
    }
}

/// `name address[:port] [parameters]`, behind a `default-server` with these `parameters`.
fn read_server(line: usize, values: &[String], parameters: &Parameters, import: &mut Import) -> Option<Server> {
    let [name, address, own @ ..] = values else {
        import.leave(line, "server", "has no name and address");
        return None;
    };
    if address.starts_with('/') || address.starts_with("unix@") || address.starts_with("abns@") {
        import.leave(line, "server", "is a Unix socket");
        return None;
    }
    let mut parameters = parameters.clone();
    parameters.read(line, own, "server", 4, import);
    parameters.server(line, name, address, import)
}

/// `prefix count name[:port] [parameters]`: a server for each address of the name.
fn read_template(line: usize, values: &[String], parameters: &Parameters, import: &mut Import) -> Option<Server> {
    let [prefix, _, address, own @ ..] = values else {
        import.leave(line, "server-template", "has no prefix, count and name");
        return None;
    };
    let mut parameters = parameters.clone();
    parameters.read(line, own, "server-template", 5, import);
    let mut server = parameters.server(line, prefix, address, import)?;
    server.is_resolved = server.has_name();
    Some(server)
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
            // `"$NAME"` and `"${NAME}"` are variables of the environment.
            ('$', Some('"')) => {
                let word = word.get_or_insert_default();
                match variable(rest.as_str()) {
                    Some((name, after)) => {
                        word.extend([VARIABLE, '{'].into_iter().chain(name.chars()).chain(['}']));
                        rest = after.chars();
                    }
                    None => word.push('$'),
                }
            }
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

/// The name of the variable at the beginning of `text`, which stands behind a `$`, and the text
/// behind the variable.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (inside, end) = text.strip_prefix('{').map_or((text, ""), |inside| (inside, "}"));
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, after) = inside.split_at(inside.find(|c| !is_in_name(c)).unwrap_or(inside.len()));
    Some((name, after.strip_prefix(end)?)).filter(|(name, _)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file and the report that come of the text.
    fn taken_over(text: &str) -> (String, Vec<String>) {
        let mut import = Import::default();
        read(text, &mut import).unwrap();
        (import.file("#"), import.notes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_header_under_a_condition_is_left_out() {
        let text = "backend x\n server a a:1\n http-request set-header Authorization t0ken if { path_beg /a }\n \
            http-request set-header A %[src]\n http-request set-header B %ci\n http-request set-header C 5%%\n \
            http-request set-header c 6%%\n http-request set-header D \"Bearer ${TOKEN} $TOKEN $ ${\"\n";
        let (file, notes) = taken_over(text);
        assert!(file.contains("headers = { \"c\" = \"6%\", \"D\" = \"Bearer ${TOKEN} ${TOKEN} $ $${\" }"), "{file}");
        let left: Vec<_> = notes.iter().filter(|note| !note.contains('→')).collect();
        assert!(left.len() == 3 && left[0].contains("3: http-request set-header Authorization: has a condition"));
        assert!(left[1].contains("client's request") && left[2].contains("client's request"), "{left:?}");
    }

    #[test]
    fn default_servers_hold_for_the_servers_behind_them() {
        let text = "defaults\n default-server ssl\nbackend x\n server a a:1\n default-server maxconn 77 backup\n \
            server b b:1\n server c c:1 maxconn 5 no-backup no-ssl\nbackend y\n server d d:1 disabled\n \
            default-server disabled\n server e e:1\n server f f:1 enabled\n";
        let (file, notes) = taken_over(text);
        for node in [
            "[[el.primary]]\nname = \"a\"\nhttp = \"https://a:1\"\n\n",
            "[[el.backup]]\nname = \"b\"\nhttp = \"https://b:1\"\nmax_connections = 77\n",
            "[[el.primary]]\nname = \"c\"\nhttp = \"http://c:1\"\nmax_connections = 5\n",
        ] {
            assert!(file.replace("networks.x.", "").contains(node), "{node}{file}");
        }
        assert!(file.contains("https://f:1") && !file.contains("://d:") && !file.contains("://e:"), "{file}");
        assert_eq!(notes.iter().filter(|note| note.contains("is out of use")).count(), 2, "{notes:?}");
    }

    #[test]
    fn a_template_is_a_name_with_a_node_at_each_address() {
        let text = "frontend f\n bind unix@/run/a.ipc mode 660 user x accept-proxy\nbackend x\n \
            server-template geth 1-3 geth.svc:8545 check resolvers dns backup\n server-template b 2 10.0.0.1:1\n \
            server-template c\n";
        let (file, notes) = taken_over(text);
        assert!(file.contains("[[el.backup]]\nname = \"geth\"\nhttp = \"dns+http://geth.svc:8545\""), "{file}");
        assert!(file.contains("http = \"http://10.0.0.1:1\""), "{file}");
        assert!(file.contains("listen = \"unix:/run/a.ipc\"") && file.contains("socket_mode = \"0660\""), "{file}");
        for note in ["2: bind … user: has no setting", "2: bind … accept-proxy: ", "6: server-template: has no prefix"]
        {
            assert!(notes.iter().any(|other| other.contains(note)), "{note}: {notes:?}");
        }
        let env = |_: &str| None;
        crate::config::Config::parse(&file, &env).unwrap_or_else(|errors| panic!("{errors}\n{file}"));
    }

    #[test]
    fn words_of_an_unknown_kind_are_not_shown() {
        let text = "defaults\n option v4lue\n timeout v4lue 1s\n balance v4lue\n default-server v4lue\n\
            frontend f\n bind :1 v4lue v4lue name v4lue\nbackend x\n balance hdr(v4lue)\n \
            http-request v4lue v4lue v4lue\n server a a:1 check agent-send v4lue v4lue maxconn v4lue fall v4lue \
            inter v4lue source v4lue usesrc v4lue\n server-template b v4lue c:1 v4lue\n";
        let (_, notes) = taken_over(text);
        assert!(notes.iter().all(|note| !note.contains("v4lue")), "{notes:?}");
        for note in ["server … agent-send: has no setting", "server … word 7: is not known", "server … maxconn: is not"]
        {
            assert!(notes.iter().any(|other| other.contains(note)), "{note}: {notes:?}");
        }
    }

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
