//! The operator's switches: cordon, reload.

use std::time::Duration;

use cucumber::{gherkin::Step, then, when};
use serde_json::Value;
use tokio::time::sleep;

use crate::world::Proxy;

async fn post(proxy: &Proxy, path: &str) -> (u16, Value) {
    let response = proxy.client.post(format!("http://{}{path}", proxy.admin())).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[when(regex = r"^the operator (cordons|uncordons) (\S+)$")]
async fn cordon(proxy: &mut Proxy, what: String, name: String) {
    let (status, answer) = post(proxy, &format!("/nodes/{name}/{}", what.trim_end_matches('s'))).await;
    assert_eq!((status, &answer["cordoned"]), (200, &Value::Bool(what == "cordons")), "{answer}");
}

#[when("the operator changes the settings and reloads:")]
async fn change(proxy: &mut Proxy, step: &Step) {
    for row in &step.table.as_ref().expect("a table").rows {
        proxy.settings.insert(row[0].clone(), row[1].clone());
    }
    proxy.write_file().await;
    reload(proxy).await;
}

#[when(expr = "the operator replaces {word} by {word} in the file and reloads")]
async fn replace(proxy: &mut Proxy, old: String, new: String) {
    // The one pretend node to spare takes the place behind all others.
    let place = proxy.nodes.iter().position(|node| node.name == old).expect("it was given");
    let mut node = proxy.nodes[place].clone();
    let (layer, tier) = (node.layer, node.tier);
    let spare = proxy.spare(layer);
    node.name = new;
    for text in [&mut node.url, &mut node.more] {
        *text = proxy.placed(text, spare);
    }
    proxy.nodes.push(node);
    proxy.write_file().await;
    let layer = layer.as_str();
    let gone = format!("[[{layer}.{tier}]]\nname = \"{old}\"\n");
    {
        let mut file = proxy.file.lock().unwrap();
        let start = file.find(&gone).expect("it stands in the file");
        let end = file[start + 2..].find("[[").map_or(file.len(), |at| start + 2 + at);
        file.replace_range(start..end, "");
    }
    reload(proxy).await;
}

#[when(expr = "{int} seconds pass")]
async fn pass(_: &mut Proxy, seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[when("the operator reloads")]
async fn reload(proxy: &mut Proxy) {
    let (status, answer) = post(proxy, "/reload").await;
    proxy.reloaded = Some(match status {
        200 => Ok(answer["reloaded"].as_str().unwrap().to_owned()),
        422 => Err(answer["error"].as_str().unwrap().to_owned()),
        other => panic!("{other}: {answer}"),
    });
}

#[then("the reload is applied")]
async fn applied(proxy: &mut Proxy) {
    let outcome = proxy.reloaded.take().expect("a reload");
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[then("the reload is refused, and every mistake named:")]
async fn refused(proxy: &mut Proxy, step: &Step) {
    let why = proxy.reloaded.take().expect("a reload").expect_err("it was applied");
    for row in &step.table.as_ref().expect("a table").rows {
        assert!(why.contains(&row[0]), "nothing of {}: {why}", row[0]);
    }
}
