//! Which logs a subscriber wants.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::log::Log;
use crate::domain::{
    bloom::{Bits, Bloom},
    hash::Hash,
    hex,
};

/// Addresses and topics in one filter, at most.
const MOST: usize = 10_000;
/// Addresses, or topics at one position, that nodes take in one filter without complaint.
const UNION: usize = 1000;
/// Topics that a log can have.
const POSITIONS: usize = 4;

/// An account's address.
pub(in crate::view) type Address = [u8; 20];

/// The logs that a subscriber wants. Equal filters want the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::view) struct Filter {
    addresses: Any<Address>,
    /// By position. A log with fewer topics than these is not wanted.
    topics: Vec<Any<Hash>>,
    /// The first block.
    from: u64,
    /// The last block.
    to: u64,
}

/// Alternatives in order, each with its bits in a bloom filter. None of them leaves all open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Any<T>(Box<[(T, Bits)]>);

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow)]
    address: Option<&'a RawValue>,
    #[serde(borrow)]
    topics: Option<Vec<&'a RawValue>>,
    from_block: Option<String>,
    to_block: Option<String>,
    #[serde(borrow)]
    block_hash: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    /// Reads an object or null. An array of the members' values is neither.
    fn read(json: &'a str) -> Result<Option<Self>, String> {
        if json.trim_start().starts_with('[') {
            return Err("an array is no filter object".to_owned());
        }
        serde_json::from_str(json).map_err(|error| error.to_string())
    }
}

impl Filter {
    /// Reads a filter object of the execution API; null wants everything.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(in crate::view) fn read(json: &str) -> Result<Self, String> {
        let fields = Fields::read(json).map_err(|error| format!("invalid filter: {error}"))?;
        let fields = fields.unwrap_or_default();
        if fields.block_hash.is_some() {
            return Err("invalid filter: blockHash cannot be subscribed to".to_owned());
        }
        Self::of(fields)
    }

    fn of(fields: Fields<'_>) -> Result<Self, String> {
        let (from, to) = range(fields.from_block.as_deref(), fields.to_block.as_deref())?;
        let topics = fields.topics.unwrap_or_default();
        if topics.len() > POSITIONS {
            return Err("exceed max topics".to_owned());
        }
        // What names no account in a list of them is a mistake, and not a wish to hear everything.
        let has_null = |json: &&RawValue| {
            serde_json::from_str::<Vec<Option<&str>>>(json.get()).is_ok_and(|list| list.contains(&None))
        };
        if fields.address.filter(has_null).is_some() {
            return Err("invalid filter: null in a list of addresses".to_owned());
        }
        let addresses = fields.address.map_or(Some(Any::open()), |json| {
            Any::read(json, |text| {
                let address: Address = hex::bytes(text)?.try_into().ok()?;
                Some((address, Bloom::bits(&address)))
            })
        });
        let topics = topics.iter().map(|json| {
            Any::read(json, |text| {
                let topic: Hash = text.parse().ok()?;
                Some((topic, Bloom::bits(&topic.0)))
            })
        });
        let filter = Self {
            addresses: addresses.ok_or("invalid filter: address is no address, and no list of addresses")?,
            topics: topics
                .collect::<Option<_>>()
                .ok_or("invalid filter: a topic is no 32 bytes, no list, and not null")?,
            from,
            to,
        };
        let size = filter.addresses.0.len() + filter.topics.iter().map(|any| any.0.len()).sum::<usize>();
        if size > MOST {
            return Err(format!("invalid filter: more than {MOST} addresses and topics"));
        }
        Ok(filter)
    }

    /// Reads the filter object of a filter that is polled, and which blocks its past logs are of: the members of a filter object that
    /// say so.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(in crate::view) fn read_polled(json: &str) -> Result<(Self, Box<str>), String> {
        const BOTH: &str = "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other";
        let fields = Fields::read(json).map_err(|error| format!("invalid argument 0: {error}"))?;
        let fields = fields.ok_or("invalid argument 0: null is no filter")?;
        let mut range = Vec::new();
        if let Some(hash) = fields.block_hash {
            if fields.from_block.is_some() || fields.to_block.is_some() {
                return Err(format!("invalid argument 0: {BOTH}"));
            }
            let hash = serde_json::from_str::<&str>(hash.get()).ok().and_then(|text| text.parse::<Hash>().ok());
            let hash = hash.ok_or("invalid argument 0: blockHash is no hash")?;
            range.push(format!(r#""blockHash":"{hash}""#));
        }
        for (name, block) in [("fromBlock", &fields.from_block), ("toBlock", &fields.to_block)] {
            let Some(block) = block else { continue };
            let text = hex::quantity(block).map_or_else(|| block.clone(), |height| format!("{height:#x}"));
            range.push(format!(r#""{name}":"{text}""#));
        }
        // What is no block's name is refused there, before its text is used.
        let filter = Self::of(Fields { block_hash: None, ..fields })?;
        Ok((filter, range.join(",").into()))
    }

    /// The members of a filter object that wants the same of the blocks that `range` says.
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

    /// Bytes that it takes in memory.
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
                !bloom.is_empty()
                    && self.addresses.may_be_in(bloom)
                    && self.topics.iter().all(|any| any.may_be_in(bloom))
            })
    }
}

/// The narrowest filter object's `address` and `topics` that give all logs that these want, each with a comma before it. `None` when
/// it would be no narrower than none at all, or too long.
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

/// The values of all in one list. `None` when one of them leaves it open, or the list would be too long.
fn any_of<'a, T: Ord + 'a>(
    wishes: impl Iterator<Item = Option<&'a Any<T>>>,
    text: impl Fn(&T) -> String,
) -> Option<String> {
    let mut values = BTreeSet::new();
    for wish in wishes {
        let wish = wish.filter(|wish| !wish.0.is_empty())?;
        values.extend(wish.0.iter().map(|(value, _)| value));
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

    /// Reads null, one value, or a list of values. A null in the list stands for whatever, and with it the whole list does.
    fn read(json: &RawValue, read: impl Fn(&str) -> Option<(T, Bits)>) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Json {
            Null,
            One(String),
            List(Vec<Option<String>>),
        }
        let list = match serde_json::from_str(json.get()).ok()? {
            Json::Null => return Some(Self::open()),
            Json::One(text) => vec![Some(text)],
            Json::List(list) => list,
        };
        let is_open = list.contains(&None);
        let items = list.into_iter().flatten().map(|text| read(&text));
        let mut items: Vec<(T, Bits)> = items.collect::<Option<_>>()?;
        items.sort_unstable();
        items.dedup();
        Some(if is_open { Self::open() } else { Self(items.into()) })
    }

    /// What cannot be told is wanted only by those who leave it open.
    fn has(&self, item: Option<&T>) -> bool {
        self.0.is_empty() || item.is_some_and(|item| self.0.binary_search_by(|(one, _)| one.cmp(item)).is_ok())
    }

    fn may_be_in(&self, bloom: &Bloom) -> bool {
        self.0.is_empty() || self.0.iter().any(|(_, bits)| bloom.has(*bits))
    }
}

/// The blocks of a subscription: all from now on, or a part of them, as go-ethereum understands it.
fn range(from: Option<&str>, to: Option<&str>) -> Result<(u64, u64), String> {
    // `None` is the latest block.
    let height = |name: &str, text: Option<&str>| match text {
        None | Some("latest") => Ok(None),
        Some("earliest") => Ok(Some(0)),
        Some("pending") => Err("pending logs are not supported".to_owned()),
        Some("safe" | "finalized") => Err("invalid block range params".to_owned()),
        Some(text) => hex::quantity(text).map(Some).ok_or_else(|| format!("invalid filter: {name} is no block number")),
    };
    match (height("fromBlock", from)?, height("toBlock", to)?) {
        (from, None) => Ok((from.unwrap_or(0), u64::MAX)),
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => Err("invalid block range params".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn word(n: u8) -> String {
        Hash([n; 32]).to_string()
    }

    fn account(n: u8) -> String {
        hex::encode(&[n; 20])
    }

    fn read(filter: &Value) -> Result<Filter, String> {
        Filter::read(&filter.to_string())
    }

    fn log(address: u8, topics: &[u8]) -> Log {
        let topics: Vec<String> = topics.iter().map(|n| word(*n)).collect();
        let text = json!({"address": account(address), "topics": topics, "blockHash": word(9)}).to_string();
        Log::read(&text, Hash([9; 32])).unwrap()
    }

    /// The bloom filter of a block with these logs.
    fn bloom(logs: &[Log]) -> Bloom {
        let mut bloom = Bloom([0; 256]);
        for log in logs {
            let topics = log.topics.iter().flatten().map(|topic| &topic.0[..]);
            for bit in topics.chain(log.address.iter().map(|address| &address[..])).flat_map(Bloom::bits) {
                bloom.0[255 - usize::from(bit / 8)] |= 1 << (bit % 8);
            }
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
            // Go-ethereum wants as many topics as are named, be they null.
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
    fn what_is_no_filter_is_refused() {
        let many: Vec<String> = (0..=MOST).map(|n| format!("0x{n:040x}")).collect();
        for filter in [
            json!(1),
            json!([]),
            json!("x"),
            json!({"address": 1}),
            json!({"address": "0x1"}),
            json!({"address": word(1)}),
            json!({"address": [account(1), 1]}),
            json!({"address": [account(1), null]}),
            json!({"address": many}),
            json!({"topics": word(1)}),
            json!({"topics": [account(1)]}),
            json!({"topics": [[word(1), "x"]]}),
            json!({"topics": [null, null, null, null, null]}),
            json!({"blockHash": word(1)}),
            json!({"fromBlock": "5"}),
            json!({"fromBlock": ""}),
            json!({"fromBlock": "pending"}),
            json!({"toBlock": "pending"}),
            json!({"fromBlock": "finalized"}),
            json!({"fromBlock": "0x5", "toBlock": "0x4"}),
            json!({"fromBlock": "latest", "toBlock": "0x4"}),
            json!({"toBlock": "0x4"}),
        ] {
            assert!(read(&filter).is_err(), "{filter}");
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
            assert!(!filter.may_match(1, Some(&Bloom([0; 256]))));
        }
    }

    #[test]
    fn filters_that_want_the_same_are_equal() {
        let one = read(&json!({"address": [account(2), account(1), account(2)], "topics": [[word(2), word(1)]]}));
        let other = read(&json!({"topics": [[word(1), word(2)]], "address": [account(1), account(2)], "x": 1}));
        assert_eq!(one, other);
    }

    #[test]
    fn what_all_want_together_is_asked_for_in_one_filter() {
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
