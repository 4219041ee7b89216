//! Reads filter objects of the execution API, and says what is wrong with them: in go-ethereum's
//! words, behind the name of the member, but for values of another type and for what is beyond a
//! bound of the proxy's own (decision 0007).

use std::fmt;

use alloy_primitives::{Address, B256};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Any, Filter, MAX_CONDITIONS, POSITIONS};
use crate::{
    domain::bloom::Bits,
    view::params::{self, Text},
};

/// The members of a filter object that count. Null is as good as none.
#[derive(Default)]
struct Members<'a> {
    address: Option<&'a RawValue>,
    topics: Option<&'a RawValue>,
    from_block: Option<&'a RawValue>,
    to_block: Option<&'a RawValue>,
    block_hash: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a filter object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                while let Some(Text(name)) = object.next_key()? {
                    // Go-ethereum takes names in any case, and the last of two members.
                    let member = match &*name.to_ascii_lowercase() {
                        "address" => &mut members.address,
                        "topics" => &mut members.topics,
                        "fromblock" => &mut members.from_block,
                        "toblock" => &mut members.to_block,
                        "blockhash" => &mut members.block_hash,
                        _ => {
                            object.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = Some(object.next_value()?).filter(|json: &&RawValue| json.get() != "null");
                }
                Ok(members)
            }
        }

        json.deserialize_map(Object)
    }
}

/// A block, as a bound of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Number(u64),
    Earliest,
    Latest,
    Pending,
    Safe,
    Finalized,
}

impl Bound {
    fn read(json: &RawValue) -> Result<Self, String> {
        let Some(text) = text(json) else {
            return Err(format!("expected a block number in hexadecimal or a block's name, not {}", kind(json)));
        };
        Ok(match &*text {
            "earliest" => Self::Earliest,
            "latest" => Self::Latest,
            "pending" => Self::Pending,
            "safe" => Self::Safe,
            "finalized" => Self::Finalized,
            text => Self::Number(params::quantity(text)?),
        })
    }

    /// The height; `None` is the latest block.
    fn height(self) -> Result<Option<u64>, String> {
        match self {
            Self::Number(number) => Ok(Some(number)),
            Self::Earliest => Ok(Some(0)),
            Self::Latest => Ok(None),
            Self::Pending => Err("pending logs are not supported".to_owned()),
            Self::Safe | Self::Finalized => Err("invalid block range params".to_owned()),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:#x}"),
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Pending => f.write_str("pending"),
            Self::Safe => f.write_str("safe"),
            Self::Finalized => f.write_str("finalized"),
        }
    }
}

/// A filter object whose members are each in order.
struct Asked {
    addresses: Any<Address>,
    topics: Vec<Any<B256>>,
    from: Option<Bound>,
    to: Option<Bound>,
    block: Option<B256>,
}

impl Asked {
    /// Null wants everything.
    fn read(json: &str) -> Result<Self, String> {
        let json = if json == "null" { "{}" } else { json };
        const BOTH: &str = "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other";
        let members: Members<'_> =
            serde_json::from_str(json).map_err(|_| format!("expected a filter object, not {}", params::kind(json)))?;
        let bound = |name: &str, json: Option<&RawValue>| {
            json.map(Bound::read).transpose().map_err(|why| format!("{name}: {why}"))
        };
        let block = members.block_hash.map(|json| {
            let text = text(json).ok_or_else(|| format!("expected a hash, not {}", kind(json)))?;
            params::bytes(&text, "hash")
        });
        let block = block.transpose().map_err(|why| format!("blockHash: {why}"))?;
        let (from, to) = (bound("fromBlock", members.from_block)?, bound("toBlock", members.to_block)?);
        if block.is_some() && (from.is_some() || to.is_some()) {
            return Err(BOTH.to_owned());
        }
        let addresses = members.address.map_or_else(|| Ok(Any::open()), addresses)?;
        let topics = members.topics.map_or_else(|| Ok(Vec::new()), topics)?;
        Ok(Self { addresses, topics, from, to, block })
    }

    /// The members of a filter object that say which blocks its past logs are of.
    fn range(&self) -> Box<str> {
        let mut range: Vec<String> = self.block.map(|hash| format!(r#""blockHash":"{hash}""#)).into_iter().collect();
        for (name, bound) in [("fromBlock", self.from), ("toBlock", self.to)] {
            range.extend(bound.map(|bound| format!(r#""{name}":"{bound}""#)));
        }
        range.join(",").into()
    }

    fn filter(self) -> Result<Filter, String> {
        let height = |bound: Option<Bound>| bound.map_or(Ok(None), Bound::height);
        // All blocks from now on, or a part of them.
        let (from, to) = match (height(self.from)?, height(self.to)?) {
            (from, None) => (from.unwrap_or(0), u64::MAX),
            (Some(from), Some(to)) if from <= to => (from, to),
            _ => return Err("invalid block range params".to_owned()),
        };
        if self.topics.len() > POSITIONS {
            return Err("exceed max topics".to_owned());
        }
        let Self { addresses, topics, .. } = self;
        let size = addresses.0.len() + topics.iter().map(|any| any.0.len()).sum::<usize>();
        if size > MAX_CONDITIONS {
            return Err(format!("exceed max addresses or topics: {MAX_CONDITIONS} in one filter"));
        }
        Ok(Filter { addresses, topics, from, to })
    }
}

impl Filter {
    /// Reads the filter object of a subscription, the second argument.
    ///
    /// # Errors
    /// When the filter object is malformed; the error is the message for the client.
    pub(in crate::view) fn read(json: &str) -> Result<Self, String> {
        let asked = Asked::read(json).map_err(|why| format!("invalid argument 1: {why}"))?;
        if asked.block.is_some() {
            return Err("invalid argument 1: blockHash: a subscription is to new blocks".to_owned());
        }
        asked.filter()
    }

    /// Reads the filter object of a filter that is polled, the first argument. Returns also the
    /// members that name the blocks of its past logs.
    ///
    /// # Errors
    /// When the filter object is malformed; the error is the message for the client.
    pub(in crate::view) fn read_polled(json: &str) -> Result<(Self, Box<str>), String> {
        let asked = Asked::read(json).map_err(|why| format!("invalid argument 0: {why}"))?;
        let range = asked.range();
        Ok((asked.filter()?, range))
    }
}

fn kind(json: &RawValue) -> &'static str {
    params::kind(json.get())
}

fn text(json: &RawValue) -> Option<String> {
    params::text(json.get())
}

fn list(json: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json.get()).ok()
}

fn addresses(json: &RawValue) -> Result<Any<Address>, String> {
    let read = |text: &str| {
        let address = params::bytes(text, "address").map(Address)?;
        Ok::<_, String>((address, Bits::of(&address[..])))
    };
    if let Some(text) = text(json) {
        return Ok(Any::of(vec![read(&text).map_err(|why| format!("invalid address: {why}"))?]));
    }
    let Some(list) = list(json) else {
        let kind = kind(json);
        return Err(format!("invalid addresses in query: expected an address or an array of addresses, not {kind}"));
    };
    // A null in the list names no account: a mistake, and not a wish for the logs of all.
    let addresses = list.into_iter().enumerate().map(|(index, json)| {
        let text = text(json).ok_or_else(|| format!("non-string address at index {index}"))?;
        read(&text).map_err(|why| format!("invalid address at index {index}: {why}"))
    });
    Ok(Any::of(addresses.collect::<Result<_, _>>()?))
}

fn topics(json: &RawValue) -> Result<Vec<Any<B256>>, String> {
    let list = list(json).ok_or_else(|| format!("topics: expected an array, not {}", kind(json)))?;
    list.into_iter().enumerate().map(|(index, json)| topic(index, json)).collect()
}

/// The topics at one position. A null among alternatives allows any value.
fn topic(position: usize, json: &RawValue) -> Result<Any<B256>, String> {
    let wrong = |place: String, json: &RawValue, expected: &str| {
        format!("invalid topic(s): {place}: expected {expected}, not {}", kind(json))
    };
    let read = |place: String, text: &str| {
        let topic = params::bytes(text, "topic").map_err(|why| format!("{place}: {why}"))?;
        Ok::<(B256, Bits), String>((topic, Bits::of(&topic[..])))
    };
    let place = format!("topics[{position}]");
    if json.get() == "null" {
        return Ok(Any::open());
    }
    if let Some(text) = text(json) {
        return Ok(Any::of(vec![read(place, &text)?]));
    }
    let Some(list) = list(json) else { return Err(wrong(place, json, "a topic, an array of topics, or null")) };
    let mut topics = Vec::with_capacity(list.len());
    for (index, json) in list.into_iter().enumerate() {
        let place = format!("{place}[{index}]");
        match text(json) {
            Some(text) => topics.push(read(place, &text)?),
            None if json.get() == "null" => return Ok(Any::open()),
            None => return Err(wrong(place, json, "a topic or null")),
        }
    }
    Ok(Any::of(topics))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::hex;

    fn word(n: u8) -> String {
        B256::repeat_byte(n).to_string()
    }

    fn account(n: u8) -> String {
        hex::encode([n; 20])
    }

    #[test]
    fn members_in_another_case_count_and_the_last_of_two_does() {
        let read = |text: &str| Filter::read_polled(text).unwrap();
        let [one, two] = [1, 2].map(|n| read(&json!({"address": account(n)}).to_string()));
        assert_eq!(read(&json!({"ADDRESS": account(1)}).to_string()), one);
        let both = format!(r#"{{"address":"{}","Address":"{}","x":[{{}}]}}"#, account(1), account(2));
        assert_eq!(read(&both), two);
        assert_eq!(read(r#"{"fromBlock":"0xA","toBlock":null}"#).1, r#""fromBlock":"0xa""#.into());
        assert_eq!(read(r#"{"fromblock":"earliest","toBlock":"latest"}"#).1.len(), 41);
    }

    #[test]
    fn errors_name_the_place_and_the_form_that_is_expected() {
        let many: Vec<String> = (0..=MAX_CONDITIONS).map(|n| format!("0x{n:040x}")).collect();
        let short = "hex has invalid length 20 after decoding; expected 32 for topic";
        let range = "invalid block range params";
        for (filter, expected) in [
            (json!(1), "expected a filter object, not a number"),
            (json!([]), "expected a filter object, not an array"),
            (json!("x"), "expected a filter object, not a string"),
            (json!(false), "expected a filter object, not a boolean"),
            (
                json!({"address": 1}),
                "invalid addresses in query: expected an address or an array of addresses, not a number",
            ),
            (json!({"address": ""}), "invalid address: empty hex string"),
            (json!({"address": "\u{fffd}"}), "invalid address: hex string without 0x prefix"),
            (json!({"address": "0x1"}), "invalid address: hex string of odd length"),
            (
                json!({"address": word(1)}),
                "invalid address: hex has invalid length 32 after decoding; expected 20 for address",
            ),
            (json!({"address": [account(1), 1]}), "non-string address at index 1"),
            (json!({"address": [account(1), null]}), "non-string address at index 1"),
            (json!({"address": [account(1), "12"]}), "invalid address at index 1: hex string without 0x prefix"),
            (json!({"topics": word(1)}), "topics: expected an array, not a string"),
            (json!({"topics": [null, account(1)]}), &format!("topics[1]: {short}")),
            (json!({"topics": [[word(1), "0xzz"]]}), "topics[0][1]: invalid hex string"),
            (
                json!({"topics": [true]}),
                "invalid topic(s): topics[0]: expected a topic, an array of topics, or null, not a boolean",
            ),
            (
                json!({"topics": [[[word(1)]]]}),
                "invalid topic(s): topics[0][0]: expected a topic or null, not an array",
            ),
            (json!({"blockHash": "0x11"}), "blockHash: hex has invalid length 1 after decoding; expected 32 for hash"),
            (json!({"blockHash": 7}), "blockHash: expected a hash, not a number"),
            (
                json!({"blockHash": word(1), "toBlock": "latest"}),
                "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other",
            ),
            (json!({"fromBlock": "0x05"}), "fromBlock: hex number with leading zero digits"),
            (json!({"toBlock": "0x00"}), "toBlock: hex number with leading zero digits"),
            (json!({"fromBlock": "5"}), "fromBlock: hex string without 0x prefix"),
            (json!({"fromBlock": "Latest"}), "fromBlock: hex string without 0x prefix"),
            (json!({"fromBlock": ""}), "fromBlock: empty hex string"),
            (json!({"toBlock": 5}), "toBlock: expected a block number in hexadecimal or a block's name, not a number"),
        ] {
            let expected = format!("invalid argument 0: {expected}");
            assert_eq!(Filter::read_polled(&filter.to_string()).unwrap_err(), expected, "{filter}");
        }
        for (filter, expected) in [
            (json!({"address": many}), "exceed max addresses or topics: 10000 in one filter"),
            (json!({"topics": [null, null, null, null, null]}), "exceed max topics"),
            (json!({"fromBlock": "pending"}), "pending logs are not supported"),
            (json!({"toBlock": "pending"}), "pending logs are not supported"),
            (json!({"fromBlock": "finalized"}), range),
            (json!({"fromBlock": "safe"}), range),
            (json!({"fromBlock": "0x5", "toBlock": "0x4"}), range),
            (json!({"fromBlock": "latest", "toBlock": "0x4"}), range),
            (json!({"toBlock": "0x4"}), range),
        ] {
            let filter: Value = filter;
            let refused =
                [Filter::read_polled(&filter.to_string()).map(drop), Filter::read(&filter.to_string()).map(drop)];
            assert_eq!(refused, [Err(expected.to_owned()), Err(expected.to_owned())], "{filter}");
        }
    }

    #[test]
    fn a_subscriptions_filter_is_the_second_argument() {
        let refused = |filter: Value| Filter::read(&filter.to_string()).unwrap_err();
        let expected = "invalid argument 1: blockHash: a subscription is to new blocks";
        assert_eq!(refused(json!({"blockHash": word(1)})), expected);
        assert_eq!(refused(json!([])), "invalid argument 1: expected a filter object, not an array");
        assert_eq!(Filter::read("null"), Filter::read("{}"));
        assert_eq!(Filter::read_polled("null"), Filter::read_polled("{}"));
    }

    #[test]
    fn half_a_surrogate_pair_is_a_text_like_another() {
        let refused = |text: &str| Filter::read_polled(text).unwrap_err();
        for (member, expected) in [
            ("address", "invalid address: hex string without 0x prefix"),
            ("topics", "topics: expected an array, not a string"),
            ("fromBlock", "fromBlock: hex string without 0x prefix"),
            ("blockHash", "blockHash: hex string without 0x prefix"),
        ] {
            let expected = format!("invalid argument 0: {expected}");
            assert_eq!(refused(&format!(r#"{{"{member}":"\ud800"}}"#)), expected);
        }
        assert_eq!(Filter::read_polled(r#"{"\ud800":1}"#), Filter::read_polled("{}"));
    }
}
