//! How the chain changed since the filters were polled last: pure.
//!
//! One record serves all filters of a network; each filter has a position in it. Positions count
//! steps from the beginning of the proxy, and begin at 1.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    domain::hash::Hash,
    view::logs::{Block, Filter, Log},
};

/// Bytes that a log takes besides its text, and a step besides its logs.
const LOG: usize = 160;
const STEP: usize = 480;

/// Items in order, of which the oldest are forgotten.
#[derive(Debug)]
pub(super) struct Tape<T> {
    /// The position of the oldest item.
    first: u64,
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for Tape<T> {
    fn default() -> Self {
        Self { first: 1, items: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Tape<T> {
    /// The position of the next item.
    pub(super) fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// `bytes` is what the item takes.
    pub(super) fn push(&mut self, item: T, bytes: usize) {
        self.items.push_back((item, bytes));
        self.bytes += bytes;
    }

    pub(super) fn drop_oldest(&mut self) {
        if let Some((_, bytes)) = self.items.pop_front() {
            self.bytes -= bytes;
            self.first += 1;
        }
    }

    /// Forgets what is before `position`.
    pub(super) fn drop_before(&mut self, position: u64) {
        while self.first < position && !self.items.is_empty() {
            self.drop_oldest();
        }
        if self.items.is_empty() {
            // A burst does not keep its memory.
            self.items = VecDeque::new();
        }
    }

    /// The items from `position` on, each with its position.
    pub(super) fn from(&self, position: u64) -> impl Iterator<Item = (u64, &T)> {
        let skip = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let at = self.first.max(position);
        (at..).zip(self.items.iter().skip(skip).map(|(item, _)| item))
    }

    /// The newest item that `is_it`, with its position.
    fn find_last(&mut self, is_it: impl Fn(&T) -> bool) -> Option<(u64, &mut T, &mut usize, &mut usize)> {
        let (first, all) = (self.first, &mut self.bytes);
        let place = self.items.iter().rposition(|(item, _)| is_it(item))?;
        let (item, bytes) = self.items.get_mut(place)?;
        Some((first + place as u64, item, bytes, all))
    }
}

/// What is known of the logs of a block that came.
#[derive(Debug)]
enum Logs {
    /// They are asked for.
    Sought,
    Found(Arc<[Log]>),
    /// No node gave them.
    Lost,
}

#[derive(Debug)]
enum Step {
    /// A block became canonical.
    Came {
        block: Arc<Block>,
        logs: Logs,
        /// Whether it is canonical no longer.
        gone: bool,
    },
    /// A block with these logs, which say that they are removed, is canonical no longer.
    Went {
        block: Arc<Block>,
        logs: Arc<[Log]>,
        /// The position at which it came; 0 if that is forgotten.
        came: u64,
    },
}

/// Logs that a filter wants cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing;

/// The record of the chain.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    tape: Tape<Step>,
    /// The newest change that is in it, or was.
    seq: u64,
}

impl Backlog {
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn tape(&self) -> &Tape<impl Sized> {
        &self.tape
    }

    pub(super) fn drop_oldest(&mut self) {
        self.tape.drop_oldest();
    }

    pub(super) fn drop_before(&mut self, position: u64) {
        self.tape.drop_before(position);
    }

    /// A change has begun, with which what follows comes and goes.
    pub(super) fn change(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// A block is canonical no longer. `told` are its logs, which say that they are removed, if they
    /// were found.
    pub(super) fn went(&mut self, hash: Hash, told: Option<(Arc<Block>, Arc<[Log]>)>) {
        let is_it = |step: &Step| matches!(step, Step::Came { block, gone: false, .. } if block.hash == hash);
        let came = self.tape.find_last(is_it).map_or(0, |(position, step, ..)| {
            if let Step::Came { gone, .. } = step {
                *gone = true;
            }
            position
        });
        if let Some((block, logs)) = told.filter(|(_, logs)| !logs.is_empty()) {
            let bytes = STEP + weight(&logs);
            self.tape.push(Step::Went { block, logs, came }, bytes);
        }
    }

    /// A block is canonical, above all others. Its logs are to be found.
    pub(super) fn came(&mut self, block: Arc<Block>) {
        self.tape.push(Step::Came { block, logs: Logs::Sought, gone: false }, STEP);
    }

    /// The logs of a block were found, or `None` if they cannot be.
    pub(super) fn found(&mut self, hash: Hash, found: Option<&Arc<[Log]>>) {
        let is_it = |step: &Step| matches!(step, Step::Came { block, logs: Logs::Sought, .. } if block.hash == hash);
        let Some((_, step, bytes, all)) = self.tape.find_last(is_it) else { return };
        let Step::Came { logs, .. } = step else { return };
        *logs = found.map_or(Logs::Lost, |found| Logs::Found(found.clone()));
        let more = found.map_or(0, |found| weight(found));
        *bytes += more;
        *all += more;
    }

    /// The hashes of the blocks that came since `cursor` and are canonical, and where that ends.
    pub(super) fn hashes(&self, cursor: u64) -> (Vec<Hash>, u64) {
        let hash = |(_, step): (u64, &Step)| match step {
            Step::Came { block, gone: false, .. } => Some(block.hash),
            Step::Came { .. } | Step::Went { .. } => None,
        };
        (self.tape.from(cursor).filter_map(hash).collect(), self.tape.end())
    }

    /// What happened since `cursor` to the logs that `filter` wants, as far as it is known, and where
    /// that ends. The filter hears of the changes after `since`.
    pub(super) fn logs(&self, filter: &Filter, since: u64, cursor: u64) -> Result<(Vec<Arc<str>>, u64), Missing> {
        let mut texts = Vec::new();
        let mut take = |block: &Block, logs: &[Log]| {
            let wanted = logs.iter().filter(|log| filter.matches(log, block.number));
            texts.extend(wanted.map(|log| log.text.clone()));
        };
        for (position, step) in self.tape.from(cursor) {
            match step {
                // What came and went between two polls was nothing to the client.
                Step::Came { gone: true, .. } => {}
                Step::Came { block, logs: Logs::Found(logs), .. } => take(block, logs),
                Step::Came { block, logs, .. } if filter.may_match(block.number, block.bloom.as_ref()) => match logs {
                    Logs::Lost => return Err(Missing),
                    Logs::Sought | Logs::Found(_) => return Ok((texts, position)),
                },
                Step::Came { .. } => {}
                Step::Went { block, logs, came } if *came < cursor && block.change > since => take(block, logs),
                Step::Went { .. } => {}
            }
        }
        Ok((texts, self.tape.end()))
    }

    /// Whether logs that `filter` may want are sought.
    pub(super) fn awaits(&self, filter: &Filter, cursor: u64) -> bool {
        self.tape.from(cursor).any(|(_, step)| match step {
            Step::Came { block, logs: Logs::Sought, gone: false } => {
                filter.may_match(block.number, block.bloom.as_ref())
            }
            Step::Came { .. } | Step::Went { .. } => false,
        })
    }
}

fn weight(logs: &[Log]) -> usize {
    logs.iter().map(|log| LOG + log.text.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backlog with what a test calls its blocks and logs.
    #[derive(Default)]
    struct Record(Backlog);

    fn block(name: u8, change: u64) -> Arc<Block> {
        Arc::new(Block { hash: Hash([name; 32]), number: name.into(), change, bloom: None })
    }

    fn logs(names: &[&str]) -> Arc<[Log]> {
        names.iter().map(|name| Log { address: None, topics: Vec::new(), text: (*name).into() }).collect()
    }

    impl Record {
        fn came(&mut self, name: u8, change: u64) {
            self.0.change(change);
            self.0.came(block(name, change));
        }

        fn found(&mut self, name: u8, names: &[&str]) {
            self.0.found(Hash([name; 32]), Some(&logs(names)));
        }

        fn went(&mut self, name: u8, change: u64, names: &[&str]) {
            self.0.went(Hash([name; 32]), Some((block(name, change), logs(names))));
        }

        /// The logs for a filter that wants all of them, and the next position.
        fn poll(&self, since: u64, cursor: u64) -> (Vec<String>, u64) {
            let (texts, end) = self.0.logs(&Filter::read("{}").unwrap(), since, cursor).unwrap();
            (texts.iter().map(ToString::to_string).collect(), end)
        }
    }

    #[test]
    fn a_poll_stops_before_a_block_whose_logs_are_sought() {
        let mut record = Record::default();
        [1, 2, 3].into_iter().for_each(|n| record.came(n, n.into()));
        record.found(1, &["a"]);
        record.found(3, &["c"]);
        let filter = Filter::read("{}").unwrap();
        assert!(record.0.awaits(&filter, 1));
        assert_eq!(record.poll(0, 1), (vec!["a".to_owned()], 2));
        record.found(2, &["b"]);
        assert!(!record.0.awaits(&filter, 2));
        assert_eq!(record.poll(0, 2), (vec!["b".to_owned(), "c".to_owned()], 4));
        assert_eq!(record.0.hashes(2).0, [Hash([2; 32]), Hash([3; 32])]);
    }

    #[test]
    fn only_told_logs_are_told_as_removed() {
        let mut record = Record::default();
        [(1, "a"), (2, "b")].into_iter().for_each(|(n, log)| {
            record.came(n, n.into());
            record.found(n, &[log]);
        });
        // The first filter was polled between the blocks, the second not yet, the third came after both.
        let polls = [(0, 2), (0, 1), (2, 3)];
        record.0.change(3);
        record.went(2, 2, &["b gone"]);
        record.went(1, 1, &["a gone"]);
        record.came(4, 3);
        record.found(4, &["d"]);
        let told = polls.map(|(since, cursor)| record.poll(since, cursor).0);
        assert_eq!(told, [vec!["a gone".to_owned(), "d".to_owned()], vec!["d".to_owned()], vec!["d".to_owned()]]);
        assert_eq!(record.0.hashes(1).0, [Hash([4; 32])]);
    }

    #[test]
    fn logs_that_cannot_be_had_are_missing_to_whom_they_concern() {
        let mut record = Record::default();
        record.came(5, 1);
        record.0.found(Hash([5; 32]), None);
        let [all, later] = ["{}", r#"{"fromBlock":"0x6"}"#].map(|filter| Filter::read(filter).unwrap());
        assert_eq!(record.0.logs(&all, 0, 1), Err(Missing));
        assert_eq!(record.0.logs(&later, 0, 1), Ok((vec![], 2)));
        record.0.went(Hash([5; 32]), None);
        assert_eq!(record.0.logs(&all, 0, 1), Ok((vec![], 2)), "the block went, and its logs with it");
    }

    #[test]
    fn what_is_forgotten_gives_its_bytes_back() {
        let mut record = Record::default();
        for n in 1..=4 {
            record.came(n, n.into());
            record.found(n, &["some log"]);
        }
        let bytes = record.0.tape.bytes();
        record.0.drop_before(3);
        assert_eq!((record.0.tape.first(), record.0.tape.len(), record.0.tape.bytes()), (3, 2, bytes / 2));
        record.went(2, 2, &["gone"]);
        assert_eq!(record.poll(0, 5).0, ["gone"], "whoever is there has seen the block");
        record.0.drop_before(100);
        assert_eq!((record.0.tape.end(), record.0.tape.bytes()), (6, 0));
    }
}
