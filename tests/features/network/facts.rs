//! The chain as plain facts, that what clients were told is held against.

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub number: u64,
    pub hash: String,
    /// Contract and place in the block of each log.
    pub logs: Vec<(String, u64)>,
    /// Hashes.
    pub transactions: Vec<String>,
}

/// Blocks that follow one another up to the head.
#[derive(Clone, Debug)]
pub struct Canonical {
    pub blocks: Vec<Fact>,
}

impl Canonical {
    pub fn head(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.number)
    }

    pub fn block(&self, number: u64) -> Option<&Fact> {
        self.since(number).first().filter(|block| block.number == number)
    }

    /// The blocks from that number on.
    pub fn since(&self, number: u64) -> &[Fact] {
        let start = self.blocks.partition_point(|block| block.number < number);
        &self.blocks[start..]
    }
}
