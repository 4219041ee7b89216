//! A block of the canonical window, and how nodes write it.

use std::{borrow::Cow, sync::Arc};

use alloy_primitives::{B256, Bloom};
use bytes::Bytes;
use serde::Deserialize;

use crate::domain::{block::BlockRef, hex, json::Scanner, node_id::NodeId};

/// Members of a block's answer that the header of `newHeads` lacks.
const BODY: [&[u8]; 4] = [b"transactions", b"uncles", b"withdrawals", b"size"];

/// A block as the window keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Height.
    pub number: u64,
    /// Its name.
    pub hash: B256,
    /// The block before it.
    pub parent: B256,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// The header's JSON, an object, as `newHeads` writes headers; never empty in
    /// [`Change::added`].
    pub header: Bytes,
    /// The header's bloom filter; `None` when the node wrote none.
    pub bloom: Option<Box<Bloom>>,
}

/// How the canonical chain changed: first `removed` went, then `added` came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Counts changes.
    pub seq: u64,
    /// The node whose report made the change, by its index in the follower's pool of that moment.
    /// After a reload the pool may have no node of that index.
    pub node: NodeId,
    /// Blocks that are no longer canonical, newest first. Of those that were never told as added,
    /// `header` may be empty.
    pub removed: Vec<Arc<Block>>,
    /// Blocks that are now canonical, oldest first; never empty.
    pub added: Vec<Arc<Block>>,
    /// Blocks before `added[0]` were not reported: there were more than may be filled in, the chain
    /// was reorganised beyond the window, or no node gave a header. `removed` is empty then.
    pub skipped: bool,
}

/// The place of a block in its chain, without its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) hash: B256,
    pub(super) parent: B256,
    pub(super) timestamp: u64,
}

impl Head {
    /// `None` where a hash is malformed.
    pub(super) fn read(block: &BlockRef) -> Option<Self> {
        let (hash, parent) = (block.hash.parse().ok()?, block.parent.parse().ok()?);
        Some(Self { number: block.number, hash, parent, timestamp: block.timestamp })
    }
}

impl From<Head> for Block {
    fn from(Head { number, hash, parent, timestamp }: Head) -> Self {
        Self { number, hash, parent, timestamp, header: Bytes::new(), bloom: None }
    }
}

impl Block {
    /// Reads a header as `newHeads` writes headers, and keeps the JSON as received.
    pub(super) fn read(header: Bytes) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields<'a> {
            #[serde(borrow)]
            logs_bloom: Option<Cow<'a, str>>,
        }
        let fields: Fields<'_> = serde_json::from_slice(&header).ok()?;
        let bloom = fields.logs_bloom.and_then(|text| hex::fixed(&text)).map(|bits| Box::new(Bloom(bits)));
        let head = Head::read(&BlockRef::read(&header).ok()?)?;
        Some(Self { header, bloom, ..head.into() })
    }

    /// Reads a node's answer to a question for a block; only the header is kept, each of its
    /// fields as the node wrote it.
    pub(super) fn read_whole(block: &Bytes) -> Option<Self> {
        Self::read(without_body(block)?)
    }
}

/// The object `block` without the members of [`BODY`]. `None` where `block` is no object.
fn without_body(block: &Bytes) -> Option<Bytes> {
    let mut scanner = Scanner::new(block);
    scanner.space();
    scanner.expect(b'{', "expected an object").ok()?;
    let mut header = Vec::with_capacity(block.len().min(4096));
    let mut start = scanner.offset();
    let mut is_first = true;
    while let Some(key) = scanner.member(is_first).ok()? {
        scanner.value().ok()?;
        if !BODY.contains(&key.raw) {
            let member = block[start..scanner.offset()].trim_ascii_start();
            header.push(if header.is_empty() { b'{' } else { b',' });
            header.extend_from_slice(member.strip_prefix(b",").unwrap_or(member).trim_ascii_start());
        }
        start = scanner.offset();
        is_first = false;
    }
    header.push(b'}');
    scanner.end().ok()?;
    Some(header.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(digit: &str) -> String {
        format!("0x{}", digit.repeat(64))
    }

    #[test]
    fn a_fetched_block_becomes_the_header_that_is_pushed() {
        let (own, parent, bloom) = (hash("a"), hash("b"), format!("0x{}01", "00".repeat(255)));
        let block = format!(
            "{{ \"withdrawals\":[{{}}], \"size\" : \"0x2\",\"number\":\"0x10\", \"hash\":\"{own}\" ,\n\"transactions\":[\"0x1\"],\
             \"parentHash\":\"{parent}\",\"new\\u0020field\":{{\"size\":1}},\"logsBloom\":\"{bloom}\",\"timestamp\":\"0x65\",\"uncles\":[]}}"
        );
        let header = format!(
            "{{\"number\":\"0x10\",\"hash\":\"{own}\",\"parentHash\":\"{parent}\",\"new\\u0020field\":{{\"size\":1}},\
             \"logsBloom\":\"{bloom}\",\"timestamp\":\"0x65\"}}"
        );
        let read = Block::read_whole(&block.into()).unwrap();
        assert_eq!(std::str::from_utf8(&read.header).unwrap(), header);
        assert_eq!((read.number, read.timestamp), (16, 0x65));
        assert_eq!((read.hash, read.parent), (own.parse().unwrap(), parent.parse().unwrap()));
        assert_eq!(read.bloom.as_ref().unwrap().0[255], 1);
        assert_eq!(Block::read(header.into()).unwrap(), read, "pushed or fetched: the same block");
    }

    #[test]
    fn a_header_without_bloom_is_a_block_half_a_header_is_none() {
        let (own, parent) = (hash("a"), hash("b"));
        let rest = format!("\"number\":\"0x1\",\"hash\":\"{own}\",\"parentHash\":\"{parent}\",\"timestamp\":\"0x1\"");
        for bloom in ["", "\"logsBloom\":null,", "\"logsBloom\":\"0x00\","] {
            assert_eq!(Block::read(format!("{{{bloom}{rest}}}").into()).unwrap().bloom, None, "{bloom}");
        }
        for bad in ["null", "{}", "[]", &format!("{{{rest}"), &format!("{{{rest}}} x"), &rest.replace("0x1", "1")] {
            assert!(Block::read_whole(&bad.to_owned().into()).is_none(), "{bad}");
        }
    }
}
