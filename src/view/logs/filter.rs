//! Which logs a subscriber wants.

mod read;

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, Bloom};

use super::log::Log;
use crate::domain::{bloom::Bits, hex};

/// Addresses and topics in one filter, at most.
const MAX_CONDITIONS: usize = 10_000;
/// Addresses, or topics at one position, that nodes take in one filter without complaint.
const UNION: usize = 1000;
/// Topics that a log can have.
const POSITIONS: usize = 4;

/// The logs that a subscriber wants. Equal filters want the same logs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::view) struct Filter {
    addresses: Any<Address>,
    /// By position. A log with fewer topics than these is not wanted.
    topics: Vec<Any<B256>>,
    /// The first block.
    from: u64,
    /// The last block.
    to: u64,
}

/// Alternatives in order, each with its bits in a bloom filter. No alternatives: any value matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Any<T>(Box<[(T, Bits)]>);

impl Filter {
    /// The members of a filter object that wants the same logs of the blocks in `range`.
    pub(in crate::view) fn members(&self, range: &str) -> String {
        let quoted = |list: Vec<String>| list.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(",");
        let mut members: Vec<String> = (!range.is_empty()).then(|| range.to_owned()).into_iter().collect();
        if !self.addresses.0.is_empty() {
            let addresses = self.addresses.0.iter().map(|(address, _)| hex::encode(address)).collect();
            members.push(format!(r#""address":[{}]"#, quoted(addresses)));
        }
        if !self.topics.is_empty() {
            let topics = self.topics.iter().map(|any| match &*any.0 {
                [] => "null".to_owned(),
                list => format!("[{}]", quoted(list.iter().map(|(topic, _)| topic.to_string()).collect())),
            });
            members.push(format!(r#""topics":[{}]"#, topics.collect::<Vec<_>>().join(",")));
        }
        members.join(",")
    }

    /// Bytes that the filter takes in memory.
    pub(in crate::view) fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.addresses.0)
            + self.topics.iter().map(|any| size_of_val(any) + size_of_val(&*any.0)).sum::<usize>()
    }

    /// Whether the subscriber wants this log of the block at this height.
    pub(in crate::view) fn matches(&self, log: &Log, number: u64) -> bool {
        (self.from..=self.to).contains(&number)
            && self.addresses.has(log.address.as_ref())
            && self.topics.len() <= log.topics.len()
            && self.topics.iter().zip(&log.topics).all(|(wanted, topic)| wanted.has(topic.as_ref()))
    }

    /// False when there is certainly no log for the subscriber in a block of this height and bloom.
    pub(in crate::view) fn may_match(&self, number: u64, bloom: Option<&Bloom>) -> bool {
        (self.from..=self.to).contains(&number)
            && bloom.is_none_or(|bloom| {
                !bloom.is_zero()
                    && self.addresses.may_be_in(bloom)
                    && self.topics.iter().all(|any| any.may_be_in(bloom))
            })
    }
}

/// The members `address` and `topics` of the narrowest filter object that gives all logs that
/// `filters` want, each with a comma before it. `None` if these members would exclude nothing or be
/// too long.
pub(super) fn union<'a>(filters: impl Iterator<Item = &'a Filter> + Clone) -> Option<String> {
    let addresses = any_of(filters.clone().map(|filter| Some(&filter.addresses)), |address| hex::encode(address));
    let topics = (0..POSITIONS)
        .map(|place| any_of(filters.clone().map(|filter| filter.topics.get(place)), |topic| topic.to_string()));
    let mut topics: Vec<Option<String>> = topics.collect();
    while topics.pop_if(|topic| topic.is_none()).is_some() {}
    let topics: Vec<String> = topics.into_iter().map(|list| list.unwrap_or_else(|| "null".to_owned())).collect();
    let addresses = addresses.map(|list| format!(r#","address":{list}"#));
    let topics = (!topics.is_empty()).then(|| format!(r#","topics":[{}]"#, topics.join(",")));
    let union = addresses.unwrap_or_default() + &topics.unwrap_or_default();
    (!union.is_empty()).then_some(union)
}

/// The values of all filters in one list. `None` when one of the filters allows any value, or the
/// list would be too long.
fn any_of<'a, T: Ord + 'a>(
    lists: impl Iterator<Item = Option<&'a Any<T>>>,
    text: impl Fn(&T) -> String,
) -> Option<String> {
    let mut values = BTreeSet::new();
    for list in lists {
        let list = list.filter(|list| !list.0.is_empty())?;
        values.extend(list.0.iter().map(|(value, _)| value));
        if values.len() > UNION {
            return None;
        }
    }
    let values: Vec<String> = values.into_iter().map(|value| format!("\"{}\"", text(value))).collect();
    (!values.is_empty()).then(|| format!("[{}]", values.join(",")))
}

impl<T: Ord> Any<T> {
    fn open() -> Self {
        Self(Box::default())
    }

    /// Alternatives; each `item` is one.
    fn of(mut items: Vec<(T, Bits)>) -> Self {
        items.sort_unstable();
        items.dedup();
        Self(items.into())
    }

    /// Whether `item` matches. An item that could not be read matches only if any value does.
    fn has(&self, item: Option<&T>) -> bool {
        self.0.is_empty() || item.is_some_and(|item| self.0.binary_search_by(|(one, _)| one.cmp(item)).is_ok())
    }

    fn may_be_in(&self, bloom: &Bloom) -> bool {
        self.0.is_empty() || self.0.iter().any(|(_, bits)| bits.are_in(bloom))
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::BloomInput;
    use serde_json::{Value, json};

    use super::*;

    fn word(n: u8) -> String {
        B256::repeat_byte(n).to_string()
    }

    fn account(n: u8) -> String {
        hex::encode([n; 20])
    }

    fn read(filter: &Value) -> Result<Filter, String> {
        Filter::read(&filter.to_string())
    }

    fn log(address: u8, topics: &[u8]) -> Log {
        let topics: Vec<String> = topics.iter().map(|n| word(*n)).collect();
        let text = json!({"address": account(address), "topics": topics, "blockHash": word(9)}).to_string();
        Log::read(&text, B256::repeat_byte(9)).unwrap()
    }

    /// The bloom filter of a block with these logs.
    fn bloom(logs: &[Log]) -> Bloom {
        let mut bloom = Bloom::ZERO;
        for log in logs {
            log.address.iter().for_each(|address| bloom.accrue(BloomInput::Raw(&address[..])));
            log.topics.iter().flatten().for_each(|topic| bloom.accrue(BloomInput::Raw(&topic[..])));
        }
        bloom
    }

    #[test]
    fn logs_match_by_address_and_by_topic_position() {
        let (a, b, c) = (word(1), word(2), word(3));
        let cases = [
            (json!(null), true),
            (json!({}), true),
            (json!({"address": null, "topics": null, "fromBlock": null, "toBlock": null, "blockHash": null}), true),
            (json!({"address": account(1)}), true),
            (json!({"address": account(1).to_uppercase().replacen("0X", "0x", 1)}), true),
            (json!({"address": [account(2), account(1)]}), true),
            (json!({"address": [account(2), account(3)]}), false),
            (json!({"address": account(2)}), false),
            (json!({"address": []}), true),
            (json!({"topics": []}), true),
            (json!({"topics": [a]}), true),
            (json!({"topics": [b]}), false),
            (json!({"topics": [null, b]}), true),
            (json!({"topics": [null, a]}), false),
            (json!({"topics": [[c, a], [b]]}), true),
            (json!({"topics": [[c, a], [c]]}), false),
            (json!({"topics": [[c, null]]}), true),
            (json!({"topics": [[], []]}), true),
            // Go-ethereum wants as many topics as the filter lists, even if they are null.
            (json!({"topics": [a, b, null]}), false),
            (json!({"topics": [null, null, null, null]}), false),
            (json!({"address": account(2), "topics": [a]}), false),
            (json!({"address": account(1), "topics": [a, b], "fromBlock": "latest", "toBlock": "latest"}), true),
            (json!({"anything": "else"}), true),
        ];
        let log = log(1, &[1, 2]);
        for (filter, expected) in cases {
            let filter = read(&filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert_eq!(filter.matches(&log, 5), expected, "{filter:?}");
            if expected {
                assert!(filter.may_match(5, Some(&bloom(std::slice::from_ref(&log)))), "{filter:?}");
            }
        }
    }

    #[test]
    fn a_range_of_blocks_is_held_to() {
        let cases = [
            (json!({"fromBlock": "0x5"}), [false, true, true, true]),
            (json!({"fromBlock": "0x5", "toBlock": "latest"}), [false, true, true, true]),
            (json!({"fromBlock": "0x5", "toBlock": "0x6"}), [false, true, true, false]),
            (json!({"fromBlock": "earliest", "toBlock": "0x5"}), [true, true, false, false]),
        ];
        for (filter, expected) in cases {
            let filter = read(&filter).unwrap();
            assert_eq!([4, 5, 6, 7].map(|number| filter.matches(&log(1, &[]), number)), expected, "{filter:?}");
            assert_eq!([4, 5, 6, 7].map(|number| filter.may_match(number, None)), expected, "{filter:?}");
        }
    }

    #[test]
    fn a_bloom_rules_out_what_it_does_not_have() {
        let bloom = bloom(&[log(1, &[1, 2]), log(2, &[])]);
        let cases = [
            (json!({}), true),
            (json!({"address": account(2)}), true),
            (json!({"address": account(7)}), false),
            (json!({"address": [account(7), account(1)]}), true),
            (json!({"topics": [[word(7), word(8)]]}), false),
            (json!({"topics": [null, [word(7), word(2)]]}), true),
            (json!({"address": account(2), "topics": [word(1), word(7)]}), false),
        ];
        for (filter, expected) in cases {
            let filter = read(&filter).unwrap();
            assert_eq!(filter.may_match(1, Some(&bloom)), expected, "{filter:?}");
            assert!(filter.may_match(1, None));
            assert!(!filter.may_match(1, Some(&Bloom::ZERO)));
        }
    }

    #[test]
    fn filters_that_want_the_same_are_equal() {
        let one = read(&json!({"address": [account(2), account(1), account(2)], "topics": [[word(2), word(1)]]}));
        let other = read(&json!({"topics": [[word(1), word(2)]], "address": [account(1), account(2)], "x": 1}));
        assert_eq!(one, other);
    }

    #[test]
    fn filters_of_all_subscribers_join_into_one_question() {
        let (a, b) = (json!(account(1)), json!(account(2)));
        let (x, y) = (json!(word(1)), json!(word(2)));
        for (filters, expected) in [
            (vec![json!({"address": a})], json!({"address": [a]})),
            (vec![json!({"address": a}), json!({"address": [b, a], "topics": [x]})], json!({"address": [a, b]})),
            (vec![json!({"topics": [x]}), json!({"topics": [[y, x], y]})], json!({"topics": [[x, y]]})),
            (vec![json!({"topics": [null, x], "address": b})], json!({"address": [b], "topics": [null, [x]]})),
            (vec![json!({"topics": [x]}), json!({"address": a})], json!({})),
            (vec![json!({"address": a}), json!({})], json!({})),
            (vec![json!({"topics": [x, null, null]})], json!({"topics": [[x]]})),
        ] {
            let read: Vec<Filter> = filters.iter().map(|filter| read(filter).unwrap()).collect();
            let union = union(read.iter()).map_or("{}".to_owned(), |text| format!("{{{}}}", &text[1..]));
            assert_eq!(serde_json::from_str::<Value>(&union).unwrap(), expected, "{filters:?}");
        }
        let many: Vec<String> = (0..=UNION).map(|n| format!("0x{n:040x}")).collect();
        assert_eq!(union([read(&json!({"address": many})).unwrap()].iter()), None);
        assert_eq!(union([].iter()), None);
    }
}
