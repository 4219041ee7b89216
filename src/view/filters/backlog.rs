//! The record of the chain's changes since the filters were polled last: pure.
//!
//! A single record serves all filters of a network; each filter has a position there. Positions
//! count steps from the beginning of the proxy, and begin at 1.

use std::{collections::BTreeSet, sync::Arc};

use alloy_primitives::B256;

use super::tape::{Basket, COMMA, HASH, Lack, Most, Tape};
use crate::view::{Block, Filter, Log};

/// Bytes of memory of a log besides its text, and of a step besides its logs.
const LOG: usize = 160;
const STEP: usize = 480;
/// The logs of a block that came.
#[derive(Debug)]
enum Logs {
    /// Nodes are being asked for them.
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
        /// Whether the block is canonical no longer.
        gone: bool,
    },
    /// A block is canonical no longer. Its logs, if any, are marked as removed.
    Went {
        hash: B256,
        told: Option<(Arc<Block>, Arc<[Log]>)>,
        /// The position at which the block came; 0 if that step was dropped.
        came: u64,
    },
}

/// The record of the chain.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    tape: Tape<Step>,
    /// The number of the newest change that was recorded.
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

    /// Begins a change: the blocks that follow are part of this change.
    pub(super) fn change(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// Records that a block is canonical no longer. `told` are its logs, marked as removed, if the
    /// logs were found.
    pub(super) fn went(&mut self, hash: B256, told: Option<(Arc<Block>, Arc<[Log]>)>) {
        let is_it = |step: &Step| matches!(step, Step::Came { block, gone: false, .. } if block.hash == hash);
        let came = self.tape.find_last(is_it).map_or(0, |(position, step, ..)| {
            if let Step::Came { gone, .. } = step {
                *gone = true;
            }
            position
        });
        let told = told.filter(|(_, logs)| !logs.is_empty());
        let bytes = STEP + told.as_ref().map_or(0, |(_, logs)| weight(logs));
        self.tape.push(Step::Went { hash, told, came }, bytes);
    }

    /// Records the new head. Its logs are yet to be found.
    pub(super) fn came(&mut self, block: Arc<Block>) {
        self.tape.push(Step::Came { block, logs: Logs::Sought, gone: false }, STEP);
    }

    /// Records the logs of a block, or `None` if no node gives them.
    pub(super) fn found(&mut self, hash: B256, found: Option<&Arc<[Log]>>) {
        let is_it = |step: &Step| matches!(step, Step::Came { block, logs: Logs::Sought, .. } if block.hash == hash);
        let Some((_, step, bytes, all)) = self.tape.find_last(is_it) else { return };
        let Step::Came { logs, .. } = step else { return };
        *logs = found.map_or(Logs::Lost, |found| Logs::Found(found.clone()));
        let more = found.map_or(0, |found| weight(found));
        *bytes += more;
        *all += more;
    }

    /// The hashes of the blocks that came since `cursor` and are canonical, as many as fit, and the
    /// position behind them. A block from before `cursor` that went and came back is not among
    /// them.
    pub(super) fn hashes(&self, cursor: u64, most: Most) -> (Vec<B256>, u64) {
        let went = self.tape.from(cursor).filter_map(|(_, step)| match step {
            Step::Went { hash, came, .. } if *came < cursor => Some(*hash),
            Step::Went { .. } | Step::Came { .. } => None,
        });
        let went: BTreeSet<B256> = went.collect();
        let came = self.tape.from(cursor).filter_map(|(position, step)| match step {
            Step::Came { block, gone: false, .. } if !went.contains(&block.hash) => Some((position, block.hash)),
            Step::Came { .. } | Step::Went { .. } => None,
        });
        let mut hashes = Vec::new();
        for (position, hash) in came {
            if (hashes.len() + 1) * (HASH + COMMA) > most.usual && !hashes.is_empty() {
                return (hashes, position);
            }
            hashes.push(hash);
        }
        if hashes.is_empty() && !went.is_empty() {
            // Blocks went, and no others came in their place. The client believes that these blocks
            // stand, so a block that comes back is not reported again.
            return (hashes, cursor);
        }
        (hashes, self.tape.end())
    }

    /// The logs that `filter` wants and that came or went since `cursor`, as many as are known and
    /// fit, and the position behind them, at a block's bounds. The filter is told the changes after
    /// `since`.
    pub(super) fn logs(
        &self,
        filter: &Filter,
        since: u64,
        cursor: u64,
        most: Most,
    ) -> Result<(Vec<Arc<str>>, u64), Lack> {
        let mut basket = Basket::new(most);
        let mut take = |block: &Block, logs: &[Log]| {
            let wanted = logs.iter().filter(|log| filter.matches(log, block.number));
            basket.put(wanted.map(|log| &log.text))
        };
        let mut end = self.tape.end();
        for (position, step) in self.tape.from(cursor) {
            // A block that came and went between two polls is not reported. No poll ends between
            // its two steps: all steps between them are of blocks above, which went before this
            // one.
            let fits = match step {
                Step::Came { gone: true, .. } => true,
                Step::Came { block, logs: Logs::Found(logs), .. } => take(block, logs)?,
                Step::Came { block, logs, .. } if filter.may_match(block.number, block.bloom.as_ref()) => match logs {
                    Logs::Lost => return Err(Lack::Missing),
                    Logs::Sought | Logs::Found(_) => false,
                },
                Step::Came { .. } => true,
                Step::Went { told: Some((block, logs)), came, .. } if *came < cursor && block.change > since => {
                    take(block, logs)?
                }
                Step::Went { .. } => true,
            };
            if !fits {
                end = position;
                break;
            }
        }
        Ok((basket.texts, end))
    }

    /// Whether logs that `filter` may want are still being fetched.
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

    const ALL: Most = Most { usual: usize::MAX, ever: usize::MAX };

    /// A backlog with the names that a test gives to blocks and logs.
    #[derive(Default)]
    struct Record(Backlog);

    fn block(name: u8, change: u64) -> Arc<Block> {
        Arc::new(Block { hash: B256::repeat_byte(name), number: name.into(), change, bloom: None })
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
            self.0.found(B256::repeat_byte(name), Some(&logs(names)));
        }

        fn went(&mut self, name: u8, change: u64, names: &[&str]) {
            self.0.went(B256::repeat_byte(name), Some((block(name, change), logs(names))));
        }

        /// The logs for a filter that wants all of them, and the next position.
        fn poll(&self, since: u64, cursor: u64) -> (Vec<String>, u64) {
            self.poll_at_most(since, cursor, ALL)
        }

        fn poll_at_most(&self, since: u64, cursor: u64, most: Most) -> (Vec<String>, u64) {
            let (texts, end) = self.0.logs(&Filter::read("{}").unwrap(), since, cursor, most).unwrap();
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
        assert_eq!(record.0.hashes(2, ALL).0, [B256::repeat_byte(2), B256::repeat_byte(3)]);
    }

    #[test]
    fn only_told_logs_are_told_as_removed() {
        let mut record = Record::default();
        [(1, "a"), (2, "b")].into_iter().for_each(|(n, log)| {
            record.came(n, n.into());
            record.found(n, &[log]);
        });
        // The first filter was polled between the blocks, the second not yet, the third came after
        // both.
        let polls = [(0, 2), (0, 1), (2, 3)];
        record.0.change(3);
        record.went(2, 2, &["b gone"]);
        record.went(1, 1, &["a gone"]);
        record.came(4, 3);
        record.found(4, &["d"]);
        let told = polls.map(|(since, cursor)| record.poll(since, cursor).0);
        assert_eq!(told, [vec!["a gone".to_owned(), "d".to_owned()], vec!["d".to_owned()], vec!["d".to_owned()]]);
        assert_eq!(record.0.hashes(1, ALL).0, [B256::repeat_byte(4)]);
    }

    #[test]
    fn a_block_that_came_back_between_two_polls_is_not_told_anew() {
        let mut record = Record::default();
        record.came(1, 1);
        record.0.change(2);
        record.went(1, 1, &[]);
        record.came(2, 2);
        record.0.change(3);
        record.went(2, 2, &[]);
        record.came(1, 3);
        record.came(3, 4);
        // Told of the first, of none, and of the second too.
        let told =
            [2, 1, 4].map(|cursor| record.0.hashes(cursor, ALL).0.iter().map(|hash| hash.0[0]).collect::<Vec<_>>());
        assert_eq!(told, [vec![3], vec![1, 3], vec![1, 3]]);
    }

    #[test]
    fn block_removed_without_successor_is_not_sent_on_return() {
        let mut record = Record::default();
        [1, 2].into_iter().for_each(|n| record.came(n, n.into()));
        record.0.change(3);
        [2, 1].into_iter().for_each(|n| record.went(n, n.into(), &[]));
        [11, 12].into_iter().for_each(|n| record.came(n, 3));
        record.0.change(4);
        [12, 11].into_iter().for_each(|n| record.went(n, 3, &[]));
        record.came(1, 4);
        // The client knows the first two blocks, and believes that both stand.
        let (told, cursor) = record.0.hashes(3, ALL);
        assert!(told.is_empty(), "{told:?}");
        record.came(2, 5);
        let (told, cursor) = record.0.hashes(cursor, ALL);
        assert!(told.is_empty(), "it stands for the client still: {told:?}");
        record.came(3, 6);
        let (told, cursor) = record.0.hashes(cursor, ALL);
        assert_eq!((told, cursor), (vec![B256::repeat_byte(3)], record.0.tape.end()));
    }

    #[test]
    fn a_poll_ends_between_two_blocks_where_it_would_be_long() {
        let mut record = Record::default();
        let log = ["x"; 4].map(|_| "0123456789");
        [1, 2].into_iter().for_each(|n| {
            record.came(n, n.into());
            record.found(n, &log[..2]);
        });
        // A poll takes both; then both go, and three others come, the first of them long.
        record.0.change(3);
        [2, 1].into_iter().for_each(|n| record.went(n, n.into(), &["gone, gone"]));
        for (n, logs) in [(3, &log[..]), (4, &log[..1]), (5, &log[..1])] {
            record.came(n, 3);
            record.found(n, logs);
        }
        let most = Most { usual: 22, ever: 44 };
        let mut cursor = 3;
        let told: Vec<Vec<String>> = std::iter::from_fn(|| {
            let (texts, to) = record.poll_at_most(0, cursor, most);
            cursor = to;
            (!texts.is_empty()).then_some(texts)
        })
        .collect();
        assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [2, 4, 2]);
        assert_eq!(told.concat(), record.poll(0, 3).0);
        assert_eq!(cursor, record.0.tape.end());
        let all = Filter::read("{}").unwrap();
        let less = Most { usual: 22, ever: 43 };
        assert_eq!(record.0.logs(&all, 0, 3, less).unwrap().0.len(), 2, "what fits is told first");
        assert_eq!(record.0.logs(&all, 0, 5, less), Err(Lack::TooLong));
    }

    #[test]
    fn block_added_and_removed_behind_a_cut_is_not_sent() {
        let mut record = Record::default();
        for n in 1..=4 {
            record.came(n, n.into());
            record.found(n, &["0123456789"]);
        }
        let most = Most { usual: 22, ever: 22 };
        assert_eq!(record.poll_at_most(0, 1, most), (vec!["0123456789".to_owned(); 2], 3));
        record.0.change(5);
        [4, 3, 2].into_iter().for_each(|n| record.went(n, n.into(), &["0123456789"]));
        record.came(5, 5);
        record.found(5, &["9876543210"]);
        assert_eq!(
            record.poll_at_most(0, 3, most).0,
            ["0123456789", "9876543210"],
            "the second went, and the fifth came"
        );
        let two = Most { usual: 2 * (HASH + COMMA), ever: usize::MAX };
        assert_eq!(record.0.hashes(1, two), (vec![B256::repeat_byte(1), B256::repeat_byte(5)], record.0.tape.end()));
        let one = Most { usual: 1, ever: usize::MAX };
        assert_eq!(record.0.hashes(1, one), (vec![B256::repeat_byte(1)], 8));
    }

    #[test]
    fn logs_that_cannot_be_had_are_missing_to_whom_they_concern() {
        let mut record = Record::default();
        record.came(5, 1);
        record.0.found(B256::repeat_byte(5), None);
        let [all, later] = ["{}", r#"{"fromBlock":"0x6"}"#].map(|filter| Filter::read(filter).unwrap());
        assert_eq!(record.0.logs(&all, 0, 1, ALL), Err(Lack::Missing));
        assert_eq!(record.0.logs(&later, 0, 1, ALL), Ok((vec![], 2)));
        record.0.went(B256::repeat_byte(5), None);
        assert_eq!(record.0.logs(&all, 0, 1, ALL), Ok((vec![], 3)), "the block went, and its logs with it");
    }

    #[test]
    fn forgotten_blocks_give_their_bytes_back() {
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
