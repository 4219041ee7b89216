//! Whole configurations: what is accepted, and what is said about what is not.

use std::{fs, path::Path, time::Duration};

use steadfast::{
    config::{Config, Flags, NetworkName, Origins, Policy, Tier},
    domain::address::Address,
};

fn env(name: &str) -> Option<String> {
    match name {
        "GETH_TOKEN" => Some("geth-t0ken".into()),
        "PROVIDER_KEY" => Some("provider-k3y".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn parse(text: &str) -> Config {
    Config::parse(text, &env).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn ip(text: &str) -> Address {
    Address::Ip(text.parse().unwrap())
}

/// What is said about `text`, a problem a line.
fn problems(text: &str) -> Vec<String> {
    let Err(errors) = Config::parse(text, &env) else { panic!("accepted: {text}") };
    let place = |line: Option<usize>| line.map(|line| format!("{line}: ")).unwrap_or_default();
    errors.problems.iter().map(|p| format!("{}{}: {}", place(p.line), p.path, p.message)).collect()
}

#[test]
fn a_link_leaves_requests_a_connection() {
    let node = |more: &str, ws: &str| {
        format!("{more}\n[[el.primary]]\nname = \"a\"\nhttp = \"http://10.0.0.1:8545\"\nws = \"ws://10.0.0.1:{ws}\"\n")
    };
    let why =
        "must be 2 at least where `ws` has the host and port of `http`: the WebSocket takes one connection for good";
    let own = format!("{}max_connections = 1\n", node("", "8545"));
    assert_eq!(problems(&own), [format!("6: el.primary[0].max_connections: {why}")]);
    let of_all = node("calls.max_node_connections = 1", "8545");
    assert_eq!(problems(&of_all), [format!("1: calls.max_node_connections: {why}")]);
    parse(&format!("{of_all}max_connections = 2\n"));
    parse(&format!("{}max_connections = 1\n", node("", "8546")));
}

#[test]
fn the_file_of_the_design_means_what_it_says() {
    let config = parse(include_str!("configuration/design.toml"));
    assert_eq!(config.listen, [ip("127.0.0.1:8545")]);
    assert_eq!(config.workers, None);
    assert_eq!(config.admin.listen, "127.0.0.1:9545".parse().unwrap());
    assert_eq!(config.shutdown_grace, Duration::from_secs(25));
    assert_eq!(config.health.interval, Duration::from_secs(1));
    assert_eq!(config.health.timeout, Duration::from_secs(2));
    assert_eq!((config.health.fall.get(), config.health.rise.get()), (3, 2));
    assert_eq!((config.health.max_lag_blocks, config.health.max_lag_slots), (5, 3));
    assert_eq!(config.calls.timeout, Duration::from_secs(30));
    assert_eq!(config.calls.attempt_timeout, Duration::from_secs(10));
    assert_eq!(config.calls.attempts.get(), 3);
    assert_eq!(config.calls.hold, Duration::from_secs(10));
    assert_eq!(config.calls.max_held.get(), 10_000);
    assert_eq!(config.calls.max_body, 10 << 20);
    assert_eq!(config.calls.max_batch.get(), 1_000);
    assert_eq!(config.calls.policy, Policy::First);
    assert_eq!(config.ws.max_message, 32 << 20);
    assert_eq!(config.ws.max_outbound, 16 << 20);
    assert_eq!((config.chain.window, config.chain.max_backfill), (256, 128));
    assert_eq!(config.cors.origins, Origins::None);

    let [network] = config.networks.as_slice() else { panic!("{:?}", config.networks) };
    assert_eq!(network.name, NetworkName::default_network());
    assert_eq!(network.chain_id, None);
    let [geth, provider] = network.el.as_slice() else { panic!("{:?}", network.el) };
    assert_eq!((geth.name.as_str(), geth.tier), ("geth-1", Tier::Primary));
    assert_eq!(geth.http.as_ref().unwrap().to_string(), "http://127.0.0.1:18545");
    assert_eq!(geth.ws.as_ref().unwrap().to_string(), "ws://127.0.0.1:18546");
    let [(name, value)] = geth.headers.as_slice() else { panic!("{:?}", geth.headers) };
    assert_eq!((name.as_str(), value.expose().to_str().unwrap()), ("authorization", "Bearer geth-t0ken"));
    assert_eq!((provider.name.as_str(), provider.tier), ("provider", Tier::Backup));
    assert_eq!(provider.http.as_ref().unwrap().target().expose().as_str(), "/v2/provider-k3y");
    assert_eq!(provider.ws, None);
    assert_eq!(network.cl[0].name.as_str(), "lighthouse-1");

    let shown = format!("{config:?}");
    assert!(!shown.contains("t0ken") && !shown.contains("k3y"), "{shown}");
}

#[test]
fn nodes_without_name_are_numbered_backups_after_primaries() {
    let config = parse(
        r#"
        [[networks.base.el.backup]]
        http = "http://a"
        [[el.backup]]
        ws = "ws://a"
        [[el.primary]]
        http = "http://b"
        [[el.primary]]
        http = "http://c"
        [[cl.backup]]
        http = "http://a"
        [networks.base]
        chain_id = 0x2105
        [networks.arbitrum.cl]
        primary = [{ http = "http://a", name = "x" }]
        "#,
    );
    let names: Vec<String> = config
        .networks
        .iter()
        .flat_map(|n| n.el.iter().chain(&n.cl).map(move |node| format!("{} {} {}", n.name, node.name, node.tier)))
        .collect();
    assert_eq!(
        names,
        [
            "default el-1 primary",
            "default el-2 primary",
            "default el-backup-1 backup",
            "default cl-backup-1 backup",
            "arbitrum x primary",
            "base el-backup-1 backup",
        ]
    );
    assert_eq!(config.networks[2].chain_id, Some(8453));
}

#[test]
fn a_pair_is_one_execution_and_one_consensus_node_of_a_network() {
    let node =
        |place: &str, url: &str, pair: &str| format!("[[{place}]]\nhttp = \"http://{url}\"\npair = \"{pair}\"\n");
    let text = [
        node("el.primary", "a", "one"),
        node("el.backup", "b", "two"),
        node("cl.primary", "a", "two"),
        node("cl.primary", "b", "one"),
        node("networks.base.el.primary", "a", "one"),
        node("networks.base.cl.primary", "a", "one"),
    ];
    let config = parse(&text.concat());
    let pairs = |nodes: &[steadfast::config::Node]| -> Vec<String> {
        nodes.iter().map(|node| node.pair.as_ref().unwrap().to_string()).collect()
    };
    assert_eq!(pairs(&config.networks[0].el), ["one", "two"]);
    assert_eq!(pairs(&config.networks[0].cl), ["two", "one"]);

    // All that is wrong at once; and each only once.
    let text = [
        node("el.primary", "a", "one"),
        node("el.backup", "b", "one"),
        node("cl.primary", "a", "two"),
        node("networks.base.el.primary", "a", "two"),
    ];
    assert_eq!(
        problems(&text.concat()),
        [
            "3: el.primary[0].pair: no consensus node of this network has the same",
            "6: el.backup[0].pair: is the pair of `el.primary[0]` already: a pair has one node of each layer",
            "9: cl.primary[0].pair: no execution node of this network has the same",
            "12: networks.base.el.primary[0].pair: no consensus node of this network has the same",
        ]
    );
    // A name that cannot be read may be the one that is missed.
    let text = [node("el.primary", "a", "one"), node("cl.primary", "a", "?")];
    assert_eq!(problems(&text.concat()).len(), 1);
}

#[test]
fn a_short_timeout_alone_shortens_what_depends_on_it() {
    let config = parse("[calls]\ntimeout = \"4s\"\nmax_body = \"1GiB\"\n[[cl.primary]]\nhttp = \"http://a\"");
    assert_eq!(config.calls.attempt_timeout, Duration::from_secs(4));
    assert_eq!(config.calls.hold, Duration::from_secs(4));
    assert_eq!(config.calls.max_held_bytes, 1 << 30);
}

#[test]
fn each_rule_is_enforced_at_its_key() {
    let node = "[[el.primary]]\nhttp = \"http://a:1\"\n";
    for (text, expected) in [
        // Types.
        ("workers = \"4\"", "1: workers: must be a whole number, not a string"),
        ("workers = 1.0", "1: workers: must be a whole number, not a number with a point"),
        ("health = 1", "1: health: must be a table, not a number"),
        ("[el]\nbackup = \"x\"", "2: el.backup: must be a list of tables `[[el.backup]]`, not a string"),
        ("[el]\nbackup = [1]", "2: el.backup[0]: must be a table, not a number"),
        ("networks = []", "1: networks: must be a table, not a list"),
        ("networks.a = true", "1: networks.a: must be a table, not true or false"),
        ("[calls]\nblocked = \"*\"", "2: calls.blocked: must be a list of strings, not a string"),
        ("[calls]\nblocked = [\n\"a\",\n1979-05-27]", "4: calls.blocked[1]: must be a string, not a date or time"),
        ("[calls]\nhold = 10", "2: calls.hold: must be a string with a unit, such as \"1s\", not a number"),
        ("[calls]\nmax_body = 10", "2: calls.max_body: must be a string with a unit, such as \"10MiB\", not a number"),
        // Values.
        ("listen = \"localhost:8545\"", "1: listen: must be an IP address and a port"),
        ("listen = [\"unix:\"]", "1: listen[0]: must name a file"),
        ("listen = \"unix:@steadfast\"", "1: listen: must name a file: sockets without one"),
        ("listen = [\"unix:a\", \"unix:a\"]", "1: listen[1]: is in the list already"),
        ("listen = []", "1: listen: must not be empty"),
        ("listen = 8545", "1: listen: must be a string or a list of strings, not a number"),
        ("listen = [\"0.0.0.0:1\", \"127.0.0.1:1\"]", "1: listen: has the same port twice"),
        ("listen = [\"127.0.0.1:1\", \"127.0.0.1:9545\"]", "admin.listen: must not be the address"),
        ("[admin]\nlisten = \"unix:a\"", "2: admin.listen: must be an IP address and a port"),
        ("socket_mode = \"0880\"", "1: socket_mode: must be permissions in octal"),
        ("socket_mode = \"0060\"", "1: socket_mode: must be permissions in octal"),
        ("socket_mode = 660", "1: socket_mode: must be a string, not a number"),
        ("shared_addresses = [\"unix\"]", "1: shared_addresses[0]: must be an IP address"),
        ("[admin]\nlisten = \":9545\"", "2: admin.listen: must be an IP address and a port"),
        ("workers = 0", "1: workers: must be from 1 to 1024"),
        ("workers = -1", "1: workers: must be from 1 to 1024"),
        ("chain_id = 0", "1: chain_id: must be from 1 to"),
        ("chain_id = 99999999999999999999", "1: chain_id: must be from 1 to"),
        ("shutdown_grace = \"1\"", "1: shutdown_grace: must be a whole number with a unit"),
        ("shutdown_grace = \"-1s\"", "1: shutdown_grace: must be a whole number with a unit"),
        ("shutdown_grace = \"9000h\"", "1: shutdown_grace: must not be longer than a year"),
        ("[health]\ninterval = \"0s\"", "2: health.interval: must not be zero"),
        ("[health]\ninterval = \"9ms\"", "2: health.interval: must not be shorter than 10ms"),
        ("[health]\ninterval = \"61m\"", "2: health.interval: must not be longer than 1h"),
        ("[health]\ntimeout = \"0ms\"", "2: health.timeout: must not be zero"),
        ("[health]\ntimeout = \"61s\"", "2: health.timeout: must not be longer than 1m"),
        ("[health]\nfall = 0", "2: health.fall: must be from 1 to"),
        ("[health]\nrise = 4294967296", "2: health.rise: must be from 1 to"),
        ("[health]\nmax_lag_blocks = -1", "2: health.max_lag_blocks: must be from 0 to"),
        ("[calls]\ntimeout = \"0s\"", "2: calls.timeout: must not be zero"),
        ("[calls]\nattempts = 0", "2: calls.attempts: must be from 1 to"),
        ("[calls]\nmax_held = 0", "2: calls.max_held: must be from 1 to"),
        ("[calls]\nmax_batch = 0", "2: calls.max_batch: must be from 1 to"),
        ("[calls]\nmax_body = \"0B\"", "2: calls.max_body: must not be zero"),
        ("[calls]\nmax_body = \"99999999999GiB\"", "2: calls.max_body: is more than this machine can address"),
        ("[calls]\npolicy = \"random\"", "2: calls.policy: must be \"first\" or \"spread\" or \"weighted\""),
        ("[[el.primary]]\nhttp = \"http://a\"\nweight = 0", "3: el.primary[0].weight: must be from 1 to"),
        ("[calls]\nallowed = [\"\"]", "2: calls.allowed[0]: must be a method name"),
        ("[calls]\nallowed = [\"a\", \"a\"]", "2: calls.allowed[1]: is in the list already"),
        ("[calls]\nforward_headers = [\"Host\"]", "2: calls.forward_headers[0]: is a header that belongs to"),
        ("[chain]\nwindow = 1", "2: chain.window: must be from 2 to 65536"),
        ("[chain]\nmax_backfill = 0", "2: chain.max_backfill: must be from 1 to 65536"),
        ("[chain]\nwindow = 256\nmax_backfill = 256", "3: chain.max_backfill: must be less than `window`"),
        ("[cors]\norigins = [\"app.example\"]", "2: cors.origins[0]: must be a scheme"),
        ("[cors]\norigins = [\"*\", \"http://a\"]", "2: cors.origins: must hold either \"*\" alone"),
        ("[ws]\nallow_origins = [\"null\"]", "2: ws.allow_origins[0]: must be a scheme"),
        ("[ws]\nping_interval = \"0s\"", "2: ws.ping_interval: must not be zero"),
        ("[log]\nfilter = \"loud\"", "2: log.filter: must be off"),
        ("[log]\nformat = \"xml\"", "2: log.format: must be \"text\" or \"json\""),
        // Rules between values.
        ("[calls]\nattempt_timeout = \"31s\"", "2: calls.attempt_timeout: must not be longer than `timeout`"),
        ("[calls]\ntimeout = \"1s\"\nhold = \"2s\"", "3: calls.hold: must not be longer than `timeout`"),
        ("[calls]\nmax_held_bytes = \"1MiB\"", "2: calls.max_held_bytes: must not be less than `max_body`"),
        ("listen = \"127.0.0.1:9545\"", "admin.listen: must not be the address"),
        ("[admin]\nlisten = \"0.0.0.0:8545\"", "2: admin.listen: must not be the address"),
        ("listen = \"[::]:9545\"", "admin.listen: must not be the address"),
        ("[health]\nready = \"some\"", "2: health.ready: must be \"any\" or \"all\""),
        // Nodes.
        (
            "[[el.backup]]\nhttp = \"http://a:1,ws://a:2\"",
            "2: el.backup[0].http: holds more than one URL: a WebSocket's is",
        ),
        ("[[cl.backup]]\nhttp = \"http://a:1,http://b:1\"", "2: cl.backup[0].http: holds more than one URL"),
        ("[[el.backup]]", "1: el.backup[0]: needs `http`, `ws` or both, or `ipc`"),
        ("[[el.backup]]\nipc = \"\"", "2: el.backup[0].ipc: must name a file"),
        ("[[el.backup]]\nipc = \"a\"\nws = \"ws://b:1\"", "2: el.backup[0].ipc: cannot stand beside `ws`"),
        ("[[el.backup]]\nipc = \"a\"\nheaders = { a = \"b\" }", "3: el.backup[0].headers: has no use: IPC carries no"),
        ("[[el.backup]]\nipc = \"a\"\nca_file = \"configuration/ca.pem\"", "3: el.backup[0].ca_file: "),
        ("[[el.backup]]\nipc = \"a\"\n[[el.backup]]\nipc = \"a\"", "4: el.backup[1].ipc: is the socket of"),
        ("[[cl.backup]]\nhttp = \"http://b:1\"\nipc = \"a\"", "3: cl.backup[0].ipc: is not a known key"),
        ("listen = \"unix:a\"\n[[el.backup]]\nipc = \"a\"", "1: listen: is the `ipc` of one of the nodes"),
        ("[[cl.primary]]", "1: cl.primary[0]: needs `http`"),
        ("[[cl.primary]]\nhttp = \"http://a\"\nws = \"ws://a\"", "3: cl.primary[0].ws: is not a known key"),
        ("[[el.backup]]\nhttp = \"ws://b\"", "2: el.backup[0].http: must begin with http:// or https://"),
        ("[[el.backup]]\nws = \"http://b\"", "2: el.backup[0].ws: must begin with ws:// or wss://"),
        ("[[el.backup]]\nhttp = \"http://b\"\nname = \"a b\"", "3: el.backup[0].name: must be 1 to 64"),
        (
            "[[el.backup]]\nhttp = \"http://b\"\nname = \"el-1\"",
            "3: el.backup[0].name: is the name of `el.primary[0]` already",
        ),
        ("[[el.backup]]\nhttp = \"http://b\"\npair = \"a b\"", "3: el.backup[0].pair: must be 1 to 64 letters"),
        (
            "[[el.backup]]\nhttp = \"http://b\"\npair = \"a\"",
            "3: el.backup[0].pair: no consensus node of this network has the same",
        ),
        (
            "[[cl.primary]]\nhttp = \"http://b\"\npair = \"a\"",
            "3: cl.primary[0].pair: no execution node of this network has the same",
        ),
        ("[[el.backup]]\nhttp = \"http://a:1/\"", "2: el.backup[0].http: is a URL of `el.primary[0]` already"),
        (
            "[[el.backup]]\nhttp = \"http://b\"\nca_file = \"Cargo.toml\"",
            "3: el.backup[0].ca_file: holds no certificate",
        ),
        ("[[el.backup]]\nhttp = \"https://b\"\nca_file = \"nowhere.pem\"", "3: el.backup[0].ca_file: cannot be read"),
        (
            "[[el.backup]]\nhttp = \"http://b\"\nca_file = \"tests/it/configuration/ca.pem\"",
            "3: el.backup[0].ca_file: has no use",
        ),
        (
            "[[el.backup]]\nhttp = \"http://b\"\nheaders.Host = \"c\"",
            "3: el.backup[0].headers.Host: is a header that belongs to",
        ),
        (
            "[[el.backup]]\nhttp = \"http://b\"\nheaders.\"a b\" = \"c\"",
            "3: el.backup[0].headers.***: is not a header name",
        ),
        (
            "[[el.backup]]\nhttp = \"http://b\"\nheaders.a = \"b\\n\"",
            "3: el.backup[0].headers.a: is not a header value",
        ),
        (
            "[[el.backup]]\nhttp = \"http://b\"\nheaders = { a = \"b\", A = \"c\" }",
            "3: el.backup[0].headers.a: is there already",
        ),
        (
            "[[el.backup]]\nhttp = \"http://u@b\"\nheaders = { AUTHORIZATION = \"c\" }",
            "3: el.backup[0].headers: sets Authorization, and so does",
        ),
        (
            "listen = \"127.0.0.1:1\"\n[[cl.backup]]\nhttp = \"http://127.0.0.1:1\"",
            "1: listen: is the address of one of the nodes",
        ),
        (
            "listen = \"0.0.0.0:1\"\n[[cl.backup]]\nhttp = \"http://localhost:1\"",
            "1: listen: is the address of one of the nodes",
        ),
        ("[[el.backup]]\nws = \"ws://127.0.0.1:9545\"", "admin.listen: is the address of one of the nodes"),
        // Networks.
        ("networks.base = {}", "1: networks.base: has no nodes"),
        ("[[networks.Base.el.primary]]\nhttp = \"http://a\"", "1: networks.Base: must have a name"),
        ("[[networks.el.el.primary]]\nhttp = \"http://a\"", "1: networks.el: must have another name"),
        (
            "[[networks.default.el.primary]]\nhttp = \"http://b\"",
            "1: networks.default: is the network at the top level",
        ),
        // Variables.
        ("listen = \"${NOPE}\"", "1: listen: environment variable NOPE is not set"),
        ("listen = \"${EMPTY}\"", "1: listen: environment variable EMPTY is set but empty"),
        ("listen = \"$${EMPTY}\"", "1: listen: must be an IP address"),
        ("listen = \"${a b}\"", "1: listen: has a `${…}` that does not hold a variable name"),
        // Unknown keys.
        ("[health]\nintervall = \"1s\"", "2: health.intervall: is not a known key; did you mean `interval`?"),
        ("[heatlh]\nfall = 1", "1: heatlh: is not a known key; did you mean `health`?"),
        ("attempts = 1", "1: attempts: is not a known key; did you mean `calls.attempts`?"),
        ("zzz = 1", "1: zzz: is not a known key"),
        ("[el]\nprimry = 1", "2: el.primry: is not a known key; did you mean `primary`?"),
        ("[el.backup2]\nx = 1", "1: el.backup2: is not a known key; did you mean `backup`?"),
        ("\"a s3cret key\" = 1", "1: ***: is not a known key"),
    ] {
        let problems = problems(&format!("{text}\n{node}"));
        assert!(problems.len() == 1 && problems[0].starts_with(expected), "{text}\n{problems:#?}");
    }
}

#[test]
fn odd_but_allowed_settings_are_read() {
    for text in [
        "listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"",
        "listen = \"127.0.0.1:9545\"\nadmin.listen = \"127.0.0.2:9545\"",
        "calls.hold = \"0s\"\nshutdown_grace = \"0s\"",
        "calls.blocked = []",
        "calls.blocked = [\"*\"]\ncalls.allowed = [\"eth_*\"]",
        "health.max_lag_blocks = 0",
        "listen = \"[::1]:1\"",
        "cors.origins = [\"*\"]",
        "[[cl.primary]]\nhttp = \"http://a:1\"",
        "[[networks.b.el.primary]]\nname = \"el-1\"\nhttp = \"http://a:1\"",
        "[[el.backup]]\nhttp = \"http://a:1/key\"",
    ] {
        parse(&format!("{text}\n[[el.primary]]\nhttp = \"http://a:1\""));
    }
}

#[test]
fn a_file_without_nodes_says_so_once() {
    for text in ["", "[el]", "[[networks]]", "el.primary = []"] {
        let problems = problems(text);
        assert_eq!(
            problems.iter().filter(|p| p.contains("names no node")).count(),
            usize::from(text != "[[networks]]"),
            "{text}: {problems:?}"
        );
    }
    assert!(problems("chain_id = 1")[0].contains("names no node"));
    assert!(
        problems("chain_id = 1\n[[networks.a.el.primary]]\nhttp = \"http://a\"")[0]
            .starts_with("1: chain_id: belongs to")
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let expected = [
        "1: listen: must be an IP address and a port",
        "2: wrokers: is not a known key; did you mean `workers`?",
        "5: health.interval: must be a whole number with a unit",
        "6: health.fall: must be from 1 to",
        "9: calls.timeout: must not be zero",
        "14: el.primary[0].http: must begin with",
        "15: el.primary[0].headers.X-A: environment variable A is not set",
        "15: el.primary[0].headers.X-A: environment variable B is not set",
        "17: el.primary[1]: needs `http`, `ws` or both",
        "20: networks.WRONG: must have a name",
        "21: networks.WRONG.el.primary[0].http: has no host",
    ];
    // The rule `hold <= timeout` is not reported on top: it cannot be judged while `timeout` is wrong.
    let text = "listen = \"x\"\nwrokers = 1\n\n[health]\ninterval = \"1\"\nfall = 0\n\n[calls]\ntimeout = \"0s\"\nhold = \"1h\"\n\n\
                [[el.primary]]\nname = \"a\"\nhttp = \"a\"\nheaders = { X-A = \"${A}${B}\" }\n\n[[el.primary]]\nname = \"b\"\n\n\
                [[networks.WRONG.el.primary]]\nhttp = \"http://\"\n";
    let problems = problems(text);
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\n{expected}");
    }
}

#[test]
fn text_that_is_no_toml_is_reported_with_line_and_column() {
    let problems = problems("listen = \"127.0.0.1:8545\"\nworkers = = 4\n[health\n");
    assert!(problems[0].starts_with("2: : is not TOML at column 11: "), "{problems:?}");
    assert!(problems.iter().any(|p| p.starts_with("3: : is not TOML")), "{problems:?}");
}

#[test]
fn flags_alone_make_a_configuration() {
    let config = Config::from_flags(&Flags {
        el: vec!["http://a:8545,ws://a:8546".into(), "wss://b".into()],
        el_backup: vec!["https://c/v2/key".into()],
        cl: vec!["http://d:5052".into()],
        cl_backup: vec!["http://e:5052".into()],
        listen: Some("0.0.0.0:80".into()),
        admin_listen: Some("127.0.0.1:81".into()),
    })
    .unwrap();
    assert_eq!(config.listen, [ip("0.0.0.0:80")]);
    assert_eq!(config.admin.listen, "127.0.0.1:81".parse().unwrap());
    let from_file = parse(
        "listen = \"0.0.0.0:80\"\nadmin.listen = \"127.0.0.1:81\"\n\
         [[el.primary]]\nhttp = \"http://a:8545\"\nws = \"ws://a:8546\"\n[[el.primary]]\nws = \"wss://b\"\n\
         [[el.backup]]\nhttp = \"https://c/v2/key\"\n\
         [[cl.primary]]\nhttp = \"http://d:5052\"\n[[cl.backup]]\nhttp = \"http://e:5052\"",
    );
    assert_eq!(config, from_file);
}

#[test]
fn wrong_flags_are_reported_together_by_name_and_position() {
    let errors = Config::from_flags(&Flags {
        el: vec!["http://a,http://b".into(), "k3y".into(), "http://c,".into(), "http://a:8545".into()],
        el_backup: vec!["http://a:8545".into(), "ws://a:1,ws://a:2".into()],
        cl: vec!["http://d,ws://d".into()],
        cl_backup: vec![],
        listen: Some("localhost:1".into()),
        admin_listen: Some("9545".into()),
    })
    .unwrap_err();
    let text = errors.to_string();
    let lines: Vec<&str> = text.lines().collect();
    for start in [
        "--el[0]: has two URLs of one kind: a value is one node, so repeat the flag",
        "--el[1]: must begin with",
        "--el[2]: must begin with",
        "--el-backup[0]: is a URL of `--el[3]` already",
        "--el-backup[1]: has two URLs of one kind",
        "--cl[0]: must begin with http:// or https://",
        "--listen: must be an IP address and a port",
        "--admin-listen: must be an IP address and a port",
    ] {
        assert_eq!(lines.iter().filter(|line| line.starts_with(start)).count(), 1, "{start}\n{text}");
    }
    assert_eq!(lines.len(), 8, "{text}");
    assert!(!text.contains("k3y"));
    let nothing = Config::from_flags(&Flags::default()).unwrap_err().to_string();
    assert!(nothing.starts_with("--el: needs the URL of at least one node"), "{nothing}");
    let same = Flags { el: vec!["http://a".into()], listen: Some("[::]:9545".into()), ..Flags::default() };
    let same = Config::from_flags(&same).unwrap_err().to_string();
    assert!(same.starts_with("--admin-listen: must not be the address"), "{same}");
}

#[test]
fn a_file_is_read_from_its_folder_and_flags_override_it() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load");
    fs::create_dir_all(&folder).unwrap();
    let (file, ca) = (folder.join("steadfast.toml"), folder.join("own-ca.pem"));
    let text = "listen = \"127.0.0.1:1\"\n[[el.primary]]\nhttp = \"https://a\"\nca_file = \"own-ca.pem\"\n";
    fs::write(&file, text).unwrap();
    fs::write(&ca, include_str!("configuration/ca.pem")).unwrap();

    let plain = Config::load(&file, &Flags::default(), &env).unwrap();
    assert_eq!(plain.listen, [ip("127.0.0.1:1")]);
    assert_eq!(plain.networks[0].el[0].ca_file.as_ref().unwrap().path, ca);

    let listen = |listen: &str| Flags { listen: Some(listen.into()), ..Flags::default() };
    let overridden = Config::load(&file, &listen("127.0.0.1:2"), &env).unwrap();
    assert_eq!(overridden.listen, [ip("127.0.0.1:2")]);
    assert_eq!(Config { listen: plain.listen.clone(), ..overridden }, plain);
    let clash = Config::load(&file, &listen("127.0.0.1:9545"), &env).unwrap_err();
    assert!(clash.problems[0].path == "admin.listen", "{clash}");

    // A certificate that changed under the same name is a change.
    fs::write(&ca, include_str!("configuration/ca.pem").repeat(2)).unwrap();
    assert_ne!(Config::load(&file, &Flags::default(), &env).unwrap(), plain);
    fs::write(&ca, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    let errors = Config::load(&file, &Flags::default(), &env).unwrap_err().to_string();
    assert_eq!(
        errors,
        format!("{}:4: el.primary[0].ca_file: is not a PEM file that can be read to its end", file.display())
    );

    fs::write(&file, "[[el.primary]]\nhttp = \"https://a\"\n").unwrap();
    let with_nodes = Flags { el: vec!["http://b".into()], cl_backup: vec!["http://c".into()], ..Flags::default() };
    let errors = Config::load(&file, &with_nodes, &env).unwrap_err().to_string();
    assert!(errors.starts_with("--el: cannot be given together with a file"), "{errors}");
    assert!(errors.contains("\n--cl-backup: cannot be given together with a file"), "{errors}");

    fs::write(&file, b"# one\n# tw\xff\n").unwrap();
    let errors = Config::load(&file, &Flags::default(), &env).unwrap_err().to_string();
    assert_eq!(errors, format!("{}:2: is not UTF-8", file.display()));
    fs::remove_file(&file).unwrap();
    let errors = Config::load(&file, &Flags::default(), &env).unwrap_err().to_string();
    assert!(errors.starts_with(&format!("{}: cannot be read: ", file.display())), "{errors}");
}

#[test]
fn only_what_a_reload_cannot_apply_needs_a_restart() {
    let nodes = "[[el.primary]]\nhttp = \"http://a\"";
    let old = parse(nodes);
    let changed = |text: &str| old.changes_needing_restart(&parse(&format!("{text}\n{nodes}")));
    assert_eq!(changed(""), [""; 0]);
    assert_eq!(changed("listen = \"127.0.0.1:1\""), ["listen"]);
    assert_eq!(changed("workers = 3\nadmin.listen = \"127.0.0.1:1\""), ["admin.listen", "workers"]);
    assert_eq!(changed("log.format = \"json\""), ["log.format"]);
    assert_eq!(changed("calls.attempts = 9\nhealth.fall = 9\nshutdown_grace = \"1s\"\nchain_id = 5"), [""; 0]);
}

#[test]
fn clients_connect_to_one_address_or_to_several() {
    let node = "[[el.primary]]\nhttp = \"http://a:1\"\n";
    let listen = |text: &str| parse(&format!("{text}\n{node}")).listen;
    let file = |path: &str, mode| Address::Unix { path: Path::new(path).into(), mode };
    assert_eq!(listen("listen = \"unix:/run/a.ipc\""), [file("/run/a.ipc", 0o660)]);
    assert_eq!(
        listen("listen = [\"[::]:1\", \"unix:a.ipc\"]\nsocket_mode = \"600\""),
        [ip("[::]:1"), file("a.ipc", 0o600)]
    );
    let long = format!("listen = \"unix:/{}\"\n{node}", "a".repeat(103));
    assert!(problems(&long)[0].starts_with("1: listen: is longer than the 103 bytes"), "{:?}", problems(&long));
    // A path in a file starts at the folder of that file.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join("listen.toml");
    fs::write(&path, format!("listen = \"unix:a.ipc\"\n{node}")).unwrap();
    let read = |flags: &Flags| Config::load(&path, flags, &env).unwrap().listen;
    assert_eq!(read(&Flags::default()), [file(folder.join("a.ipc").to_str().unwrap(), 0o660)]);
    let flags = Flags { listen: Some("unix:b.ipc".into()), ..Flags::default() };
    assert_eq!(read(&flags), [file("b.ipc", 0o660)]);
}
