//! A chain of slots: some are empty, some blocks are left again.

/// A block: its place among all blocks that there are is its name.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub slot: u64,
    pub parent: usize,
}

/// Slots of an epoch.
pub const EPOCH: u64 = 8;

/// Every block that there is, whatever became of it.
#[derive(Debug)]
pub struct Tree(Vec<Block>);

impl Tree {
    /// The first block alone.
    pub fn new() -> Self {
        Self(vec![Block { slot: 0, parent: 0 }])
    }

    pub fn add(&mut self, slot: u64, parent: usize) -> usize {
        assert!(self.0[parent].slot < slot);
        self.0.push(Block { slot, parent });
        self.0.len() - 1
    }

    pub fn block(&self, name: usize) -> Block {
        self.0[name]
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// From `tip` down to the first block.
    pub fn line(&self, tip: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(tip), |&at| (at != 0).then(|| self.0[at].parent))
    }

    /// The last block of the line before this slot; the first if there is none.
    fn before(&self, tip: usize, slot: u64) -> usize {
        self.line(tip).find(|&at| self.0[at].slot < slot).unwrap_or(0)
    }

    /// What the duties of a head depend on: of the epoch before, and of its own.
    pub fn duties(&self, tip: usize) -> (usize, usize) {
        let epoch = self.0[tip].slot / EPOCH;
        (self.before(tip, epoch.saturating_sub(1) * EPOCH), self.before(tip, epoch * EPOCH))
    }

    /// Epoch and block of the checkpoint that is final as of this block, two epochs behind.
    pub fn finalized(&self, tip: usize) -> (u64, usize) {
        let epoch = (self.0[tip].slot / EPOCH).saturating_sub(2);
        (epoch, self.before(tip, epoch * EPOCH + 1))
    }

    /// The blocks that come when the head moves from `old` to `new`, oldest first, and whether `old` is left.
    pub fn change(&self, old: usize, new: usize) -> (Vec<usize>, bool) {
        let known: Vec<usize> = self.line(old).collect();
        let mut added: Vec<usize> = self.line(new).take_while(|at| !known.contains(at)).collect();
        added.reverse();
        (added, self.line(new).all(|at| at != old))
    }
}

pub fn root(name: usize) -> String {
    format!("0xabcdef{name:058x}")
}

pub fn state(name: usize) -> String {
    format!("0xfedcba{name:058x}")
}

/// The block with this root, or of this state.
pub fn name(root: &str) -> usize {
    usize::from_str_radix(&root[8..], 16).unwrap()
}
