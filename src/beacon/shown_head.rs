//! The heads that answers name. Clients know a head when an answer has named it, as they do when an
//! event has.
//!
//! Rule: an answer counts by the named slot, or by the root of its head. Of a root that the pool
//! does not know yet, the node is asked for its head at once, and the head counts when the node
//! names that root; the answer waits for that, for [`SHORTLY`] at most. Reason: a client that polls
//! hears of a block up to a second before the pool's own questions do. Example: a client polls the
//! root of the head 0.2 s into slot 100. Node A is asked for its head, and 2 ms later slot 100
//! counts as told: when A is lost, votes wait for node B to get there.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::timeout;

use super::{Request, Requests, answer::Answer};
use crate::{
    domain::{chain::Number, node_id::NodeId},
    pool::Pool,
};

/// How long a node is waited for that names a head of an unknown slot.
const NAMING: Duration = Duration::from_secs(1);
/// How long the client's answer waits for that.
const SHORTLY: Duration = Duration::from_millis(50);

/// The place of the message in a signed block in SSZ: behind its offset and the signature.
const BLOCK: usize = 100;
/// The place of the block's root in attestation data in SSZ, and the end of all of the data.
const ROOT: std::ops::Range<usize> = 16..48;
const ATTESTATION_DATA: usize = 128;

/// A head as named in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Slot(u64),
    Root(String),
}

/// The heads that are asked for now, by their nodes and roots.
#[derive(Default)]
pub(super) struct Awaited(Arc<Mutex<Vec<(NodeId, String)>>>);

/// An entry of these, given back on drop.
struct Entry {
    of: Arc<Mutex<Vec<(NodeId, String)>>>,
    node: NodeId,
    root: String,
}

impl Awaited {
    /// `None` if the head is asked for already.
    fn enter(&self, node: NodeId, root: &str) -> Option<Entry> {
        let mut list = lock(&self.0);
        if list.iter().any(|(of, other)| *of == node && other == root) {
            return None;
        }
        list.push((node, root.to_owned()));
        Some(Entry { of: self.0.clone(), node, root: root.to_owned() })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.of).retain(|(node, root)| (*node, root) != (self.node, &self.root));
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is complete before the lock is given up.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The head that an answer names.
pub(super) fn told(request: &Request, answer: &Answer) -> Option<Told> {
    let read = reader(request.target.path(), request.target.query()).filter(|_| answer.status == 200)?;
    read(&answer.in_memory()?, answer.is_json())
}

impl Requests {
    /// Notes the head that an answer of `node` names.
    pub(super) async fn shows_head(&self, node: NodeId, told: Told) {
        let slot = match &told {
            Told::Slot(slot) => Some(*slot),
            Told::Root(root) => named(&self.pool, node, root),
        };
        match (slot, told) {
            (Some(slot), _) => self.pool.shown(node, slot),
            (None, Told::Root(root)) => {
                if let Ok(slot) = timeout(SHORTLY, names(&self.pool, node, &root)).await {
                    self.pool.shown(node, slot);
                    return;
                }
                let Some(entry) = self.awaited.enter(node, &root) else { return };
                let pool = self.pool.clone();
                self.background.tasks().spawn(async move {
                    if let Ok(slot) = timeout(NAMING, names(&pool, node, &entry.root)).await {
                        pool.shown(node, slot);
                    }
                });
            }
            (None, Told::Slot(_)) => {}
        }
    }
}

/// The slot of the node's head, if that has this root.
fn named(pool: &Pool, node: NodeId, root: &str) -> Option<u64> {
    let snapshot = pool.snapshot();
    let head = snapshot.nodes[node].head.as_ref()?;
    head.hash.eq_ignore_ascii_case(root).then_some(head.number)
}

/// Asks the node for its head until the head has this root.
async fn names(pool: &Pool, node: NodeId, root: &str) -> u64 {
    let mut changes = pool.subscribe();
    pool.probe_now(node);
    loop {
        if let Some(slot) = named(pool, node, root) {
            return slot;
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

type Reader = fn(&[u8], bool) -> Option<Told>;

/// Reads the head from the answer to a request of this path; `None` if no head is in the answer.
fn reader(path: &str, query: Option<&str>) -> Option<Reader> {
    let steps: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
    match steps[..] {
        ["beacon", "headers", "head"] => Some(header),
        ["beacon", "headers"] if query.is_none_or(str::is_empty) => Some(headers),
        ["beacon", "blocks" | "blinded_blocks", "head"] => Some(block),
        ["beacon", "blocks", "head", "root"] | ["validator", "attestation_data"] => Some(root),
        ["node", "syncing"] => Some(syncing),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Header {
    header: Signed,
}

#[derive(Deserialize)]
struct Signed {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    slot: Number,
}

fn data<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    serde_json::from_slice::<Data<T>>(body).ok().map(|told| told.data)
}

fn header(body: &[u8], _: bool) -> Option<Told> {
    data::<Header>(body)?.header.message.slot.0.map(Told::Slot)
}

fn headers(body: &[u8], _: bool) -> Option<Told> {
    data::<Vec<Header>>(body)?.into_iter().filter_map(|header| header.header.message.slot.0).max().map(Told::Slot)
}

fn block(body: &[u8], is_json: bool) -> Option<Told> {
    if is_json {
        return data::<Signed>(body)?.message.slot.0.map(Told::Slot);
    }
    let offset = u32::from_le_bytes(body.get(..4)?.try_into().ok()?);
    let slot = body.get(BLOCK..BLOCK + 8)?.try_into().ok()?;
    (usize::try_from(offset) == Ok(BLOCK)).then(|| Told::Slot(u64::from_le_bytes(slot)))
}

fn root(body: &[u8], is_json: bool) -> Option<Told> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow, alias = "beacon_block_root")]
        root: &'a str,
    }
    if is_json {
        return data::<Head<'_>>(body).map(|head| Told::Root(head.root.to_ascii_lowercase()));
    }
    let root = body.get(ROOT).filter(|_| body.len() == ATTESTATION_DATA)?;
    Some(Told::Root(format!("0x{}", alloy_primitives::hex::encode(root))))
}

fn syncing(body: &[u8], _: bool) -> Option<Told> {
    #[derive(Deserialize)]
    struct State {
        head_slot: Number,
    }
    data::<State>(body)?.head_slot.0.map(Told::Slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_names_its_head_in_its_own_place() {
        let told = |path: &str, body: &[u8], is_json| reader(path, None).and_then(|read| read(body, is_json));
        let root = format!("0x{}", "ab".repeat(32));
        let header = r#"{"root":"0x00","header":{"message":{"slot":"7"},"signature":"0x"}}"#;
        let vote = [&[7; 16][..], &[0xab; 32], &[0; 80]].concat();
        let signed = [&100_u32.to_le_bytes()[..], &[1; 96], &7_u64.to_le_bytes(), &[2; 40]].concat();
        for (path, body, is_json, expected) in [
            ("/eth/v1/beacon/headers/head", format!(r#"{{"data":{header}}}"#).into_bytes(), true, Told::Slot(7)),
            ("/eth/v1/beacon/headers", format!(r#"{{"data":[{header}]}}"#).into_bytes(), true, Told::Slot(7)),
            (
                "/eth/v2/beacon/blocks/head",
                br#"{"data":{"message":{"slot":"7","body":{}}}}"#.to_vec(),
                true,
                Told::Slot(7),
            ),
            ("/eth/v2/beacon/blocks/head", signed, false, Told::Slot(7)),
            ("/eth/v1/node/syncing", br#"{"data":{"head_slot":"7","is_syncing":false}}"#.to_vec(), true, Told::Slot(7)),
            (
                "/eth/v1/beacon/blocks/head/root",
                format!(r#"{{"data":{{"root":"{}"}}}}"#, root.to_uppercase().replace("0X", "0x")).into_bytes(),
                true,
                Told::Root(root.clone()),
            ),
            (
                "/eth/v1/validator/attestation_data",
                format!(r#"{{"data":{{"slot":"9","beacon_block_root":"{root}"}}}}"#).into_bytes(),
                true,
                Told::Root(root.clone()),
            ),
            ("/eth/v1/validator/attestation_data", vote, false, Told::Root(root.clone())),
        ] {
            assert_eq!(told(path, &body, is_json), Some(expected), "{path}");
            assert_eq!(told(path, b"{}", is_json), None, "{path}");
        }
        assert!(reader("/eth/v1/beacon/headers", Some("slot=7")).is_none());
        assert!(reader("/eth/v1/beacon/headers/7", None).is_none());
    }

    #[test]
    fn a_head_is_asked_for_once_at_a_time() {
        let awaited = Awaited::default();
        let entry = awaited.enter(NodeId(0), "0x01");
        assert!(entry.is_some() && awaited.enter(NodeId(0), "0x01").is_none());
        assert!(awaited.enter(NodeId(1), "0x01").is_some() && awaited.enter(NodeId(0), "0x02").is_some());
        drop(entry);
        assert!(awaited.enter(NodeId(0), "0x01").is_some());
    }
}
