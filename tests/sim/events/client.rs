//! A client of the events: it believes what it hears, and complains.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout_at},
};

use super::chain::{Tree, name, root, state};
use crate::common::sim::Net;

/// One event, and when it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    pub at: Instant,
    pub topic: String,
    pub data: Value,
}

/// When a stream was opened, and what it told.
pub type Listened = (Instant, Vec<Heard>);

/// Opens a stream of these topics, again and again until there is one, and reads it until `end`.
///
/// # Panics
/// When it ends before, or is silent for longer than keep-alives allow.
pub async fn listen(net: Net, port: u16, topics: &str, who: &str, end: Instant) -> Listened {
    let (mut io, mut read) = loop {
        let mut io = net.connect(port).await.unwrap();
        let request = format!("GET /eth/v1/events?topics={topics} HTTP/1.1\r\nHost: proxy\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let length = loop {
            assert!(io.read_buf(&mut read).await.unwrap() > 0, "{who}: no answer");
            if let Some(length) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break length + 4;
            }
        };
        let rest = read.split_off(length);
        let head = String::from_utf8(read).unwrap().to_ascii_lowercase();
        if head.starts_with("http/1.1 200") {
            assert!(head.contains("text/event-stream") && head.contains("transfer-encoding: chunked"), "{who}: {head}");
            break (io, rest);
        }
        assert!(head.starts_with("http/1.1 503"), "{who}: {head}{rest:?}");
        sleep(Duration::from_millis(100)).await;
    };
    let (mut text, mut heard) = (Vec::new(), Vec::new());
    let opened = Instant::now();
    let mut last = opened;
    loop {
        while let Some(line) = read.windows(2).position(|bytes| bytes == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&read[..line]).unwrap(), 16).unwrap();
            assert!(size > 0, "{who}: the stream ended");
            if read.len() < line + size + 4 {
                break;
            }
            text.extend_from_slice(&read[line + 2..line + 2 + size]);
            read.drain(..line + size + 4);
        }
        // A node's own line endings come through.
        let whole = String::from_utf8(std::mem::take(&mut text)).unwrap().replace("\r\n", "\n");
        let mut rest = whole.as_str();
        while let Some((event, more)) = rest.split_once("\n\n") {
            rest = more;
            last = Instant::now();
            if event.starts_with(':') {
                continue;
            }
            let (topic, data) = event.strip_prefix("event:").unwrap().split_once("\ndata:").unwrap();
            let data = serde_json::from_str(&data.to_ascii_lowercase()).unwrap();
            heard.push(Heard { at: last, topic: topic.trim().to_owned(), data });
        }
        text = rest.as_bytes().to_vec();
        match timeout_at(end, io.read_buf(&mut read)).await {
            Err(_) => return (opened, heard),
            Ok(count) => assert!(count.unwrap() > 0, "{who}: the stream was cut"),
        }
        assert!(last.elapsed() <= Duration::from_millis(10_100), "{who}: silent for {:?}", last.elapsed());
    }
}

/// Holds what a client heard against what there was. `tip` is the head at the end, `since` the slot at which it
/// came. `may_miss`: the proxy has said that it left something out.
pub fn check(tree: &Tree, tip: usize, since: u64, heard: &[Heard], may_miss: bool, who: &str) {
    let (mut chain, mut blocks, mut epochs) = (Vec::<usize>::new(), BTreeSet::new(), Vec::new());
    let (mut reorg, mut passed) = (false, BTreeSet::new());
    for (place, Heard { topic, data, .. }) in heard.iter().enumerate() {
        let around = || {
            let near = heard[place.saturating_sub(12)..heard.len().min(place + 4)].iter();
            let near = near.map(|heard| format!("{:?} {} {}\n", heard.at, heard.topic, heard.data));
            format!("{who}, at event {place}: {data}\n{}", near.collect::<String>())
        };
        let told = |key: &str| name(data[key].as_str().unwrap());
        match topic.as_str() {
            "block" => {
                assert!(blocks.insert(told("block")), "a block twice: {}", around());
                assert_eq!(data["slot"], tree.block(told("block")).slot.to_string(), "{}", around());
            }
            "chain_reorg" => {
                assert!(!reorg, "a reorganisation twice: {}", around());
                assert!(chain.last().is_none_or(|&tip| tip == told("old_head_block")), "not our head: {}", around());
                reorg = true;
            }
            "head" => {
                let head = told("block");
                let block = tree.block(head);
                let (previous, current) = tree.duties(head);
                assert_eq!(data["slot"], block.slot.to_string(), "{}", around());
                assert_eq!(data["state"], state(head), "{}", around());
                assert_eq!(data["previous_duty_dependent_root"], root(previous), "{}", around());
                assert_eq!(data["current_duty_dependent_root"], root(current), "{}", around());
                if reorg {
                    let left = chain.last().copied();
                    let fork = chain.iter().rposition(|&at| at == block.parent);
                    chain.truncate(fork.map_or(0, |at| at + 1));
                    assert!(left.is_none() || chain.last() != left.as_ref(), "no reorganisation: {}", around());
                } else if let Some(&last) = chain.last()
                    && may_miss
                    && block.parent != last
                {
                    chain.clear();
                } else if let Some(&last) = chain.last() {
                    assert_eq!(block.parent, last, "not connected: {}", around());
                }
                // Blocks of before it came may come back.
                assert!(block.slot <= since || blocks.contains(&head), "a head without its block: {}", around());
                chain.push(head);
                reorg = false;
            }
            "finalized_checkpoint" => {
                let epoch: u64 = data["epoch"].as_str().unwrap().parse().unwrap();
                assert!(epochs.last().is_none_or(|&last| last < epoch), "final twice: {}", around());
                epochs.push(epoch);
            }
            _ => assert!(passed.insert((topic, data.to_string())), "twice: {}", around()),
        }
    }
    let truth: Vec<usize> = tree.line(tip).take(chain.len()).collect();
    assert!(chain.iter().rev().eq(&truth), "{who}: heard {chain:?}, but it was the reverse of {truth:?}");
    assert!(!reorg && (may_miss || chain.len() > 10), "{who}: {chain:?}");
    let (last, _) = tree.finalized(tip);
    assert_eq!(epochs.last(), Some(&last), "{who}: {epochs:?}");
}
