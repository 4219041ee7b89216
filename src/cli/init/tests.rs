//! Files of other proxies, and the files that come of them.

use std::fs;

use super::*;

const FOLDER: &str = "tests/it/migration";

/// Compares the file and the report that come of an example with those beside it. `UPDATE=1`
/// writes them anew.
fn golden(example: &str, format: Format) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let text = fs::read_to_string(folder.join(example)).unwrap();
    let path = Path::new(example);
    assert_eq!(Format::of(path, &text), Some(format));
    let (written, told) = taken_over(path, &text, None).unwrap();
    let name = example.split('.').next().unwrap();
    for (found, file) in [(written.clone(), format!("{name}.steadfast.toml")), (told, format!("{name}.report.txt"))] {
        let file = folder.join(file);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &found).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap();
        assert_eq!(found, expected, "{} differs; UPDATE=1 writes it anew", file.display());
    }
    let env = |name: &str| (name == "INFURA_KEY").then(|| "k3y".to_owned());
    Config::parse(&written, &env).unwrap_or_else(|errors| panic!("{errors}\n{written}"));
}

#[test]
fn a_file_of_vixy_is_taken_over() {
    golden("vixy.toml", Format::Vixy);
}

#[test]
fn a_file_of_erpc_is_taken_over() {
    golden("erpc.yaml", Format::Erpc);
}

#[test]
fn a_file_of_nginx_is_taken_over() {
    golden("nginx.conf", Format::Nginx);
}

#[test]
fn a_file_of_haproxy_is_taken_over() {
    golden("haproxy.cfg", Format::Haproxy);
}

#[test]
fn a_report_shows_no_value_of_the_other_file() {
    let files = [
        (
            "a.toml",
            "s3cret = \"v4lue\"\n[[cl]]\nname = \"a\"\n\
             url = \"http://a/v4lue\"\nkey = \"v4lue\"\n",
        ),
        (
            "a.yaml",
            "auth: v4lue\nprojects:\n- id: x\n  upstreams:\n\
             \x20 - endpoint: alchemy://v4lue\n\
             \x20 - endpoint: http://a/v4lue\n",
        ),
        (
            "a.conf",
            "upstream x { server a:1 v4lue_no=v4lue; }\n\
             server { location / { proxy_set_header X v4lue;\n\
             proxy_pass http://x/v4lue; } }\n",
        ),
        (
            "a.cfg",
            "backend x\n http-request set-header X v4lue\n\
             \x20server a a:1 weight v4lue\n stats auth v4lue\n",
        ),
    ];
    for (path, text) in files {
        let (_, told) = taken_over(Path::new(path), text, None).unwrap();
        let told = told.replace("v4lue_no", "");
        assert!(!told.contains("v4lue"), "{path}: {told}");
    }
}

#[test]
fn a_file_without_nodes_or_format_is_refused() {
    let refused = |path: &str, text: &str| taken_over(Path::new(path), text, None).unwrap_err();
    assert!(refused("x", "hello\n").ends_with("name it with --format"));
    let why = refused("x.yaml", "logLevel: info\nnonsense: 1\n");
    assert!(why.contains("x.yaml:2: nonsense: is not known") && why.contains("no node was found"), "{why}");
    assert!(refused("x.toml", "a = \n").starts_with("x.toml:1: is not TOML"));
}

/// The notes on a text of this format.
fn notes(format: Format, text: &str) -> Vec<String> {
    let mut import = Import::default();
    format.read(text, &mut import).unwrap();
    import.notes.iter().map(ToString::to_string).collect()
}

#[test]
fn values_that_cannot_be_taken_over_are_told() {
    let vixy = "[global]\nhealth_check_interval_ms = 1_000\nmax_retries = -1\nproxy_timeout_ms = \"30s\"\n\
        max_el_lag_blocks = 0x10\nhealth_check_max_failures = 0\n[[el.primary]]\nname = \"a\"\n\
        http_url = \"http://a:1\"\nws_url = [\"x\"]\n[el.backup]\nhttp_url = \"http://b:1\"\n";
    let erpc = "server:\n  httpPort: [4000]\n  httpHostV4: {a: b}\n  waitBeforeShutdown: 1s\nmetrics: on\n\
        healthCheck: {mode: x}\nprojects:\n- id: m\n  networks:\n  - evm: {chainId: \"0x1\"}\n\
        \x20   architecture: solana\n\
        \x20   failsafe: {timeout: {duration: [30s]}, retry: {maxAttempts: three}}\n\
        \x20 upstreams:\n  - endpoint: http://a/KEY\n    type: evm+alchemy\n    evm: {chainId: abc, nodeType: full}\n\
        \x20   jsonRpc: {headers: [{name: Authorization, value: s}]}\n\
        \x20 - endpoint: http://b/KEY\n    jsonRpc: {headers: {a: [s], b: t}}\n\
        \x20 - endpoint: alchemy://KEY\n    jsonRpc: {headers: {a: b}}\n";
    for (format, text, expected) in [
        (
            Format::Vixy,
            vixy,
            &[
                "2: global.health_check_interval_ms → health.interval",
                "3: global.max_retries: is not a number",
                "4: global.proxy_timeout_ms: is not a number",
                "6: global.health_check_max_failures: is not a number of failures",
                "10: el.primary.ws_url: is not a text",
                "11: el.backup: is not a list",
            ][..],
        ),
        (
            Format::Erpc,
            erpc,
            &[
                "2: server.httpPort: is not a number",
                "3: server.httpHostV4: is not a text",
                "4: server.waitBeforeShutdown: `steadfast drain`",
                "5: metrics: is not a map",
                "6: healthCheck: /health",
                "10: projects.m.networks.evm.chainId: is not a number",
                "11: projects.m.networks.architecture: is not that of Ethereum",
                "timeout.duration: is not a text",
                "retry.maxAttempts: is not a number",
                "15: projects.m.upstreams.a.type: is not a plain node",
                "16: projects.m.upstreams.a.evm.chainId: is not a number",
                "16: projects.m.upstreams.a.evm.nodeType: is not known",
                "17: projects.m.upstreams.a.jsonRpc.headers: is not a map",
                "19: projects.m.upstreams.b.jsonRpc.headers.a: is not a text",
                "21: projects.m.upstreams.node.jsonRpc: its upstream is left out",
            ],
        ),
    ] {
        let notes = notes(format, text);
        for note in expected {
            assert!(notes.iter().any(|other| other.contains(note)), "{note}: {notes:#?}");
        }
    }
    let (file, _) = taken_over(Path::new("a.toml"), vixy, None).unwrap();
    assert!(file.contains("max_lag_blocks = 16\n"), "{file}");
    let (file, _) = taken_over(Path::new("a.yaml"), erpc, None).unwrap();
    assert!(file.contains("headers = { \"b\" = \"t\" }"), "{file}");
}

#[test]
fn files_without_an_end_and_deep_ones_are_refused() {
    let why = read(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(why.contains("longer than 4 MiB"), "{why}");
    for (format, text) in [
        (Format::Nginx, "http {".repeat(300_000)),
        (Format::Nginx, format!("{}{}", "http {".repeat(300_000), "}".repeat(300_000))),
        (Format::Erpc, format!("projects: {}", "[".repeat(300_000))),
        (Format::Vixy, format!("el = {}", "[".repeat(300_000))),
    ] {
        assert!(format.read(&text, &mut Import::default()).is_err(), "{format:?}");
    }
}

#[test]
fn a_file_with_keys_is_for_its_owner_alone() {
    let folder = std::env::temp_dir().join(format!("steadfast-init-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let other = folder.join("vixy.toml");
    fs::write(&other, "[[cl]]\nname = \"a\"\nurl = \"http://a/k3y\"\n").unwrap();
    let init = |path: &str, from: Option<&Path>, el: &[&str], force| Init {
        path: folder.join(path),
        force,
        from: from.map(Path::to_owned),
        format: None,
        ask: false,
        nodes: Nodes { el: el.iter().map(|url| (*url).to_owned()).collect(), ..Nodes::default() },
    };
    let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o777;
    run(&init("from.toml", Some(&other), &[], false));
    run(&init("flags.toml", None, &["http://u:k3y@a"], true));
    run(&init("example.toml", None, &[], false));
    // Its owner has given others the right to read.
    fs::write(folder.join("there.toml"), "").unwrap();
    fs::set_permissions(folder.join("there.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    run(&init("there.toml", Some(&other), &[], true));
    let modes = ["from.toml", "flags.toml", "there.toml"].map(mode);
    assert!(mode("example.toml") & 0o400 != 0);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(modes, [0o600, 0o600, 0o640]);
}

#[test]
fn flags_make_a_file_that_is_right() {
    let nodes = Nodes {
        el: ["http://10.0.0.1:8545,ws://10.0.0.1:8546", "http://10.0.0.2:8545"].map(str::to_owned).to_vec(),
        cl_backup: vec!["http://10.0.0.3:5052".into()],
        listen: Some("0.0.0.0:8545".into()),
        ..Nodes::default()
    };
    let text = named(&nodes).unwrap().unwrap();
    let config = Config::parse(&text, &|_| None).unwrap();
    assert_eq!(config.listen, [([0, 0, 0, 0], 8545).into()]);
    let [one, two] = &*config.networks[0].el else { panic!("{text}") };
    assert!(one.ws.is_some() && two.ws.is_none() && config.networks[0].cl.len() == 1);
    let wrong = Nodes { el: vec!["ftp://a".into()], ..Nodes::default() };
    let why = named(&wrong).unwrap_err();
    assert!(why.starts_with("el.primary[0].http: "), "{why}");
    assert_eq!(named(&Nodes::default()), Ok(None));
}
