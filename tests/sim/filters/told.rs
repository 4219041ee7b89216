//! What one filter was told, poll by poll.

use serde_json::Value;
use steadfast::devnet::Chain;

/// A log or, with the place 0, a block: its block's number and hash, and its place in it.
pub(crate) type Place = (u64, String, u64);

/// A filter and what stands of what its polls said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Whose it is, in what fails.
    pub(crate) name: String,
    pub(crate) is_of_logs: bool,
    /// The network's height when the filter was asked for: nothing much older may be told.
    pub(crate) oldest: u64,
    /// Its height when the filter was there: from the next block on, nothing may be missing.
    pub(crate) since: u64,
    /// What stands, oldest first.
    pub(crate) stands: Vec<Place>,
    pub(crate) polls: usize,
    pub(crate) added: usize,
    pub(crate) removed: usize,
}

impl Told {
    /// Takes what a poll said.
    pub(crate) fn hear(&mut self, chain: &Chain, changes: &Value) {
        let Some(changes) = changes.as_array() else { panic!("{}: no changes: {changes}", self.name) };
        self.polls += 1;
        for change in changes {
            if self.is_of_logs { self.log(change) } else { self.block(chain, change) }
        }
    }

    fn block(&mut self, chain: &Chain, hash: &Value) {
        let name = self.name.clone();
        let text = hash.as_str().unwrap_or_else(|| panic!("{name}: no hash: {hash}"));
        let block =
            chain.block_by_hash(text.parse().unwrap()).unwrap_or_else(|| panic!("{name}: no such block: {text}"));
        let (number, parent) = (block.number, block.parent_hash.to_string());
        let at = |hash: &str| self.stands.iter().rposition(|(_, stands, _)| stands == hash);
        assert!(at(text).is_none(), "{name}: block {number} {text} was told while it stood");
        assert!(number >= self.oldest, "{name}: block {number} {text} is from before {}", self.oldest);
        if let Some(place) = at(&parent) {
            self.stands.truncate(place + 1);
        } else {
            let last = self.stands.last();
            // Or else nothing that was told stands any more.
            assert!(
                self.stands.first().is_none_or(|first| number <= first.0),
                "{name}: block {number} {text} does not connect: its parent is {parent}, the last was {last:?}"
            );
            self.stands.clear();
        }
        self.added += 1;
        self.stands.push((number, text.to_owned(), 0));
    }

    fn log(&mut self, log: &Value) {
        let name = &self.name;
        let text = log["blockHash"].as_str().unwrap_or_else(|| panic!("{name}: no log: {log}"));
        let place = (quantity(&log["blockNumber"]), text.to_owned(), quantity(&log["logIndex"]));
        if log["removed"] == true {
            self.removed += 1;
            // The newest goes first, and nothing goes that was not told.
            let last = self.stands.pop();
            assert!(
                last.as_ref() == Some(&place),
                "{name}: {place:?} was removed, and {last:?} was the newest that stood"
            );
            return;
        }
        let follows =
            self.stands.last().is_none_or(|last| if last.1 == place.1 { last.2 < place.2 } else { last.0 < place.0 });
        assert!(follows, "{name}: {place:?} after {:?}", self.stands.last());
        assert!(place.0 >= self.oldest, "{name}: {place:?} is from before {}", self.oldest);
        self.added += 1;
        self.stands.push(place);
    }

    /// Holds what stands at the end against the canonical chain, its `heads` or its `logs` that the
    /// filter wants.
    pub(crate) fn settle(&self, heads: &[(u64, String)], logs: &[Place]) {
        let canonical: Vec<Place> = if self.is_of_logs {
            logs.to_vec()
        } else {
            heads.iter().map(|(number, hash)| (*number, hash.clone(), 0)).collect()
        };
        let since = |places: &[Place]| places.iter().filter(|place| place.0 > self.since).cloned().collect::<Vec<_>>();
        let (ours, expected) = (since(&self.stands), since(&canonical));
        let differs = ours.iter().zip(&expected).find(|(a, b)| a != b);
        assert!(
            differs.is_none() && ours.len() == expected.len(),
            "{}: {} told of {} since {}, {differs:?}",
            self.name,
            ours.len(),
            expected.len(),
            self.since
        );
        // What was told of blocks before that is the chain's too.
        for place in &self.stands {
            assert!(canonical.contains(place), "{}: {place:?} does not stand", self.name);
        }
    }
}

fn quantity(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("no quantity: {value}"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}
