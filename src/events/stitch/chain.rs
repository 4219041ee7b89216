//! The window of blocks that a stitcher remembers, and the paths between them.

use std::collections::HashMap;

use alloy_primitives::B256;
use bytes::Bytes;

use super::{
    super::beacon::{self, ChainEvent, Duties, Header},
    MAX_GAP, WINDOW,
};

/// The missing data that has to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    Header(B256),
    Duties { root: B256, epoch: u64 },
}

/// The path from one head to another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PathFromTip {
    /// The other head is an ancestor of the first.
    Behind,
    /// The path is longer than may be filled.
    TooLong,
    /// Over their last common block.
    Leads {
        fork: B256,
        /// The blocks after the fork up to the other head, oldest first; never empty.
        missed: Vec<B256>,
    },
}

/// The state of the search for the parent of a head without a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent {
    /// Not looked for, or known from a header that came after all.
    Open,
    /// Taken to be the head sent before.
    Presumed,
    /// Known not to be the head sent before.
    Refuted,
}

/// Blocks by root, of any branch.
#[derive(Debug)]
pub(super) struct Chain {
    slots_per_epoch: u64,
    headers: HashMap<B256, Header>,
    /// Heads that were sent without their headers, as their events describe them.
    bare: HashMap<B256, (Header, Parent)>,
    /// Blocks whose `block` event was sent, with their slots.
    told: HashMap<B256, u64>,
    /// The dependent roots that nodes gave with their heads or in answers, with the heads' slots.
    duties: HashMap<B256, (u64, Duties)>,
    /// Clients get the blocks after this slot.
    floor: u64,
}

impl Chain {
    pub(super) fn new(slots_per_epoch: u64) -> Self {
        Self {
            slots_per_epoch: slots_per_epoch.max(1),
            headers: HashMap::new(),
            bare: HashMap::new(),
            told: HashMap::new(),
            duties: HashMap::new(),
            floor: 0,
        }
    }

    pub(super) fn epoch(&self, slot: u64) -> u64 {
        slot / self.slots_per_epoch
    }

    /// The slot of an event's block, or for a checkpoint the slot before which no checkpoint of its
    /// epoch can be final.
    pub(super) fn slot_of(&self, said: ChainEvent) -> Option<u64> {
        match said {
            ChainEvent::Block { slot, .. } | ChainEvent::Head { slot, .. } => Some(slot),
            ChainEvent::Finalized { epoch } => Some(self.final_from(epoch)),
            ChainEvent::Reorg { .. } => None,
        }
    }

    /// The first slot at which a checkpoint of this epoch can be final: an epoch is justified in
    /// the next one, and final in the one after.
    pub(super) fn final_from(&self, epoch: u64) -> u64 {
        // The chain's first block is final from the beginning.
        if epoch == 0 { 0 } else { epoch.saturating_add(2).saturating_mul(self.slots_per_epoch) }
    }

    pub(super) fn header(&self, root: B256) -> Option<&Header> {
        self.headers.get(&root)
    }

    pub(super) fn insert(&mut self, root: B256, header: Header) {
        self.headers.insert(root, header);
        if let Some((_, parent @ Parent::Presumed)) = self.bare.get_mut(&root) {
            *parent = Parent::Open;
        }
    }

    /// Keeps the content of a head's event, because no node may ever give the header. The head sent
    /// `before` is taken for its parent.
    pub(super) fn note(&mut self, root: B256, slot: u64, before: Option<B256>, event: Option<&Bytes>) {
        let (state, optimistic) = match (self.header(root), event) {
            (Some(header), _) => (header.state, header.optimistic),
            (None, Some(event)) => beacon::state_of(event),
            (None, None) => return,
        };
        let header = Header { slot, parent: before.unwrap_or_default(), state, optimistic };
        self.bare.entry(root).or_insert((header, Parent::Open)).0 = header;
    }

    /// No node gives the header of this block. If the block was sent as a head all the same, the
    /// head sent before is presumed to be its parent. `false` where nothing is presumed.
    pub(super) fn presume(&mut self, root: B256) -> bool {
        let Some(&(mut header, Parent::Open)) = self.bare.get(&root) else { return false };
        let is_unknown = self.header(root).is_none();
        if is_unknown {
            self.bare.insert(root, (header, Parent::Presumed));
            if self.slot(header.parent).is_none_or(|before| before >= header.slot) {
                header.parent = B256::default();
            }
            self.headers.insert(root, header);
        }
        is_unknown
    }

    /// The slot of a block whose parent is presumed.
    pub(super) fn presumed(&self, root: B256) -> Option<u64> {
        self.bare.get(&root).filter(|(_, parent)| *parent == Parent::Presumed).map(|(header, _)| header.slot)
    }

    /// A path led over a block that is not on that path, so presumed parents may be wrong. All are
    /// forgotten, and not presumed again. `false` where none was presumed.
    pub(super) fn refute(&mut self) -> bool {
        let mut is_any = false;
        for (root, (_, parent)) in self.bare.iter_mut().filter(|(_, (_, parent))| *parent == Parent::Presumed) {
            self.headers.remove(root);
            *parent = Parent::Refuted;
            is_any = true;
        }
        is_any
    }

    pub(super) fn is_told(&self, root: B256) -> bool {
        self.told.contains_key(&root)
    }

    pub(super) fn tell(&mut self, root: B256, slot: u64) {
        self.told.insert(root, slot);
    }

    /// Keeps the dependent roots that a node gave with a head.
    pub(super) fn hear_duties(&mut self, root: B256, slot: u64, duties: Duties) {
        self.duties.insert(root, (slot, duties));
    }

    /// Keeps the dependent roots that a node gave in an answer about a known block.
    pub(super) fn learn_duties(&mut self, root: B256, duties: Duties) {
        if let Some(slot) = self.slot(root) {
            self.duties.insert(root, (slot, duties));
        }
    }

    /// Clients miss no block at or before this one.
    pub(super) fn begin(&mut self, root: B256) {
        self.floor = self.slot(root).unwrap_or(0);
    }

    /// Forgets the blocks that are far from the head `root`.
    pub(super) fn forget_before(&mut self, root: B256) {
        let Some(slot) = self.slot(root) else { return };
        let near = slot.saturating_sub(WINDOW)..=slot.saturating_add(WINDOW);
        self.headers.retain(|_, header| near.contains(&header.slot));
        self.bare.retain(|_, (header, _)| near.contains(&header.slot));
        self.told.retain(|_, slot| near.contains(slot));
        self.duties.retain(|_, (slot, _)| near.contains(slot));
        self.floor = self.floor.max(*near.start());
    }

    /// The path from the head `tip` to the head `root`, which is at `slot` by its event.
    pub(super) fn path_from_tip(&self, tip: B256, root: B256, slot: u64) -> Result<PathFromTip, Unknown> {
        if slot.saturating_sub(self.at(tip)?) > MAX_GAP {
            return Ok(PathFromTip::TooLong);
        }
        let (mut ours, mut theirs) = (tip, root);
        let (mut missed, mut left) = (Vec::new(), 0);
        // The line with the higher block steps back, until both lines meet.
        while ours != theirs {
            if self.at(theirs)? >= self.at(ours)? {
                missed.push(theirs);
                theirs = self.known(theirs)?.parent;
            } else {
                left += 1;
                ours = self.known(ours)?.parent;
            }
            if missed.len().max(left) as u64 > MAX_GAP {
                return Ok(PathFromTip::TooLong);
            }
        }
        missed.reverse();
        Ok(if missed.is_empty() { PathFromTip::Behind } else { PathFromTip::Leads { fork: ours, missed } })
    }

    /// The ancestors of `root` whose `block` events clients have missed, oldest first.
    pub(super) fn untold(&self, root: B256, tip: Option<B256>) -> Result<Vec<B256>, Unknown> {
        let mut missed = Vec::new();
        let mut at = root;
        loop {
            let parent = self.known(at)?.parent;
            if self.is_told(parent) || Some(parent) == tip || self.at(parent)? <= self.floor {
                missed.reverse();
                return Ok(missed);
            }
            missed.push(parent);
            if missed.len() as u64 > MAX_GAP {
                return Ok(Vec::new());
            }
            at = parent;
        }
    }

    /// Whether the block is the first of its epoch.
    pub(super) fn begins_epoch(&self, root: B256) -> bool {
        let Some(slot) = self.slot(root) else { return false };
        match self.header(root).and_then(|header| self.slot(header.parent)) {
            Some(parent) => self.epoch(parent) < self.epoch(slot),
            None => slot.is_multiple_of(self.slots_per_epoch),
        }
    }

    /// The dependent roots of a head at `root`: those that a node gave for that head or for an
    /// earlier one of its chain, or those that follow from the headers.
    pub(super) fn duties(&self, root: B256) -> Result<Duties, Unknown> {
        let epoch = self.epoch(self.known(root)?.slot);
        let (mut current, mut at) = (None, root);
        while let Some(header) = self.header(at) {
            let (here, said) = (self.epoch(header.slot), self.duties.get(&at).map(|(_, duties)| *duties));
            if here < epoch && current.is_none() {
                current = Some(at);
            }
            match (current, said) {
                (Some(current), _) if here + 1 < epoch || header.slot == 0 => {
                    return Ok(Duties { previous: at, current });
                }
                (None, _) if header.slot == 0 => return Ok(Duties { previous: at, current: at }),
                // A head of the same epoch has the same roots. For a head of the epoch before, its
                // current root is the previous root here.
                (None, Some(said)) => return Ok(said),
                (Some(current), Some(said)) => return Ok(Duties { previous: said.current, current }),
                _ => match self.before(at) {
                    Some(before) => at = before,
                    None => break,
                },
            }
        }
        Err(Unknown::Duties { root, epoch })
    }

    /// The same by the roots that a node gave for a later head on the path of `missed`, which
    /// begins with the block in question: all heads of an epoch have the same roots.
    pub(super) fn duties_by(&self, missed: &[B256], unknown: Unknown) -> Result<Duties, Unknown> {
        let epoch = missed.first().and_then(|first| self.slot(*first)).map(|slot| self.epoch(slot));
        let same_epoch = missed.iter().take_while(|root| self.slot(**root).map(|slot| self.epoch(slot)) == epoch);
        let said = same_epoch.filter_map(|root| self.duties.get(root)).next();
        said.map(|(_, duties)| *duties).ok_or(unknown)
    }

    /// The dependent roots that a node gave for exactly this head.
    pub(super) fn said(&self, root: B256) -> Option<Duties> {
        self.duties.get(&root).map(|(_, duties)| *duties)
    }

    /// The last block before the epoch of `root`, by headers alone.
    pub(super) fn last_before(&self, root: B256) -> Option<B256> {
        let epoch = self.epoch(self.slot(root)?);
        let mut line = std::iter::successors(Some(root), |at| self.before(*at));
        line.find(|at| self.slot(*at).is_none_or(|slot| self.epoch(slot) < epoch))
            .filter(|at| self.header(*at).is_some())
    }

    /// The parent of this block. A node may name a block as its own ancestor: no path leads on from
    /// there.
    fn before(&self, root: B256) -> Option<B256> {
        let header = self.header(root)?;
        self.slot(header.parent).is_none_or(|slot| slot < header.slot).then_some(header.parent)
    }

    /// The slot of a block, as far as known.
    pub(super) fn slot(&self, root: B256) -> Option<u64> {
        self.header(root).map(|header| header.slot).or_else(|| self.bare.get(&root).map(|(header, _)| header.slot))
    }

    fn at(&self, root: B256) -> Result<u64, Unknown> {
        self.slot(root).ok_or(Unknown::Header(root))
    }

    fn known(&self, root: B256) -> Result<&Header, Unknown> {
        self.header(root).ok_or(Unknown::Header(root))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    /// Blocks as (name, slot, parent), in epochs of four slots.
    fn chain(blocks: &[(u8, u64, u8)]) -> Chain {
        let mut chain = Chain::new(4);
        for &(name, slot, parent) in blocks {
            chain.insert(root(name), Header { slot, parent: root(parent), state: root(name), optimistic: false });
        }
        chain
    }

    #[test]
    fn heads_are_joined_over_their_last_common_block() {
        let blocks = [(1, 10, 0), (2, 11, 1), (3, 12, 2), (4, 13, 2), (5, 15, 4)];
        let chain = chain(&blocks);
        let leads = |fork, missed: &[u8]| {
            Ok(PathFromTip::Leads { fork: root(fork), missed: missed.iter().map(|&name| root(name)).collect() })
        };
        assert_eq!(chain.path_from_tip(root(2), root(3), 12), leads(2, &[3]));
        assert_eq!(chain.path_from_tip(root(1), root(5), 15), leads(1, &[2, 4, 5]));
        assert_eq!(chain.path_from_tip(root(3), root(5), 15), leads(2, &[4, 5]));
        assert_eq!(chain.path_from_tip(root(5), root(3), 12), leads(2, &[3]));
        assert_eq!(chain.path_from_tip(root(3), root(1), 10), Ok(PathFromTip::Behind));
        assert_eq!(chain.path_from_tip(root(3), root(9), 13), Err(Unknown::Header(root(9))));
        assert_eq!(chain.path_from_tip(root(3), root(9), 12 + MAX_GAP + 1), Ok(PathFromTip::TooLong));
    }

    #[test]
    fn duties_follow_from_what_is_known_or_are_asked_for() {
        // Epochs: 2 holds slots 8 to 11, 3 holds 12 to 15, 4 holds 16 to 19.
        let mut chain = chain(&[(1, 9, 0), (2, 11, 1), (3, 13, 2), (4, 14, 3), (5, 17, 4), (6, 22, 5)]);
        let said = Duties { previous: root(70), current: root(71) };
        assert_eq!(chain.duties(root(2)), Err(Unknown::Duties { root: root(2), epoch: 2 }));
        chain.learn_duties(root(1), said);
        assert_eq!(chain.duties(root(1)), Ok(said));
        assert_eq!(chain.duties(root(2)), Ok(said), "the same epoch");
        assert_eq!(chain.duties(root(4)), Ok(Duties { previous: root(71), current: root(2) }), "the next epoch");
        assert_eq!(chain.duties(root(5)), Ok(Duties { previous: root(2), current: root(4) }), "two epochs on");
        assert_eq!(chain.duties(root(6)), Ok(Duties { previous: root(4), current: root(5) }));
        chain.duties.clear();
        assert_eq!(chain.duties(root(4)), Err(Unknown::Duties { root: root(4), epoch: 3 }));
        assert_eq!(chain.duties(root(6)), Ok(Duties { previous: root(4), current: root(5) }), "from headers alone");
    }

    #[test]
    fn a_block_that_is_said_to_stand_before_itself_leads_nowhere() {
        // The first block is its own parent, and the other two are each other's.
        let chain = chain(&[(1, 9, 1), (2, 10, 3), (3, 11, 2)]);
        for (name, slot) in [(1, 9), (2, 10), (3, 11)] {
            assert!(chain.duties(root(name)).is_err());
            assert!(chain.last_before(root(name)).is_none() && chain.untold(root(name), None).is_ok());
            assert_eq!(chain.path_from_tip(root(9), root(name), slot), Err(Unknown::Header(root(9))));
        }
        assert_eq!(chain.path_from_tip(root(1), root(3), 11), Ok(PathFromTip::TooLong));
    }

    #[test]
    fn heads_without_headers_are_taken_to_follow_one_another() {
        let mut chain = chain(&[(1, 10, 0)]);
        let event = |state: u8| Some(Bytes::from(format!(r#"event: head\ndata: {{"state":"{}"}}"#, root(state))));
        chain.note(root(2), 11, Some(root(1)), event(22).as_ref());
        chain.note(root(3), 12, Some(root(2)), event(33).as_ref());
        // A node goes back and forth: only a head at a lower slot can be a parent.
        chain.note(root(2), 11, Some(root(3)), event(22).as_ref());
        assert!(chain.presume(root(3)) && chain.presume(root(2)) && !chain.presume(root(2)) && !chain.presume(root(1)));
        let of = |header: &Header| (header.parent, header.state);
        assert_eq!(chain.header(root(3)).map(of), Some((root(2), root(33))));
        assert_eq!(chain.header(root(2)).map(|header| header.parent), Some(B256::default()));
    }

    #[test]
    fn presumed_parents_are_forgotten_once_they_are_wrong() {
        let mut chain = chain(&[(1, 10, 0)]);
        assert!(!chain.refute());
        let event = Bytes::from_static(b"data: {}");
        chain.note(root(2), 11, Some(root(1)), Some(&event));
        assert!(chain.presume(root(2)) && chain.header(root(2)).is_some());
        assert!(chain.refute() && chain.header(root(2)).is_none() && !chain.presume(root(2)));
        assert_eq!((chain.slot(root(2)), chain.header(root(1)).is_some()), (Some(11), true));
        assert!(!chain.refute());
    }

    #[test]
    fn the_first_epochs_depend_on_the_first_block() {
        let chain = chain(&[(1, 0, 0), (2, 3, 1), (3, 5, 2)]);
        assert_eq!(chain.duties(root(2)), Ok(Duties { previous: root(1), current: root(1) }));
        assert_eq!(chain.duties(root(3)), Ok(Duties { previous: root(1), current: root(2) }));
    }
}
