//! The blocks that a call needs, and which of their data: a node that lacks these cannot answer.
//!
//! The [method table](super::method) says where a method's params name a block. The reader here
//! builds no tree and allocates nothing. A form that the reader does not know is no error: then the
//! call needs blocks that nothing is known of, and goes where any call goes.

use super::{
    hex,
    json::{Malformed, Scanner, Str},
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

/// An end of a range, as a call names the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Number(u64),
    /// A tag that moves with the chain.
    Moving,
    Earliest,
    Hash,
}

impl AskedBlocks {
    /// Reads the blocks that `request` needs, where its method `asks` for some. `None` where none
    /// is named, where the newest is, and where the params have another form.
    pub fn of(asks: Option<Asks>, request: &Request<'_>) -> Option<Self> {
        let Asks { data, place } = asks?;
        let named = match place {
            // Most calls are about the newest block, and say so at the end.
            Place::Block(1..) if request.params?.ends_with(b"\"latest\"]") => return None,
            Place::Block(index) => Named::one(End::read(&mut request.before_param(index)?)?)?,
            Place::Filter(index) => Named::in_filter(&mut request.before_param(index)?)?,
            Place::Fees => Named::of_fees(request)?,
            Place::Transaction => {
                let end = End::read(&mut request.before_param(0)?)?;
                (end == End::Hash).then_some(Named::TransactionHash)?
            }
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
    fn in_filter(scanner: &mut Scanner<'_>) -> Option<Self> {
        let (mut from, mut to, mut hash) = (None, None, None);
        members(scanner, |key, scanner| {
            let slot = match key {
                b"fromBlock" => &mut from,
                b"toBlock" => &mut to,
                b"blockHash" => &mut hash,
                _ => return scanner.value().is_ok().then_some(()),
            };
            slot.replace(End::read(scanner)?).is_none().then_some(())
        })?;
        match (from, to, hash) {
            (None, None, Some(End::Hash)) => Some(Self::BlockHash),
            (from, to, None) => Self::range(from.unwrap_or(End::Moving), to.unwrap_or(End::Moving)),
            _ => None,
        }
    }

    fn of_fees(request: &Request<'_>) -> Option<Self> {
        let End::Number(newest) = End::read(&mut request.before_param(1)?)? else { return None };
        let oldest = count(request.param(0)?).map(|count| (newest + 1).saturating_sub(count.max(1)));
        Some(Self::Range { oldest, newest: Some(newest) })
    }
}

impl End {
    /// Reads a number, a tag, a hash, or an object of EIP-1898 with one of these.
    fn read(scanner: &mut Scanner<'_>) -> Option<Self> {
        match scanner.peek()? {
            b'"' => Self::of_text(plain(scanner.string())?),
            b'n' => scanner.value().is_ok().then_some(Self::Moving),
            b'{' => {
                let mut end = None;
                members(scanner, |key, scanner| match key {
                    b"blockNumber" | b"blockHash" => {
                        let inner = Self::of_text(plain(scanner.string())?)?;
                        let is_hash = key == b"blockHash";
                        (is_hash == (inner == Self::Hash) && end.replace(inner).is_none()).then_some(())
                    }
                    _ => scanner.value().is_ok().then_some(()),
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
            // No chain is so high, and sums must not overflow.
            _ => hex::quantity(text).filter(|number| *number < u64::MAX).map(Self::Number),
        }
    }
}

/// A count of blocks: a quantity, or a JSON number.
fn count(value: &[u8]) -> Option<u64> {
    match value.first()? {
        b'"' => hex::quantity(plain(Scanner::new(value).string())?),
        _ => std::str::from_utf8(value).ok()?.parse().ok(),
    }
}

/// The inside of a string without escapes.
fn plain(string: Result<Str<'_>, Malformed>) -> Option<&[u8]> {
    string.ok().filter(|string| !string.escaped).map(|string| string.raw)
}

/// Passes the key of each member of an object to `take`, which reads the value, until `take`
/// returns `None`.
fn members<'a>(
    scanner: &mut Scanner<'a>,
    mut take: impl FnMut(&'a [u8], &mut Scanner<'a>) -> Option<()>,
) -> Option<()> {
    scanner.take(b'{').then_some(())?;
    let mut first = true;
    while let Some(key) = scanner.member(first).ok()? {
        first = false;
        // A key with an escape might be one that is looked for.
        (!key.escaped).then_some(())?;
        take(key.raw, scanner)?;
    }
    Some(())
}

#[cfg(test)]
mod tests;
