//! The pretend network as a newcomer runs it: what it prints is what there is, its validators outlive a node, a
//! transaction outlives refusals, losses and a reorganisation, and calls outlive a replica.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::common::{binary::Binary, client::Client, ports::free_addr};

/// Longer than anything takes here, on a machine that does much else.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Does what stands behind `curl` in a line of what was printed.
async fn curl(line: &str) -> Value {
    let body = line.split_once("-d '").map_or("", |(_, rest)| rest.split('\'').next().unwrap());
    let method = if line.contains("-X POST") || !body.is_empty() { "POST" } else { "GET" };
    let (_, rest) = line.split_once("http://").expect("a URL");
    let url = rest.split_whitespace().next().unwrap();
    let (host, path) = url.split_once('/').unwrap_or((url, ""));
    let mut client = Client::connect(host.parse().unwrap()).await;
    let fields = format!("Host: localhost\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    client.send(format!("{method} /{path} HTTP/1.1\r\n{fields}\r\n{body}")).await;
    let answer = client.response().await;
    assert_eq!(answer.status, 200, "{line}: {}", answer.text());
    answer.json()
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < TIMEOUT, "still not so after {TIMEOUT:?}: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_may_be_shorter_than_a_second() {
    let mut dev = Binary::dev(&["--block-time", "0.5", "--validators", "64"]);
    dev.until_it_says("Ctrl-C ends it.", TIMEOUT);
    let printed = dev.log();
    let line = |words: &str| printed.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{printed}"));
    let node = line("  cl-1 ").split_whitespace().last().unwrap();
    let spec = curl(&format!("curl {node}/eth/v1/config/spec")).await;
    assert_eq!(spec["data"]["SLOT_DURATION_MS"], "500", "{spec}");
    // Validators reckon by the clock, so these votes tell that blocks come by the clock too.
    until("votes are right", async || {
        let earned = curl(line("what they earn")).await;
        earned["pretend-validator"]["votes"]["right"].as_u64().unwrap() >= 16
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pretend_networks_validators_outlive_a_node() {
    let mut dev = Binary::dev(&["--block-time", "1", "--validators", "64"]);
    dev.until_it_says("Ctrl-C ends it.", TIMEOUT);
    let printed = dev.log();
    let line = |words: &str| printed.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{printed}"));
    let votes = async || curl(line("what they earn")).await["pretend-validator"]["votes"]["right"].as_u64().unwrap();
    let serves = async || {
        let status = curl(line("/status ")).await;
        status["networks"][0]["cl"]["active"].as_str().unwrap_or_default().to_owned()
    };
    until("votes are right", async || votes().await >= 16).await;
    assert_eq!(serves().await, "cl-1");
    for (fault, takes_over) in [("kill their node", "cl-2"), ("bring it back", ""), ("nodes/cl-2/hang", "cl-1")] {
        match fault.strip_prefix("nodes/") {
            Some(_) => _ = curl(&line("kill their node").replace("nodes/cl-1/down", fault)).await,
            None => _ = curl(line(fault)).await,
        }
        if !takes_over.is_empty() {
            until(takes_over, async || serves().await == takes_over).await;
        }
        let before = votes().await;
        until("votes are right again", async || votes().await >= before + 16).await;
    }
    let earned = curl(line("what they earn")).await;
    assert_eq!(earned["pretend-validator"]["proposals"]["unpaid"], 0, "{earned}");
    dev.signal("INT");
    let ended = spawn_blocking(move || dev.wait()).await.unwrap();
    assert!(ended.success(), "{ended}");
}

/// Does all that stands behind a `curl` in a loop of a shell over the nodes.
async fn for_each_node(line: &str) {
    let (_, rest) = line.split_once("for n in ").expect("a loop");
    let (nodes, commands) = rest.split_once("; do ").unwrap();
    for node in nodes.split(' ') {
        for command in commands.split(';').filter(|command| command.contains("curl")) {
            curl(&command.replace("$n", node)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_outlives_all_that_dev_prints() {
    let mut dev = Binary::dev(&["--block-time", "1", "--validators", "0"]);
    dev.until_it_says("Ctrl-C ends it.", TIMEOUT);
    let printed = dev.log();
    let line = |words: &str| printed.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{printed}"));
    let (_, show) = line("its life so far").split_once(" outbox ").unwrap();
    let (hash, admin) = (show.split(' ').nth(1).unwrap(), show.split(' ').next_back().unwrap());
    let history = async || {
        let found = curl(&format!("curl {admin}/outbox/{hash}")).await;
        let states = found["transactions"][0]["history"].as_array().unwrap().clone();
        states.iter().map(|step| step["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let until_state = async |state: &str, times: usize| {
        until(&format!("{state} {times} times"), async || {
            history().await.iter().filter(|other| *other == state).count() >= times
        })
        .await;
    };
    for_each_node(line("let every node refuse")).await;
    assert_eq!(curl(line("send   ")).await["result"], hash);
    assert_eq!(history().await, ["accepted"]);
    for_each_node(line("let every node forget")).await;
    until_state("sent", 1).await;
    sleep(Duration::from_secs(3)).await;
    assert!(!history().await.contains(&"mined".to_owned()), "no node keeps it");
    for_each_node(line("let every node be well")).await;
    until_state("confirmed", 1).await;
    curl(line("reorganise out")).await;
    until_state("reorged", 1).await;
    until_state("mined", 2).await;
    let words: Vec<_> = show.split(' ').map(str::to_owned).collect();
    let shown = spawn_blocking(move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_steadfast")).arg("outbox").args(words).output().unwrap()
    });
    let shown = String::from_utf8(shown.await.unwrap().stdout).unwrap();
    assert!(shown.starts_with(hash) && shown.contains("reorged"), "{shown}");
    let begin = format!("steadfast-dev-{}-", dev.id());
    let folders = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().path());
    let own = |folder: &PathBuf| folder.file_name().unwrap().to_string_lossy().starts_with(&begin);
    // Folders of a killed process of this number would come before.
    let folder = folders.filter(own).max().expect("a folder for the outbox");
    assert!(folder.join("outbox.redb").exists());
    dev.signal("INT");
    let ended = spawn_blocking(move || dev.wait()).await.unwrap();
    assert!(ended.success() && !folder.exists(), "{ended}");
}

#[test]
fn dev_says_that_the_outboxs_folder_goes() {
    let mut dev = Binary::dev(&["--validators", "0"]);
    dev.until_it_says("Ctrl-C ends it.", TIMEOUT);
    dev.signal("INT");
    dev.until_it_says("the outbox is closed, and the rest is on the disk", TIMEOUT);
    let line = dev.until_it_says("the outbox's folder is removed: its transactions go with the pretend chain", TIMEOUT);
    assert!(line.contains(&format!("steadfast-dev-{}-", dev.id())), "{line}");
    assert!(dev.wait().success());
}

/// The replicas as the control server knows them: those that run, and those that lead.
async fn replicas(line: &str) -> (Vec<String>, Vec<String>) {
    let all = curl(line).await;
    let names = |key: &str| {
        let of = all.as_array().unwrap().iter().filter(|replica| replica[key] == true);
        of.map(|replica| replica["name"].as_str().unwrap().to_owned()).collect()
    };
    (names("runs"), names("leads"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_while_a_leading_replica_is_killed() {
    let mut dev = Binary::dev(&["--replicas", "3", "--block-time", "1", "--validators", "64"]);
    dev.until_it_says("Ctrl-C ends it.", TIMEOUT);
    let printed = dev.log();
    let line = |words: &str| printed.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{printed}"));
    let leader = async || replicas(line("who leads")).await.1.first().cloned();
    until("one leads", async || leader().await.is_some()).await;
    let dead = leader().await.unwrap();
    let addresses = |name: &str| {
        let words: Vec<_> = line(&format!("  {name}  ")).split_whitespace().collect();
        (words[1].to_owned(), words[3].to_owned())
    };
    let call = line("  call ");
    let first = call.split("http://").nth(1).unwrap().split(' ').next().unwrap();
    let call_at = async |name: &str| {
        let (url, _) = addresses(name);
        let height = curl(&call.replace(&format!("http://{first}"), &url)).await["result"].take();
        assert!(height.is_string(), "{height}");
    };
    let all = ["r1", "r2", "r3"];
    for name in all {
        call_at(name).await;
    }
    curl(&line("kill a replica").replace("/r1/", &format!("/{dead}/"))).await;
    let others = all.iter().filter(|name| **name != dead).collect::<Vec<_>>();
    let killed = Instant::now();
    while leader().await.is_none() {
        for name in &others {
            call_at(name).await;
        }
        assert!(killed.elapsed() < TIMEOUT, "no other leads");
    }
    let next = leader().await.unwrap();
    assert!(next != dead && replicas(line("who leads")).await.0.len() == 2);
    curl(&line("bring it back").replace("/r1/", &format!("/{dead}/"))).await;
    call_at(&dead).await;
    let (_, admin) = addresses(&dead);
    let program = env!("CARGO_BIN_EXE_steadfast");
    let status = async || {
        let admin = admin.clone();
        let shown = spawn_blocking(move || {
            std::process::Command::new(program).args(["status", "--fleet", "--admin", &admin]).output().unwrap()
        });
        String::from_utf8(shown.await.unwrap().stdout).unwrap()
    };
    until("the replica is a member again", async || status().await.matches("active").count() >= 3).await;
    assert_eq!(replicas(line("who leads")).await, (all.map(str::to_owned).to_vec(), vec![next]));
    // The validator client goes to another replica.
    let votes = async || curl(line("what they earn")).await["pretend-validator"]["votes"]["right"].as_u64().unwrap();
    curl(line("kill a replica")).await;
    let before = votes().await;
    until("votes are right without the first replica", async || votes().await >= before + 16).await;
    dev.signal("INT");
    let ended = spawn_blocking(move || dev.wait()).await.unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_port_of_a_replica_that_is_taken_is_named() {
    let (free, taken, _held) = loop {
        let (free, taken) = (free_addr(), free_addr());
        if let (1, Ok(held)) = (taken.port() - free.port(), std::net::TcpListener::bind(taken)) {
            break (free, taken, held);
        }
    };
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.args(["dev", "--replicas", "2", "--admin-listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--listen"]);
    let ended = command.arg(free.to_string()).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && told.contains(&format!("r2: listen: cannot listen on {taken}")), "{told}");
}
