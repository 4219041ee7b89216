//! A log as nodes write it.

use std::{ops::Range, sync::Arc};

use alloy_primitives::{Address, B256};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::{hex, json::Scanner};

/// A log of a block: the fields that filters compare, and the node's text, which subscribers get
/// unchanged.
///
/// Some nodes write logs in their own way. A field of such a log that cannot be read is `None`, and
/// matches only filters that allow any value there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::view) struct Log {
    pub(in crate::view) address: Option<Address>,
    pub(in crate::view) topics: Vec<Option<B256>>,
    /// A JSON object.
    pub(in crate::view) text: Arc<str>,
}

/// A node's answer to a request for the logs of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeLogs {
    pub(super) logs: Vec<Log>,
    /// How many of the logs are not written as the API specifies.
    pub(super) odd: u64,
    /// How many receipts the answer has, if the node was asked for receipts: one for each
    /// transaction.
    pub(super) receipts: usize,
}

/// How the node was asked, which decides whether a log that does not name its block is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// For that very block, so that the log is of the block.
    ByHash,
    /// For the block at its height, so that the log may be of another block.
    ByHeight,
}

/// Why an answer is refused.
const OTHER_BLOCK: &str = "the logs are of another block";
const NOT_CANONICAL: &str = "to the node the block is not canonical";
const NO_LOGS: &str = "the answer is no list of logs";
const NO_RECEIPTS: &str = "the answer is no list of receipts";

impl NodeLogs {
    /// Reads the answer to `eth_getLogs`.
    ///
    /// # Errors
    /// When a log names another block, or the answer is no list of logs.
    pub(super) fn read(json: &[u8], block: B256, asked: Asked) -> Result<Self, &'static str> {
        let logs: Vec<&RawValue> = serde_json::from_slice(json).map_err(|_| NO_LOGS)?;
        let mut told = Self::default();
        logs.into_iter().try_for_each(|log| told.take(log.get(), block, asked))?;
        Ok(told)
    }

    /// Reads the answer to `eth_getBlockReceipts`.
    ///
    /// # Errors
    /// When a receipt or log names another block, or the answer is no list of receipts.
    pub(super) fn read_receipts(json: &[u8], block: B256, asked: Asked) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Receipt<'a> {
            #[serde(borrow)]
            block_hash: Option<&'a str>,
            #[serde(borrow)]
            logs: Option<Vec<&'a RawValue>>,
        }
        let receipts: Vec<Receipt<'_>> = serde_json::from_slice(json).map_err(|_| NO_RECEIPTS)?;
        let mut told = Self { receipts: receipts.len(), ..Self::default() };
        for receipt in receipts {
            let asked = match receipt.block_hash.and_then(hex::fixed) {
                Some(hash) if hash == block => Asked::ByHash,
                Some(_) => return Err(OTHER_BLOCK),
                None => asked,
            };
            let mut logs = receipt.logs.unwrap_or_default().into_iter();
            logs.try_for_each(|log| told.take(log.get(), block, asked))?;
        }
        Ok(told)
    }

    /// Adds a log. An element that is no object is counted as odd and left out.
    fn take(&mut self, text: &str, block: B256, asked: Asked) -> Result<(), &'static str> {
        if let Some(log) = Log::read(text, block) {
            self.logs.push(log);
            return Ok(());
        }
        let log = Log::guess(text, block, asked)?;
        self.odd += 1;
        self.logs.extend(log);
        Ok(())
    }
}

impl Log {
    /// The hash of the log's transaction, if the node wrote the hash in the usual form.
    pub(super) fn transaction(&self) -> Option<B256> {
        const KEY: &str = "\"transactionHash\"";
        let value = self.text.split_once(KEY)?.1.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        hex::fixed(value.get(..66)?)
    }

    /// Reads a log of `block` that is written as the API specifies.
    pub(super) fn read(text: &str, block: B256) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields<'a> {
            address: &'a str,
            topics: Vec<&'a str>,
            block_hash: &'a str,
            removed: Option<bool>,
        }
        let fields: Fields<'_> = serde_json::from_str(text).ok()?;
        // A node that marks the log as removed holds the block not to be canonical. The client must
        // not get `removed` for a log that is new to the client.
        let stands = fields.removed != Some(true);
        let is_of_block = stands && hex::fixed(fields.block_hash) == Some(block);
        let address = hex::fixed(fields.address).map(Address)?;
        let topics = fields.topics.iter().map(|topic| hex::fixed(topic).map(Some)).collect::<Option<_>>()?;
        is_of_block.then(|| Self { address: Some(address), topics, text: text.into() })
    }

    /// Reads the fields that can be read of a log that is written in another way. `None` if the
    /// text is no object.
    fn guess(text: &str, block: B256, asked: Asked) -> Result<Option<Self>, &'static str> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Fields<'a> {
            #[serde(borrow)]
            address: Option<&'a RawValue>,
            #[serde(borrow)]
            topics: Option<&'a RawValue>,
            #[serde(borrow)]
            block_hash: Option<&'a RawValue>,
            #[serde(borrow)]
            removed: Option<&'a RawValue>,
        }
        if !text.starts_with('{') {
            return Ok(None);
        }
        // If a member comes twice, no field is read.
        let fields: Fields<'_> = serde_json::from_str(text).unwrap_or_default();
        let string = |json: Option<&RawValue>| serde_json::from_str::<String>(json?.get()).ok();
        if fields.removed.is_some_and(|removed| removed.get() == "true") {
            return Err(NOT_CANONICAL);
        }
        let names = string(fields.block_hash).and_then(|hash| hex::fixed(&hash));
        if names.map_or(asked == Asked::ByHeight, |names| names != block) {
            return Err(OTHER_BLOCK);
        }
        let list = fields.topics.and_then(|topics| serde_json::from_str::<Vec<&RawValue>>(topics.get()).ok());
        let topics = list.unwrap_or_default().into_iter().map(|topic| hex::fixed(&string(Some(topic))?)).collect();
        let address = string(fields.address).and_then(|text| hex::fixed(&text)).map(Address);
        Ok(Some(Self { address, topics, text: text.into() }))
    }

    /// The address and the first topic: these decide in most cases whether a bloom filter has the
    /// log.
    pub(super) fn marks(&self) -> impl Iterator<Item = &[u8]> {
        let address = self.address.iter().map(|address| &address[..]);
        address.chain(self.topics.first().into_iter().flatten().map(|topic| &topic[..]))
    }

    /// The log with `removed` set, as it is sent when its block is not canonical any more.
    pub(super) fn removed(&self) -> Self {
        let text = &*self.text;
        let removed = match flag(text.as_bytes()) {
            Some(flag) => [&text[..flag.start], "true", &text[flag.end..]].concat(),
            None if text[1..].trim_start().starts_with('}') => r#"{"removed":true}"#.to_owned(),
            None => [text.strip_suffix('}').unwrap_or(text), r#","removed":true}"#].concat(),
        };
        Self { text: removed.into(), ..self.clone() }
    }
}

/// The range of the value of the member `removed`.
fn flag(log: &[u8]) -> Option<Range<usize>> {
    let mut scanner = Scanner::new(log);
    scanner.take(b'{');
    let mut is_first = true;
    while let Some(key) = scanner.member(is_first).ok()? {
        is_first = false;
        let start = scanner.offset();
        scanner.value().ok()?;
        if key.raw == b"removed" {
            return Some(start..scanner.offset());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rest: &str) -> String {
        let (address, topic, block) = ("11".repeat(20), "22".repeat(32), "33".repeat(32));
        format!("{{ \"address\":\"0x{address}\",\"topics\" : [\"0x{topic}\"], \"blockHash\":\"0x{block}\"{rest}}}")
    }

    const BLOCK: B256 = B256::repeat_byte(0x33);

    fn read(json: &str) -> Result<NodeLogs, &'static str> {
        NodeLogs::read(json.as_bytes(), BLOCK, Asked::ByHash)
    }

    #[test]
    fn logs_are_read_and_their_text_is_kept_as_it_is() {
        let (one, two) = (text(r#", "removed" : false, "data":"0x""#), text(""));
        let told = read(&format!("[ {one} ,\n{two}]")).unwrap();
        assert_eq!(told.logs.iter().map(|log| &*log.text).collect::<Vec<_>>(), [&one, &two]);
        assert_eq!(
            (told.logs[0].address, &*told.logs[0].topics),
            (Some(Address::repeat_byte(0x11)), &[Some(B256::repeat_byte(0x22))][..])
        );
        assert_eq!((told.odd, told.receipts), (0, 0));
        assert_eq!(read("[]"), Ok(NodeLogs::default()));
    }

    #[test]
    fn logs_of_another_block_are_not_read() {
        let other = NodeLogs::read(format!("[{}]", text("")).as_bytes(), B256::repeat_byte(0x34), Asked::ByHash);
        assert_eq!(
            other,
            Err(OTHER_BLOCK),
            "a node that does not know the parameter gives the logs of its latest block"
        );
        let removed = text(r#","removed":true"#);
        assert_eq!(read(&format!("[{},{removed}]", text(""))), Err(NOT_CANONICAL));
        for bad in ["null", "{}", "1", "[{}", &text("")] {
            assert_eq!(read(bad), Err(NO_LOGS), "{bad}");
        }
        let nameless = text("").replace("blockHash", "hash");
        let by_height = NodeLogs::read(format!("[{nameless}]").as_bytes(), BLOCK, Asked::ByHeight);
        assert_eq!(by_height, Err(OTHER_BLOCK), "nothing says of which block it is");
    }

    #[test]
    fn one_odd_log_takes_no_other_with_it() {
        let (well, topic) = (text(""), format!("\"0x{}\"", "22".repeat(32)));
        let (address, list) = (Some(Address::repeat_byte(0x11)), format!("[{topic}]"));
        let known = Some(B256::repeat_byte(0x22));
        for (odd, expected) in [
            (well.replace(&list, "null"), Some((address, vec![]))),
            (well.replace("topics", "themes"), Some((address, vec![]))),
            (well.replace(&list, &format!("[{topic},null,\"0x1\"]")), Some((address, vec![known, None, None]))),
            (well.replace("address", "contract"), Some((None, vec![known]))),
            (well.replace("\"0x1111", "\"0x11"), Some((None, vec![known]))),
            (well.replace("blockHash", "hash"), Some((address, vec![known]))),
            (well.replace('}', ",\"removed\":null,\"address\":1}"), Some((None, vec![]))),
            (well.replace('}', ",\"removed\":\"no\"}"), Some((address, vec![known]))),
            ("{}".to_owned(), Some((None, vec![]))),
            ("null".to_owned(), None),
            ("[]".to_owned(), None),
        ] {
            let told = read(&format!("[{well},{odd}]")).unwrap_or_else(|why| panic!("{why}: {odd}"));
            let expected = expected.map(|(address, topics)| Log { address, topics, text: odd.as_str().into() });
            assert_eq!(told.odd, 1, "{odd}");
            assert_eq!(told.logs[1..], expected.into_iter().collect::<Vec<_>>(), "{odd}");
        }
    }

    #[test]
    fn logs_are_found_in_receipts() {
        let log = text("");
        let hash = BLOCK.to_string();
        let receipts = |hash: &str, log: &str| {
            format!(r#"[{{"blockHash":"{hash}","logs":[{log},{log}]}},{{"logs":null}},{{"logs":[{log}]}}]"#)
        };
        let read = |json: &str, asked| NodeLogs::read_receipts(json.as_bytes(), BLOCK, asked);
        let told = read(&receipts(&hash, &log), Asked::ByHeight).unwrap();
        assert_eq!((told.logs.len(), told.odd, told.receipts), (3, 0, 3));
        assert_eq!(&*told.logs[2].text, log);
        assert_eq!(read(&receipts(&hash.replace('3', "4"), &log), Asked::ByHash), Err(OTHER_BLOCK));
        let nameless = log.replace("blockHash", "hash");
        assert_eq!(read(&receipts(&hash, &nameless), Asked::ByHash).unwrap().odd, 3);
        assert_eq!(read(&receipts(&hash, &nameless), Asked::ByHeight), Err(OTHER_BLOCK), "the last names no block");
        assert_eq!(read("null", Asked::ByHash), Err(NO_RECEIPTS));
    }

    #[test]
    fn a_removed_log_differs_in_nothing_else() {
        let removed = |rest: &str| Log::read(&text(rest), BLOCK).unwrap().removed();
        for (rest, expected) in [
            (r#", "removed" : false, "data":"0x""#, r#", "removed" : true, "data":"0x""#),
            (r#","data":{"removed":false},"removed":false"#, r#","data":{"removed":false},"removed":true"#),
            (r#","data":{"a":{}}"#, r#","data":{"a":{}},"removed":true"#),
        ] {
            let log = removed(rest);
            assert_eq!(&*log.text, text(expected));
            assert_eq!(
                (log.address, log.topics),
                (Some(Address::repeat_byte(0x11)), vec![Some(B256::repeat_byte(0x22))])
            );
        }
        let empty = Log { address: None, topics: Vec::new(), text: "{ }".into() };
        assert_eq!(&*empty.removed().text, r#"{"removed":true}"#);
    }
}
