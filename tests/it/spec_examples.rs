//! The execution API's own examples, as its specification records them, through the proxy byte for byte.
//!
//! They are not part of the project: where the folder beside it is missing, these tests say so and pass, unless
//! `STEADFAST_REQUIRE_SHARED=1` demands it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{
    origin::{Origin, Reply, with_id},
    proxy::Proxy,
};
use tokio::task::JoinSet;

/// A recorded request and its recorded response.
pub type Example = (String, String);

/// All examples, if they are there.
pub fn examples() -> Option<Vec<Example>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/execution-apis");
    if !folder.is_dir() {
        let required = std::env::var("STEADFAST_REQUIRE_SHARED").is_ok_and(|value| value == "1");
        assert!(!required, "{} is missing", folder.display());
        println!("left out: {} is missing", folder.display());
        return None;
    }
    let mut examples = BTreeMap::new();
    for file in files(&folder) {
        let text = fs::read_to_string(&file).unwrap();
        let mut request = None;
        for line in text.lines().filter(|line| !line.starts_with("//") && !line.is_empty()) {
            if let Some(text) = line.strip_prefix(">> ") {
                request = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("<< ") {
                let request = request.take().unwrap_or_else(|| panic!("{}: nothing was asked", file.display()));
                // Some requests are recorded twice; the answers must agree, or the origin could not tell them apart.
                let before = examples.insert(request.clone(), text.to_owned());
                assert!(before.is_none_or(|before| before == text), "{}: {request}", file.display());
            } else {
                panic!("{}: {line}", file.display());
            }
        }
    }
    // What the network is called the proxy knows itself.
    examples.retain(|request, _| !request.contains("eth_chainId") && !request.contains("net_version"));
    assert!(examples.len() > 100, "only {} examples", examples.len());
    Some(examples.into_iter().collect())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "io") {
            files.push(path);
        }
    }
    files
}

/// A node that knows exactly these requests.
async fn origin(examples: &[Example]) -> Origin {
    let known: BTreeMap<String, String> =
        examples.iter().map(|(request, response)| (with_id(request, "0"), response.clone())).collect();
    Origin::start(move |seen| {
        let request = seen.sent_as("0");
        Reply::answer(seen, known.get(&request).unwrap_or_else(|| panic!("changed on its way: {request}")))
    })
    .await
}

/// Each example was asked so many times, and oftener only if the answer is a `null`, which is not believed at once.
fn assert_asked(origin: &Origin, examples: &[Example], times: usize) {
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    origin.seen().iter().for_each(|seen| *asked.entry(seen.sent_as("0")).or_default() += 1);
    for (request, response) in examples {
        let wanted = examples.iter().filter(|(other, _)| with_id(other, "0") == with_id(request, "0")).count() * times;
        let count = asked.get(&with_id(request, "0")).copied().unwrap_or(0);
        let is_null = response.contains("\"result\":null");
        assert!(count == wanted || (is_null && count > wanted), "{request} was asked {count} times");
    }
}

fn assert_same(got: &[u8], expected: &str, request: &str) {
    let request: String = request.chars().take(300).collect();
    assert!(got == expected.as_bytes(), "{request}\n{}", String::from_utf8_lossy(&got[..got.len().min(300)]));
}

#[tokio::test]
async fn recorded_examples_come_through_one_by_one() {
    let Some(examples) = examples() else { return };
    let origin = origin(&examples).await;
    let proxy = Proxy::over([origin.url()], "").await;
    let mut client = proxy.client().await;
    for (request, response) in &examples {
        assert_same(&client.post(request).await.body, response, request);
    }
    assert_asked(&origin, &examples, 1);
}

#[tokio::test]
async fn recorded_examples_come_through_in_batches_of_twenty() {
    let Some(examples) = examples() else { return };
    let origin = origin(&examples).await;
    let proxy = Proxy::over([origin.url()], "").await;
    let mut client = proxy.client().await;
    for batch in examples.chunks(20) {
        let join = |pick: fn(&Example) -> &String, comma: &str| {
            batch.iter().map(|example| pick(example).as_str()).collect::<Vec<_>>().join(comma)
        };
        // White space between requests is nobody's business.
        let request = format!("[ {} ]", join(|example| &example.0, " ,\n"));
        let response = format!("[{}]", join(|example| &example.1, ","));
        assert_same(&client.post(&request).await.body, &response, &request);
    }
    assert_asked(&origin, &examples, 1);
}

#[tokio::test]
async fn recorded_examples_come_through_sixteen_at_a_time() {
    const AT_A_TIME: usize = 16;
    let Some(examples) = examples() else { return };
    let origin = origin(&examples).await;
    let proxy = Proxy::over([origin.url()], "").await;
    let mut clients = JoinSet::new();
    for number in 0..AT_A_TIME {
        let mut client = proxy.client().await;
        // Each begins elsewhere, so that different answers travel side by side.
        let mut own = examples.clone();
        own.rotate_left(number * examples.len() / AT_A_TIME);
        clients.spawn(async move {
            for (request, response) in &own {
                assert_same(&client.post(request).await.body, response, request);
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert_asked(&origin, &examples, AT_A_TIME);
}

#[tokio::test]
async fn recorded_examples_pass_a_websocket_alone_and_in_batches() {
    let Some(examples) = examples() else { return };
    let origin = origin(&examples).await;
    let proxy = Proxy::over([origin.url()], "").await;
    let mut ws = proxy.ws().await;
    for (request, response) in &examples {
        assert_same(ws.ask(request).await.as_bytes(), response, request);
    }
    for batch in examples.chunks(20) {
        let (requests, responses): (Vec<_>, Vec<_>) = batch.iter().cloned().unzip();
        let request = format!("[ {} ]", requests.join(" ,\n"));
        let response = format!("[{}]", responses.join(","));
        assert_same(ws.ask(&request).await.as_bytes(), &response, &request);
    }
    assert_asked(&origin, &examples, 2);
}

#[tokio::test]
async fn recorded_examples_come_through_a_websocket_sixteen_at_a_time() {
    const AT_A_TIME: usize = 16;
    let Some(examples) = examples() else { return };
    let origin = origin(&examples).await;
    let proxy = Proxy::over([origin.url()], "").await;
    let mut ws = proxy.ws().await;
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    let take = |expected: &mut BTreeMap<&str, usize>, answer: &str| {
        let count = expected.get_mut(answer).unwrap_or_else(|| panic!("nobody awaits {answer}"));
        assert!(*count > 0, "twice: {answer}");
        *count -= 1;
    };
    for (sent, (request, response)) in examples.iter().enumerate() {
        if sent >= AT_A_TIME {
            take(&mut expected, &ws.text().await);
        }
        ws.send(request).await;
        *expected.entry(response).or_default() += 1;
    }
    for _ in 0..AT_A_TIME {
        take(&mut expected, &ws.text().await);
    }
    assert!(expected.values().all(|count| *count == 0));
}
