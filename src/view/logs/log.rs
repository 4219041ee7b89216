//! A log as nodes write it.

use std::{ops::Range, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::filter::Address;
use crate::domain::{hash::Hash, hex, json::Scanner};

/// A log of a block: what filters look at, and the node's text, which goes to subscribers as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) address: Address,
    pub(super) topics: Vec<Hash>,
    /// An object.
    pub(super) text: Arc<str>,
}

impl Log {
    /// Reads what a node says are all logs of `block`. `None` when it is anything else.
    pub(super) fn read_all(json: &[u8], block: Hash) -> Option<Vec<Self>> {
        let logs: Vec<&RawValue> = serde_json::from_slice(json).ok()?;
        logs.into_iter().map(|log| Self::read(log.get(), block)).collect()
    }

    pub(super) fn read(text: &str, block: Hash) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields<'a> {
            address: &'a str,
            topics: Vec<&'a str>,
            block_hash: &'a str,
            removed: Option<bool>,
        }
        let fields: Fields<'_> = serde_json::from_str(text).ok()?;
        // To a node that says so the block is not canonical, and the client must not hear that of a log that it is told for the first time.
        let stands = fields.removed != Some(true);
        let is_of_block = stands && fields.block_hash.parse() == Ok(block);
        let address = hex::bytes(fields.address)?.try_into().ok()?;
        let topics = fields.topics.iter().map(|topic| topic.parse().ok()).collect::<Option<_>>()?;
        is_of_block.then(|| Self { address, topics, text: text.into() })
    }

    /// The log as it is told when its block is not canonical any more.
    pub(super) fn removed(&self) -> Self {
        let text = &*self.text;
        let removed = match flag(text.as_bytes()) {
            Some(flag) => [&text[..flag.start], "true", &text[flag.end..]].concat(),
            // It has other members, or it could not have been read.
            None => [text.strip_suffix('}').unwrap_or(text), r#","removed":true}"#].concat(),
        };
        Self { text: removed.into(), ..self.clone() }
    }
}

/// Where the value of the member `removed` stands.
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

    const BLOCK: Hash = Hash([0x33; 32]);

    #[test]
    fn logs_are_read_and_their_text_is_kept_as_it_is() {
        let (one, two) = (text(r#", "removed" : false, "data":"0x""#), text(""));
        let logs = Log::read_all(format!("[ {one} ,\n{two}]").as_bytes(), BLOCK).unwrap();
        assert_eq!(logs.iter().map(|log| &*log.text).collect::<Vec<_>>(), [&one, &two]);
        assert_eq!((logs[0].address, &*logs[0].topics), ([0x11; 20], &[Hash([0x22; 32])][..]));
        assert_eq!(Log::read_all(b"[]", BLOCK), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_all_logs_of_the_block_is_not_read() {
        let other = Log::read_all(format!("[{}]", text("")).as_bytes(), Hash([0x34; 32]));
        assert_eq!(other, None, "a node that does not know the parameter gives the logs of its latest block");
        let removed = format!("[{}]", text(r#","removed":true"#));
        for bad in
            [&removed, "null", "{}", "[{}]", "[1]", &format!("[{}, {{}}]", text("")), &text("").replace("11", "1")]
        {
            assert_eq!(Log::read_all(bad.as_bytes(), BLOCK), None, "{bad}");
        }
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
            assert_eq!((log.address, log.topics), ([0x11; 20], vec![Hash([0x22; 32])]));
        }
    }
}
