//! No secret is in an error, and nothing that is written makes the loader panic.

use proptest::prelude::*;
use steadfast::config::Config;

/// Stands in every place where a secret could be.
const SECRET: &str = "hunter2";

fn env(name: &str) -> Option<String> {
    (name == "KEY").then(|| SECRET.to_owned())
}

/// What is said about `text`, in every way in which it can be printed.
fn said(text: &str) -> Option<String> {
    Config::parse(text, &env).err().map(|errors| format!("{errors} {errors:?} {errors:#?}"))
}

const FULL: &str = r#"
listen = "127.0.0.1:8545"
workers = 2
[calls]
timeout = "30s"
blocked = ["admin_*"]
[[el.primary]]
name = "one"
http = "https://user:hunter2@a.example:1/v2/hunter2?key=hunter2"
ws = "wss://hunter2@a.example/hunter2"
headers = { Authorization2 = "Bearer hunter2", X-Key = "${KEY}" }
[[el.backup]]
http = "http://b.example/hunter2/${KEY}"
[[networks.base.cl.primary]]
http = "http://c.example/?${KEY}"
"#;

#[test]
fn no_secret_is_said_however_its_value_is_broken() {
    for value in [
        "hunter2",
        "https//hunter2",
        "ftp://hunter2",
        "http://hunter2:hunter2",
        "http://hunter2@",
        "http://a b/hunter2",
        "http://a/hunter2#",
        "http://u:hunter2@a:b",
        "http://[hunter2]",
        "http://a/%hunter2",
        "http://a/hunter2\\n",
        "http://hunter2/hunter2@a",
        "${hunter2",
        "${hunter2 }",
        "${KEY}",
        "${KEY}${NOPE}",
        "http://a:1/hunter2,http://a:2/hunter2",
        "hunter2ms",
        "9999999999999999hunter2",
        "hunter2://hunter2",
        "http://1.2.3.4.5/hunter2",
    ] {
        // Each key in turn, and everything at once.
        let keys = [
            "listen = \"@\"",
            "workers = \"@\"",
            "shutdown_grace = \"@\"",
            "chain_id = \"@\"",
            "networks = \"@\"",
            "admin.listen = \"@\"",
            "health.interval = \"@\"",
            "health.fall = \"@\"",
            "calls.timeout = \"@\"",
            "calls.max_body = \"@\"",
            "calls.policy = \"@\"",
            "calls.blocked = [\"@ *\"]",
            "calls.blocked = \"@\"",
            "calls.forward_headers = [\"@ \"]",
            "cors.origins = [\"@\"]",
            "ws.max_message = \"@\"",
            "log.filter = \"@\"",
            "log.format = \"@\"",
            "\"@ \" = 1",
            "el.primary = [{ http = \"@ \" }]",
            "el.primary = [{ ws = \"@ \" }]",
            "el.primary = [{ name = \"@ \", http = \"http://a\" }]",
            "el.primary = [{ ca_file = \"@\", http = \"https://a/hunter2\" }]",
            "el.primary = [{ http = \"http://a\", headers = { \"@ \" = \"@\" } }]",
            "el.primary = [{ http = \"http://a\", headers = { A = \" @\" } }]",
            "el.primary = [{ http = \"http://u:hunter2@a\", headers = { Authorization = \"hunter2\" } }]",
            "el.primary = [{ http = \"http://a/hunter2\" }, { http = \"http://a/hunter2\" }]",
            "el.primary = [\"@\"]",
            "cl.primary = [{ http = \"ws://@\" }]",
            "networks.\"@ \".el.primary = []",
        ];
        for key in keys {
            let text = key.replace('@', value);
            let said = said(&text).unwrap_or_else(|| panic!("accepted: {text}"));
            assert!(!said.contains(SECRET), "{text}\n{said}");
        }
    }
}

#[test]
fn no_secret_is_said_wherever_the_file_breaks_off_or_is_hit() {
    assert_eq!(said(FULL), None);
    let mut wrong = 0;
    for at in (0..FULL.len()).filter(|at| FULL.is_char_boundary(*at)) {
        let broken_off = FULL[..at].to_owned();
        let hits = ["\"", "'", "=", "\n", "[", "]", "{", "#", "\0", "\\", "é", "1", "@", " ", ".", "$", ",", "\"\"\""];
        let hit = hits.iter().map(|hit| format!("{}{hit}{}", &FULL[..at], &FULL[at..]));
        for text in hit.chain([broken_off]) {
            if let Some(said) = said(&text) {
                assert!(!said.contains(SECRET), "{text}\n{said}");
                wrong += 1;
            }
        }
    }
    assert!(wrong > 1_000, "only {wrong} texts were wrong");
}

/// A text that is nearly a configuration.
fn nearly_a_config() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "listen",
        "workers",
        "[health]",
        "[calls]",
        "[[el.primary]]",
        "[[cl.backup]]",
        "[networks.a]",
        "[[networks.a.el.primary]]",
        "http",
        "ws",
        "headers",
        "name",
        "ca_file",
        "interval",
        "timeout",
        "blocked",
        "origins",
        "[cors]",
        "=",
        " = ",
        "\n",
        "\"",
        "\"1s\"",
        "\"0s\"",
        "\"99999999999999999999h\"",
        "\"10MiB\"",
        "\"http://a:1/x\"",
        "\"ws://[::1]\"",
        "\"${KEY}\"",
        "\"${\"",
        "1",
        "-1",
        "0x7fffffffffffffff",
        "1e999",
        "nan",
        "true",
        "1979-05-27",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        "#",
        "é",
        "\u{0}",
        "\"\"\"",
        "'",
        "\\",
        "\\u0000",
        "[[",
        "]]",
        "\r\n",
        "\u{feff}",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in any::<String>()) {
        let _ = said(&text);
    }

    #[test]
    fn no_text_like_a_configuration_makes_the_loader_panic(text in nearly_a_config()) {
        let _ = said(&text);
    }

    #[test]
    fn no_value_of_a_key_makes_the_loader_panic(key in "[a-z_.]{1,20}|calls.hold|el.primary|listen|networks.a", value in any::<String>()) {
        let quoted = toml::Value::String(value).to_string();
        let _ = said(&format!("{key} = {quoted}"));
        let _ = said(&format!("[[el.primary]]\nhttp = {quoted}\nws = {quoted}\nname = {quoted}\nheaders.a = {quoted}"));
    }
}
