//! The blocks that a call needs, and which of their data: a node that lacks these cannot answer.
//!
//! The [method table](super::method) says where a method's params name a block. The reader here
//! builds no tree and allocates nothing. A form that the reader does not know is no error: then the
//! call needs blocks that nothing is known of, and goes where any call goes.

use super::{
    hex,
    json::{Scanner, Str},
    rpc::Request,
};

/// The kinds of data that nodes keep for different lengths of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Data {
    /// Headers and bodies.
    Blocks,
    /// States, and values that are computed from them.
    State,
    /// Receipts and logs.
    Receipts,
    /// Traces.
    Traces,
}

impl Data {
    /// The number of kinds.
    pub const COUNT: usize = 4;
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Blocks, Self::State, Self::Receipts, Self::Traces];

    /// The kind's name in `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::State => "state",
            Self::Receipts => "receipts",
            Self::Traces => "traces",
        }
    }
}

/// A row of the method table: the data that a method needs, and where its params name the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asks {
    /// The data.
    pub data: Data,
    /// The place.
    pub place: Place,
}

/// Where params name blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The param of this index is a number, a tag, a hash, or an object of EIP-1898.
    Block(usize),
    /// The param of this index is a filter with `fromBlock` and `toBlock`, or with `blockHash`.
    Filter(usize),
    /// The first param is how many blocks, and the second the newest of them.
    Fees,
    /// The first param is a transaction's hash.
    Transaction,
}

/// The blocks that a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedBlocks {
    /// Which of their data.
    pub data: Data,
    /// Which blocks.
    pub named: Named,
}

/// Blocks as a call names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The block of this height.
    Number(u64),
    /// From one height to another. An end without a height is a tag that moves, like `latest`.
    Range {
        /// The lowest height.
        oldest: Option<u64>,
        /// The greatest height.
        newest: Option<u64>,
    },
    /// The oldest block that the node has.
    Earliest,
    /// A block by its hash.
    BlockHash,
    /// The block that has a transaction, by the transaction's hash.
    TransactionHash,
}

/// One end of a range, as a call names the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Number(u64),
    /// A tag that moves with the chain.
    Moving,
    Earliest,
    Hash,
}

impl AskedBlocks {
    /// Reads the blocks that `request` needs, where its method `asks` for some. `None` where none is
    /// named, where the newest is, and where the params have another form.
    pub fn of(asks: Option<Asks>, request: &Request<'_>) -> Option<Self> {
        let Asks { data, place } = asks?;
        let named = match place {
            Place::Block(index) => Named::one(End::read(request.param(index)?)?)?,
            Place::Filter(index) => Named::in_filter(request.param(index)?)?,
            Place::Fees => Named::of_fees(request)?,
            Place::Transaction => (End::read(request.param(0)?)? == End::Hash).then_some(Named::TransactionHash)?,
        };
        Some(Self { data, named })
    }

    /// The lowest height that the call needs, if known. `earliest` counts as 0: a call for the
    /// oldest block is meant for a node that has all.
    pub fn oldest(&self) -> Option<u64> {
        match self.named {
            Named::Number(number) => Some(number),
            Named::Range { oldest, .. } => oldest,
            Named::Earliest => Some(0),
            Named::BlockHash | Named::TransactionHash => None,
        }
    }

    /// The greatest height that the call needs, if known.
    pub fn newest(&self) -> Option<u64> {
        match self.named {
            Named::Number(number) => Some(number),
            Named::Range { newest, .. } => newest,
            Named::Earliest | Named::BlockHash | Named::TransactionHash => None,
        }
    }

    /// Whether only a hash names the block.
    pub fn is_by_hash(&self) -> bool {
        matches!(self.named, Named::BlockHash | Named::TransactionHash)
    }

    /// The height of the only block that the call needs, which a good answer shows to be there.
    pub fn single(&self) -> Option<u64> {
        match self.named {
            Named::Number(number) => Some(number),
            Named::Range { oldest, newest } => oldest.filter(|_| oldest == newest),
            _ => None,
        }
    }
}

impl Named {
    fn one(end: End) -> Option<Self> {
        match end {
            End::Number(number) => Some(Self::Number(number)),
            End::Earliest => Some(Self::Earliest),
            End::Hash => Some(Self::BlockHash),
            End::Moving => None,
        }
    }

    fn range(from: End, to: End) -> Option<Self> {
        let oldest = match from {
            End::Number(number) => Some(number),
            End::Earliest => Some(0),
            End::Moving => None,
            End::Hash => return None,
        };
        let newest = match to {
            End::Number(number) => Some(number),
            End::Earliest | End::Moving => None,
            End::Hash => return None,
        };
        if let (Some(oldest), Some(newest)) = (oldest, newest)
            && oldest > newest
        {
            return None;
        }
        (oldest.is_some() || newest.is_some()).then_some(Self::Range { oldest, newest })
    }

    /// The blocks of a filter. A key that stands twice makes the filter one that is not known.
    fn in_filter(text: &[u8]) -> Option<Self> {
        let (mut from, mut to, mut hash) = (None, None, None);
        members(text, |key, value| {
            let slot = match key {
                b"fromBlock" => &mut from,
                b"toBlock" => &mut to,
                b"blockHash" => &mut hash,
                _ => return Some(()),
            };
            slot.replace(End::read(value)?).is_none().then_some(())
        })?;
        match (from, to, hash) {
            (None, None, Some(End::Hash)) => Some(Self::BlockHash),
            (from, to, None) => Self::range(from.unwrap_or(End::Moving), to.unwrap_or(End::Moving)),
            _ => None,
        }
    }

    fn of_fees(request: &Request<'_>) -> Option<Self> {
        let End::Number(newest) = End::read(request.param(1)?)? else { return None };
        let oldest = count(request.param(0)?).map(|count| (newest + 1).saturating_sub(count.max(1)));
        Some(Self::Range { oldest, newest: Some(newest) })
    }
}

impl End {
    /// Reads a number, a tag, a hash, or an object of EIP-1898 with one of these.
    fn read(value: &[u8]) -> Option<Self> {
        match value.first()? {
            b'"' => Self::of_text(string(value)?),
            b'n' => Some(Self::Moving),
            b'{' => {
                let mut end = None;
                members(value, |key, value| match key {
                    b"blockNumber" | b"blockHash" => {
                        let inner = Self::of_text(string(value)?)?;
                        let is_hash = key == b"blockHash";
                        (is_hash == (inner == Self::Hash) && end.replace(inner).is_none()).then_some(())
                    }
                    _ => Some(()),
                })?;
                end
            }
            _ => None,
        }
    }

    fn of_text(text: &[u8]) -> Option<Self> {
        const HASH: usize = 2 + 64;
        match text {
            b"latest" | b"pending" | b"safe" | b"finalized" => Some(Self::Moving),
            b"earliest" => Some(Self::Earliest),
            [b'0', b'x', digits @ ..] if text.len() == HASH => {
                digits.iter().all(u8::is_ascii_hexdigit).then_some(Self::Hash)
            }
            // No chain has a block of such a height, and sums must not overflow.
            _ => hex::quantity(text).filter(|number| *number < u64::MAX).map(Self::Number),
        }
    }
}

/// A count of blocks: a quantity, or a JSON number.
fn count(value: &[u8]) -> Option<u64> {
    match value.first()? {
        b'"' => hex::quantity(string(value)?),
        _ => std::str::from_utf8(value).ok()?.parse().ok(),
    }
}

/// The inside of a string without escapes.
fn string(value: &[u8]) -> Option<&[u8]> {
    let Str { raw, escaped } = Scanner::new(value).string().ok()?;
    (!escaped).then_some(raw)
}

/// Passes the members of an object to `take`, key and value, until `take` returns `None`.
fn members<'a>(text: &'a [u8], mut take: impl FnMut(&'a [u8], &'a [u8]) -> Option<()>) -> Option<()> {
    let mut scanner = Scanner::new(text);
    scanner.take(b'{').then_some(())?;
    let mut first = true;
    while let Some(key) = scanner.member(first).ok()? {
        first = false;
        let value = scanner.value().ok()?;
        // A key with an escape might be one that is looked for.
        (!key.escaped).then_some(())?;
        take(key.raw, value)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{
        super::{
            method::Method,
            rpc::{Body, peek},
        },
        *,
    };

    const HASH: &str = "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn asked(method: &str, params: &str) -> Option<AskedBlocks> {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let Ok(Body::Single(Ok(request))) = peek(text.as_bytes(), 1) else { panic!("{text}") };
        AskedBlocks::of(Method::of(method).asks, &request)
    }

    fn range(oldest: impl Into<Option<u64>>, newest: impl Into<Option<u64>>) -> Named {
        Named::Range { oldest: oldest.into(), newest: newest.into() }
    }

    #[test]
    fn each_method_names_its_block_at_its_place() {
        use Data::{Blocks, Receipts, State, Traces};
        for (method, before, data) in [
            ("debug_getRawBlock", "", Blocks),
            ("debug_getRawHeader", "", Blocks),
            ("debug_getRawReceipts", "", Receipts),
            ("debug_traceBlockByNumber", "", Traces),
            ("debug_traceCall", "{},", Traces),
            ("eth_call", r#"{"to":"0x","data":"0x00ff"},"#, State),
            ("eth_callMany", "[{}],", State),
            ("eth_createAccessList", "{},", State),
            ("eth_estimateGas", "{},", State),
            ("eth_getBalance", r#""0xdead","#, State),
            ("eth_getBlockByNumber", "", Blocks),
            ("eth_getBlockReceipts", "", Receipts),
            ("eth_getBlockTransactionCountByNumber", "", Blocks),
            ("eth_getCode", r#""0xdead","#, State),
            ("eth_getHeaderByNumber", "", Blocks),
            ("eth_getProof", r#""0xdead",[],"#, State),
            ("eth_getStorageAt", r#""0xdead","0x0","#, State),
            ("eth_getStorageValues", "{},", State),
            ("eth_getTransactionByBlockNumberAndIndex", "", Blocks),
            ("eth_getTransactionCount", r#""0xdead","#, State),
            ("eth_getUncleByBlockNumberAndIndex", "", Blocks),
            ("eth_getUncleCountByBlockNumber", "", Blocks),
            ("eth_simulateV1", "{},", State),
            ("trace_block", "", Traces),
            ("trace_call", r#"{},["trace"],"#, Traces),
            ("trace_callMany", "[],", Traces),
            ("trace_replayBlockTransactions", "", Traces),
        ] {
            for (block, named) in [
                (r#""0x1b4""#.to_owned(), Some(Named::Number(0x1b4))),
                (r#"{"blockNumber":"0x1b4"}"#.to_owned(), Some(Named::Number(0x1b4))),
                (r#""earliest""#.to_owned(), Some(Named::Earliest)),
                (format!("\"{HASH}\""), Some(Named::BlockHash)),
                (format!(r#"{{"requireCanonical":true,"blockHash":"{HASH}"}}"#), Some(Named::BlockHash)),
                (r#""latest""#.to_owned(), None),
                (r#""finalized""#.to_owned(), None),
            ] {
                let expected = named.map(|named| AskedBlocks { data, named });
                assert_eq!(asked(method, &format!("[{before} {block} , true]")), expected, "{method} {block}");
            }
            assert_eq!(asked(method, &format!("[{}]", before.trim_end_matches(','))), None, "{method}");
        }
    }

    #[test]
    fn hashes_name_blocks_and_transactions() {
        for (method, named) in [
            ("eth_getBlockByHash", Named::BlockHash),
            ("debug_traceBlockByHash", Named::BlockHash),
            ("debug_storageRangeAt", Named::BlockHash),
            ("eth_getTransactionByBlockHashAndIndex", Named::BlockHash),
            ("eth_getTransactionByHash", Named::TransactionHash),
            ("eth_getTransactionReceipt", Named::TransactionHash),
            ("debug_getRawTransaction", Named::TransactionHash),
            ("debug_traceTransaction", Named::TransactionHash),
            ("trace_transaction", Named::TransactionHash),
            ("trace_get", Named::TransactionHash),
        ] {
            assert_eq!(asked(method, &format!(r#"["{HASH}",{{}}]"#)).map(|asked| asked.named), Some(named), "{method}");
        }
        assert_eq!(asked("eth_getTransactionReceipt", r#"["0x1"]"#), None);
        assert_eq!(asked("eth_chainId", r#"["0x1"]"#), None);
    }

    #[test]
    fn filters_name_ranges() {
        for (filter, named) in [
            (json!({"fromBlock": "0x1", "toBlock": "0x5"}), Some(range(1, 5))),
            (json!({"toBlock": "0x5", "address": [HASH], "fromBlock": "0x5"}), Some(range(5, 5))),
            (json!({"fromBlock": "0x1"}), Some(range(1, None))),
            (json!({"fromBlock": "0x1", "toBlock": null}), Some(range(1, None))),
            (json!({"fromBlock": "0x1", "toBlock": "latest"}), Some(range(1, None))),
            (json!({"fromBlock": "earliest", "toBlock": "0x5"}), Some(range(0, 5))),
            (json!({"toBlock": "0x5"}), Some(range(None, 5))),
            (json!({"blockHash": HASH}), Some(Named::BlockHash)),
            (json!({"fromBlock": "0x5", "toBlock": "0x1"}), None),
            (json!({"fromBlock": "latest", "toBlock": "latest"}), None),
            (json!({"blockHash": HASH, "fromBlock": "0x1"}), None),
            (json!({"fromBlock": 1}), None),
            (json!({}), None),
        ] {
            for method in ["eth_getLogs", "trace_filter"] {
                assert_eq!(asked(method, &json!([filter]).to_string()).map(|asked| asked.named), named, "{filter}");
            }
        }
        assert_eq!(asked("eth_getLogs", r#"[{"fromBlock":"0x1","fromBlock":"0x2"}]"#), None);
        assert_eq!(asked("eth_getLogs", r#"[{"from\u0042lock":"0x1"}]"#), None);
    }

    #[test]
    fn fees_are_asked_of_the_blocks_below() {
        for (params, named) in [
            (r#"["0x4","0xa",[]]"#, Some(range(7, 10))),
            (r#"[4,"0xa"]"#, Some(range(7, 10))),
            (r#"["0x400","0xa"]"#, Some(range(0, 10))),
            (r#"["0x0","0xa"]"#, Some(range(10, 10))),
            (r#"["x","0xa"]"#, Some(range(None, 10))),
            (r#"["0x4","latest"]"#, None),
            (r#"["0x4"]"#, None),
        ] {
            assert_eq!(asked("eth_feeHistory", params).map(|asked| asked.named), named, "{params}");
        }
    }

    #[test]
    fn odd_forms_name_no_block() {
        for params in [
            r#"["0xdead",5]"#,
            r#"["0xdead","5"]"#,
            r#"["0xdead","0x"]"#,
            r#"["0xdead","0x1\u0031"]"#,
            r#"["0xdead","0xffffffffffffffff"]"#,
            r#"["0xdead","0x10000000000000000"]"#,
            r#"["0xdead",{}]"#,
            r#"["0xdead",{"blockNumber":5}]"#,
            r#"["0xdead",{"blockNumber":"0x5","blockNumber":"0x6"}]"#,
            r#"["0xdead",["0x5"]]"#,
            r#"["0xdead",null]"#,
            r#"{"address":"0xdead","block":"0x5"}"#,
            "[]",
            "null",
        ] {
            assert_eq!(asked("eth_getBalance", params), None, "{params}");
        }
        let both = format!(r#"["0xdead",{{"blockNumber":"0x5","blockHash":"{HASH}"}}]"#);
        assert_eq!(asked("eth_getBalance", &both), None);
    }

    #[test]
    fn a_good_answer_shows_a_single_block() {
        let single = |method, params: &str| asked(method, params).and_then(|asked| asked.single());
        assert_eq!(single("eth_getBalance", r#"["0xdead","0x5"]"#), Some(5));
        assert_eq!(single("eth_getBalance", r#"["0xdead","earliest"]"#), None);
        assert_eq!(single("eth_getLogs", r#"[{"fromBlock":"0x5","toBlock":"0x5"}]"#), Some(5));
        assert_eq!(single("eth_getLogs", r#"[{"fromBlock":"0x5","toBlock":"0x6"}]"#), None);
        assert_eq!(single("eth_getLogs", r#"[{"fromBlock":"0x5"}]"#), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            Just("latest".to_owned()),
            Just("earliest".to_owned()),
            Just(HASH.to_owned()),
            any::<u64>().prop_map(|number| format!("0x{number:x}")),
            ".{0,6}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        let key = prop_oneof![Just("fromBlock"), Just("toBlock"), Just("blockHash"), Just("blockNumber"), Just("a")];
        leaf.prop_recursive(3, 12, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..4)
                    .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ]
        })
    }

    /// Reads a param by a tree, as a node does.
    fn by_tree(param: &Value) -> Option<Named> {
        let text = |value: &Value| match value.as_str()? {
            "earliest" => Some(Named::Earliest),
            HASH => Some(Named::BlockHash),
            text => hex::quantity(text).filter(|number| *number < u64::MAX).map(Named::Number),
        };
        match param {
            Value::Object(map) => match (map.get("blockNumber"), map.get("blockHash")) {
                (Some(number), None) => text(number).filter(|named| *named != Named::BlockHash),
                (None, Some(hash)) => text(hash).filter(|named| *named == Named::BlockHash),
                _ => None,
            },
            param => text(param),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_block_is_read_as_a_tree_would_read_it(before in any_json(), param in any_json(), after in any_json()) {
            let params = json!([before, param, after]).to_string();
            let named = asked("eth_getBalance", &params).map(|asked| asked.named);
            prop_assert_eq!(named, by_tree(&param), "{}", params);
        }

        #[test]
        fn no_params_are_an_error(params in proptest::collection::vec(any_json(), 0..4)) {
            let params = Value::from(params).to_string();
            for method in ["eth_getLogs", "trace_filter", "eth_feeHistory", "eth_getProof", "eth_getTransactionReceipt"] {
                if let Some(AskedBlocks { named: Named::Range { oldest: Some(oldest), newest: Some(newest) }, .. }) =
                    asked(method, &params)
                {
                    prop_assert!(oldest <= newest);
                }
            }
        }
    }
}
