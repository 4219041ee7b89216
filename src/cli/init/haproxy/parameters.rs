//! The parameters behind a `server` or a `bind` of haproxy. Words that are not known are told by
//! their place in the line, since they may be secrets.

use super::{
    super::{
        groups::Server,
        import::{Fate, Import, quoted},
    },
    set_time,
};

/// Parameters of a server for which nothing has to be set, with the number of their values.
const NOT_NEEDED: &[(&str, usize, &str)] = &[
    ("check", 0, "nodes are always probed"),
    ("no-check", 0, "nodes are always probed"),
    ("check-ssl", 0, "nodes are probed as they are called"),
    ("verify", 1, "certificates are always verified"),
    ("alpn", 1, "HTTP/1.1 is spoken to nodes"),
    ("resolvers", 1, "see health.dns_interval"),
    ("init-addr", 1, "names are looked up again and again"),
    ("no-verifyhost", 0, "certificates are always verified"),
];
/// Parameters of a server that there is no setting for, without a value.
const FLAGS: &[&str] = &[
    "agent-check",
    "allow-0rtt",
    "check-send-proxy",
    "check-via-socks4",
    "force-sslv3",
    "force-tlsv10",
    "force-tlsv11",
    "force-tlsv12",
    "force-tlsv13",
    "no-agent-check",
    "no-check-ssl",
    "no-send-proxy",
    "no-ssl-reuse",
    "no-sslv3",
    "no-tls-tickets",
    "non-stick",
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2-ssl",
    "send-proxy-v2-ssl-cn",
    "ssl-reuse",
    "stick",
    "tfo",
    "tls-tickets",
];
/// The same with a value.
const VALUED: &[&str] = &[
    "addr",
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "check-alpn",
    "check-pool-conn-name",
    "check-proto",
    "check-sni",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "cookie",
    "crl-file",
    "crt",
    "curves",
    "downinter",
    "error-limit",
    "fastinter",
    "guid",
    "hash-key",
    "id",
    "init-state",
    "log-bufsize",
    "log-proto",
    "max-reuse",
    "maxqueue",
    "minconn",
    "namespace",
    "npn",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-conn-name",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "port",
    "proto",
    "proxy-v2-options",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "set-proxy-v2-tlv-fmt",
    "shard",
    "sigalgs",
    "slowstart",
    "sni",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "strict-maxconn",
    "tcp-md5sig",
    "tcp-ut",
    "track",
    "usesrc",
    "verifyhost",
    "weight",
];
/// Parameters of a `bind` that there is no setting for, with the number of their values.
const OF_BIND: &[(&str, usize)] = &[
    ("accept-proxy", 0),
    ("alpn", 1),
    ("backlog", 1),
    ("defer-accept", 0),
    ("gid", 1),
    ("group", 1),
    ("id", 1),
    ("interface", 1),
    ("level", 1),
    ("maxconn", 1),
    ("mode", 1),
    ("mss", 1),
    ("namespace", 1),
    ("nice", 1),
    ("process", 1),
    ("proto", 1),
    ("shards", 1),
    ("tfo", 0),
    ("thread", 1),
    ("transparent", 0),
    ("uid", 1),
    ("user", 1),
];

/// The parameters of a server so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    is_backup: bool,
    is_tls: bool,
    is_out: bool,
    max_connections: Option<u64>,
}

impl Parameters {
    /// Reads further `words` behind the keyword `of`, the first of which is the word `first` of the
    /// line.
    pub(super) fn read(&mut self, line: usize, words: &[String], of: &str, first: usize, import: &mut Import) {
        let mut words = words.iter().enumerate();
        while let Some((at, word)) = words.next() {
            let word = &**word;
            let key = format!("{of} … {word}");
            match word {
                "backup" | "no-backup" => self.is_backup = word == "backup",
                "disabled" | "enabled" => self.is_out = word == "disabled",
                "ssl" | "no-ssl" => self.is_tls = word == "ssl",
                "maxconn" => match next(&mut words).and_then(|value| value.parse().ok()) {
                    // Without a bound.
                    Some(0) => self.max_connections = None,
                    Some(most) => self.max_connections = Some(most),
                    None => import.leave(line, key, "is not a number"),
                },
                "inter" => set_time(line, &key, next(&mut words), "health.interval", import),
                "fall" | "rise" => {
                    let setting = if word == "fall" { "health.fall" } else { "health.rise" };
                    match next(&mut words).and_then(|value| value.parse::<u64>().ok()).filter(|count| *count > 0) {
                        Some(count) => import.set(line, key, setting, count.to_string()),
                        None => import.leave(line, key, "is not a number"),
                    }
                }
                "verify" if words.clone().next().is_some_and(|(_, value)| value == "none") => {
                    words.next();
                    import.leave(line, key, "certificates are always verified: see ca_file of a node");
                }
                "ca-file" => {
                    next(&mut words);
                    import.leave(line, key, "see ca_file of a node");
                }
                _ if let Some((_, values, why)) = NOT_NEEDED.iter().find(|(known, ..)| *known == word) => {
                    (0..*values).for_each(|_| _ = next(&mut words));
                    import.note(line, key, Fate::NotNeeded((*why).to_owned()));
                }
                _ if FLAGS.contains(&word) => import.leave(line, key, "has no setting"),
                _ if VALUED.contains(&word) => {
                    next(&mut words);
                    import.leave(line, key, "has no setting");
                }
                _ => import.leave(line, format!("{of} … word {}", first + at), "is not known"),
            }
        }
    }

    /// The server with these parameters; `None` if the server is out of use.
    pub(super) fn server(&self, line: usize, name: &str, address: &str, import: &mut Import) -> Option<Server> {
        let Self { is_backup, is_tls, is_out, max_connections } = *self;
        if is_out {
            import.leave(line, "server … disabled", "is out of use: add it, and take it out with `steadfast cordon`");
            return None;
        }
        let (name, address) = (Some(name.to_owned()), address.to_owned());
        Some(Server { line, name, address, is_resolved: false, is_backup, is_tls, max_connections })
    }
}

/// The value of a parameter: the next word.
fn next<'w>(words: &mut impl Iterator<Item = (usize, &'w String)>) -> Option<&'w String> {
    words.next().map(|(_, word)| word)
}

/// Reads the words of a `bind` behind its address. The permissions of a Unix socket are a setting.
pub(super) fn read_of_bind(line: usize, words: &[String], is_file: bool, import: &mut Import) {
    let mut words = words.iter().enumerate().skip(1);
    while let Some((at, word)) = words.next() {
        match (&**word, OF_BIND.iter().find(|(known, _)| known == word)) {
            ("mode", _) if is_file => {
                let mode = words.next().map_or("", |(_, mode)| mode);
                // A number that is no permissions is told with the new file.
                let is_octal = !mode.is_empty() && mode.bytes().all(|b| b.is_ascii_digit());
                match is_octal {
                    true => import.set(line, "bind … mode", "socket_mode", quoted(&format!("{mode:0>4}"))),
                    false => import.leave(line, "bind … mode", "is not a number"),
                }
            }
            (known, Some((_, values))) => {
                (0..*values).for_each(|_| _ = words.next());
                import.leave(line, format!("bind … {known}"), "has no setting");
            }
            // The name is shown in haproxy's own statistics alone.
            ("name", None) => _ = words.next(),
            _ => import.leave(line, format!("bind … word {}", at + 2), "is not known"),
        }
    }
}
