//! `[compression]`: how answers are compressed for the clients that ask.

use super::{problem::Invalid, reader::Reader};

const KIB: usize = 1 << 10;
/// The levels that both codings have. Higher ones of zstd take much time and memory for little.
const LEVELS: std::ops::RangeInclusive<u64> = 1..=9;

/// A way to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// gzip, which every client knows.
    Gzip,
    /// zstd, which is several times as fast.
    Zstd,
}

impl Coding {
    /// The coding's name in the file and in headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How answers over HTTP are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The codings, the better ones first; none: answers are not compressed.
    pub codings: Vec<Coding>,
    /// From 1, the fastest, to 9.
    pub level: u8,
    /// Answers of so many bytes are compressed, and longer ones.
    pub min_size: usize,
}

impl Default for Compression {
    fn default() -> Self {
        Self { codings: Vec::new(), level: 3, min_size: 8 * KIB }
    }
}

impl Compression {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        let level = r.integer("level", LEVELS).and_then(|level| u8::try_from(level).ok());
        Self {
            codings: r.list("codings", coding).unwrap_or(default.codings),
            level: level.unwrap_or(default.level),
            min_size: r.size("min_size", default.min_size),
        }
    }

    /// Whether any answer is compressed.
    pub fn is_on(&self) -> bool {
        !self.codings.is_empty()
    }
}

fn coding(text: &str) -> Result<Coding, Invalid> {
    match text {
        "gzip" => Ok(Coding::Gzip),
        "zstd" => Ok(Coding::Zstd),
        _ => Err(Invalid("must be \"zstd\" or \"gzip\"")),
    }
}
