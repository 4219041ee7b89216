//! Credentials that gateways repeat reach no client, and text that only looks like one stays as it
//! is.

use crate::common::{
    client::call,
    origin::{Origin, Reply, response},
    sim::{Net, Proxy},
    until,
};
use serde_json::{Value, json};

/// A key as providers give them, and the coats in which it comes back.
const KEY: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &str = "s3cret/token+1";
const COATS: [&str; 9] = [
    KEY,
    "0123456789ABCDEF0123456789ABCDEF",
    "https://node.example/v2/0123456789abcdef0123456789abcdef",
    "s3cret/token+1",
    "S3CRET/Token+1",
    "s3cret%2Ftoken%2B1",
    "s3cret%252ftoken%252b1",
    "s3cret&#x2F;token&#43;1",
    "dXNlcjpodW50ZXIyMg==",
];

/// Data that holds the hexadecimal key and the plain header's word, as it may be.
fn data() -> String {
    format!("0x08c379a0{}0020{KEY}{}", "0".repeat(60), "6e6f7065".repeat(8))
}

fn error(coat: &str) -> Value {
    json!({ "code": 3, "message": format!("execution reverted in 0020: <{coat}>"), "data": data() })
}

async fn proxy(net: &Net, node: &Origin) -> Proxy {
    let url = node.url().replace("http://", "http://user:hunter22@");
    let settings = format!(
        "[[el.primary]]\nname = \"el-1\"\nhttp = \"{url}/execution/{KEY}\"\n\
         headers = {{ X-Shard = \"0020\", X-Client = \"execution layer\", X-Api-Key = \"{TOKEN}\" }}\n"
    );
    let proxy = Proxy::launch(net, &settings).await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    proxy
}

#[tokio::test(start_paused = true)]
async fn errors_pass_without_credentials_and_with_whole_data() {
    for coat in COATS {
        let net = Net::default();
        let node = Origin::within(&net, move |seen| {
            Reply::body(
                json!({ "jsonrpc": "2.0", "id": 1, "error": error(coat) })
                    .to_string()
                    .replace("\"id\":1", &format!("\"id\":{}", seen.id())),
            )
        })
        .await;
        let proxy = proxy(&net, &node).await;
        let request = call(1, "eth_call", "[{},\"latest\"]");
        let single = proxy.post(&request).await.json()["error"].take();
        let batch = proxy.post(format!("[{request}]")).await.json()[0]["error"].take();
        let socket: Value = serde_json::from_str(&proxy.ws().await.ask(request).await).unwrap();
        let expected = match coat.strip_suffix(KEY) {
            Some(before) => format!("{before}***"),
            None => "***".to_owned(),
        };
        for answer in [&single, &batch, &socket["error"]] {
            assert_eq!(*answer, error(&expected), "{coat}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_that_json_escapes_are_masked_and_stay_json() {
    let net = Net::default();
    let node = Origin::within(&net, |seen| {
        let message = r#"a s3cret\/token+1 b \u0073\u0033cret\u002ftoken+1 c"#;
        let text = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-1,"message":"{message}"}}}}"#, seen.id());
        Reply::body(text)
    })
    .await;
    let proxy = proxy(&net, &node).await;
    let answer = proxy.post(call(1, "eth_call", "[]")).await.json();
    assert_eq!(answer["error"]["message"], "a *** b *** c");
}

#[tokio::test(start_paused = true)]
async fn the_status_shows_no_credential_that_an_error_repeats() {
    for coat in COATS {
        let net = Net::default();
        let node = Origin::within(&net, |seen| Reply::result(seen, "1")).await;
        let proxy = proxy(&net, &node).await;
        let text = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": 1, "message": coat } }).to_string();
        node.ail(Some(response("200 OK", "", text)));
        until("it is down", async || proxy.verdicts().await == ["down"]).await;
        let status = proxy.side().await.to_string();
        assert!(status.contains("***"), "{status}");
        for part in [&coat[coat.len() - 8..], "hunter22", TOKEN] {
            assert!(!status.to_lowercase().contains(&part.to_lowercase()), "{coat}: {status}");
        }
    }
}
