use proptest::prelude::*;

use super::*;

/// A block of a random tree, named by the way from the root.
type Path = Vec<u8>;

fn block(path: &[u8], change: u64) -> Arc<Block> {
    let mut hash = [0; 32];
    hash[..path.len()].copy_from_slice(path);
    hash[31] = path.len() as u8;
    Arc::new(Block { hash: B256::new(hash), number: path.len() as u64, change, bloom: None })
}

/// The last digit of the block's name.
fn digit(hash: B256) -> u8 {
    hash.0[usize::from(hash.0[31]) - 1]
}

/// Two logs for most blocks, none for some.
fn logs(hash: B256) -> Arc<[(B256, u8)]> {
    if digit(hash) == 0 { Arc::default() } else { [(hash, 0), (hash, 1)].into() }
}

/// A subscriber since a change, and the blocks whose logs it has been sent and not taken back.
#[derive(Debug)]
struct Client {
    since: u64,
    believes: Vec<B256>,
    /// The digit of the blocks that certainly do not concern the client; 0 if none.
    spared: u8,
}

impl Client {
    fn may_concern(&self, block: &Block) -> bool {
        digit(block.hash) != self.spared
    }

    fn hear(&mut self, telling: &Telling<(B256, u8)>) {
        let hash = telling.block.hash;
        let is_for_us = self.may_concern(&telling.block) && telling.to.includes(|block| self.may_concern(block));
        if telling.block.change <= self.since || telling.logs.is_empty() || !is_for_us {
            return;
        }
        assert_eq!(telling.logs, logs(hash));
        if telling.removed {
            assert_eq!(self.believes.pop(), Some(hash), "only the newest can go, and only what was told");
        } else {
            assert!(self.believes.last().is_none_or(|below| below.0[31] < hash.0[31]), "in the order of the chain");
            self.believes.push(hash);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The chain loses some blocks and gains others, each named by a digit; few digits, so that
    /// blocks come back.
    Change(usize, Vec<u8>),
    /// Logs are found: those of the nth block that is wanted.
    Found(usize),
    /// Logs that were asked for earlier, perhaps of a block that has gone since, or is there again.
    Late(usize),
    /// A client comes that blocks of this digit do not concern.
    Join(u8),
    Leave,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..4, proptest::collection::vec(0u8..3, 1..4)).prop_map(|(lost, gained)| Step::Change(lost, gained)),
        4 => (0usize..4).prop_map(Step::Found),
        1 => (0usize..20).prop_map(Step::Late),
        1 => (0u8..3).prop_map(Step::Join),
        1 => Just(Step::Leave),
    ]
}

struct World {
    ledger: Ledger<(B256, u8)>,
    change: u64,
    path: Path,
    /// The canonical blocks, with the change with which each came.
    canonical: Vec<Arc<Block>>,
    seen: Vec<B256>,
    clients: Vec<Client>,
}

impl World {
    fn new(window: usize) -> Self {
        let clients = [0, 1].map(|spared| Client { since: 0, believes: Vec::new(), spared }).into();
        let ledger = Ledger::new(window);
        Self { ledger, change: 0, path: Vec::new(), canonical: Vec::new(), seen: Vec::new(), clients }
    }

    fn tell(&mut self, telling: &Telling<(B256, u8)>) {
        self.clients.iter_mut().for_each(|client| client.hear(telling));
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Change(lost, gained) => {
                self.change += 1;
                for _ in 0..lost.min(self.canonical.len()) {
                    let block = self.canonical.pop().unwrap();
                    self.path.pop();
                    if let Some(telling) = self.ledger.remove(block.hash) {
                        assert_eq!(telling.block, block);
                        self.tell(&telling);
                    }
                }
                for digit in gained.into_iter().take(30 - self.path.len()) {
                    self.path.push(digit);
                    let block = block(&self.path, self.change);
                    self.canonical.push(block.clone());
                    self.seen.push(block.hash);
                    self.ledger.add(block, (digit == 0).then(Arc::default));
                }
            }
            Step::Found(nth) => {
                let found = self.ledger.wanted().nth(nth).cloned();
                if let Some(block) = found {
                    self.ledger.found(block.hash, logs(block.hash));
                }
            }
            Step::Late(nth) => {
                if let Some(hash) = self.seen.iter().rev().nth(nth).copied() {
                    self.ledger.found(hash, logs(hash));
                }
            }
            Step::Join(spared) => {
                self.clients.push(Client { since: self.change, believes: Vec::new(), spared });
            }
            Step::Leave => _ = (self.clients.len() > 2).then(|| self.clients.swap_remove(2)),
        }
        while let Some(telling) = self.ledger.next() {
            self.tell(&telling);
        }
        self.has_all_logs_that_are_due();
    }

    /// Every client has the logs of all blocks below the lowest one that may concern it and whose
    /// logs are not found.
    fn has_all_logs_that_are_due(&self) {
        for client in &self.clients {
            let missing = self.ledger.wanted().find(|block| client.may_concern(block));
            let due = self.canonical.iter().take_while(|block| Some(*block) != missing);
            let due = due.filter(|block| block.change > client.since && client.may_concern(block));
            let due: Vec<B256> = due.map(|block| block.hash).filter(|hash| !logs(*hash).is_empty()).collect();
            assert_eq!(client.believes, due, "{client:?}");
        }
    }

    /// When all logs were found, every client has exactly the logs of the canonical blocks since it
    /// came.
    fn settle(&mut self) {
        while self.ledger.wanted().next().is_some() {
            self.perform(Step::Found(0));
        }
        for client in &self.clients {
            let with_logs = self.canonical.iter().filter(|block| !logs(block.hash).is_empty());
            let concerned = with_logs.filter(|block| block.change > client.since && client.may_concern(block));
            let canonical: Vec<B256> = concerned.map(|block| block.hash).collect();
            assert_eq!(client.believes, canonical, "since {}", client.since);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_the_told_logs_add_up_to_the_canonical_ones(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(30);
        steps.into_iter().for_each(|step| world.perform(step));
        world.settle();
    }
}

#[test]
fn a_block_that_goes_before_its_logs_are_found_is_never_told() {
    let mut ledger = Ledger::new(10);
    let one = block(&[1], 1);
    ledger.add(one.clone(), None);
    assert_eq!(ledger.remove(one.hash), None);
    ledger.found(one.hash, logs(one.hash));
    assert_eq!(ledger.next(), None);
}

#[test]
fn a_block_whose_logs_are_missing_holds_back_those_above_it() {
    let mut ledger = Ledger::new(10);
    let (one, two) = (block(&[1], 1), block(&[1, 1], 2));
    ledger.add(one.clone(), None);
    ledger.add(two.clone(), None);
    ledger.found(two.hash, logs(two.hash));
    let telling = ledger.next().unwrap();
    assert!(telling.block == two && !telling.to.includes(|_| true), "not those whom it may concern");
    assert!(telling.to.includes(|block| *block == *two), "but those whom it does not");
    assert_eq!(ledger.next(), None, "once");
    ledger.found(one.hash, logs(one.hash));
    let told: Vec<_> = std::iter::from_fn(|| ledger.next()).collect();
    assert_eq!(told.iter().map(|telling| &telling.block).collect::<Vec<_>>(), [&one, &two]);
    assert!(told[1].to.includes(|_| true) && !told[1].to.includes(|block| *block == *two), "nobody twice");
}

#[test]
fn logs_of_a_lost_block_are_taken_back_from_those_told() {
    let mut ledger = Ledger::new(10);
    let (one, two) = (block(&[1], 1), block(&[1, 1], 2));
    ledger.add(one.clone(), None);
    ledger.add(two.clone(), Some(logs(two.hash)));
    assert!(ledger.next().is_some());
    let telling = ledger.remove(two.hash).unwrap();
    assert!(telling.removed && !telling.to.includes(|_| true) && telling.to.includes(|block| *block == *two));
    assert_eq!(ledger.remove(one.hash), None);
}

#[test]
fn the_logs_of_the_window_are_remembered_and_no_others() {
    let mut ledger = Ledger::new(3);
    let path = [1; 5];
    let blocks: Vec<Arc<Block>> = (1..=5).map(|length| block(&path[..length], length as u64)).collect();
    for block in &blocks {
        ledger.add(block.clone(), Some(logs(block.hash)));
        assert!(ledger.next().is_some());
    }
    let taken_back = blocks.iter().rev().map_while(|block| ledger.remove(block.hash)).count();
    assert_eq!(taken_back, 3);
}

#[test]
fn a_ledger_that_waits_for_too_many_blocks_says_so() {
    let mut ledger = Ledger::<()>::new(3);
    for length in 1..=4 {
        assert!(!ledger.is_overfull());
        ledger.add(block(&[1; 4][..length], 1), None);
    }
    assert!(ledger.is_overfull());
    ledger.clear();
    assert!(!ledger.is_overfull() && ledger.next().is_none());
}
