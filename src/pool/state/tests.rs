use std::sync::Arc;

use super::*;
use crate::{
    config::Config,
    domain::{chain::Beacon, node_id::NodeId},
    metrics::Metrics,
    net::system::System,
    pool::credits::Account,
};

const GENESIS: u64 = 1_000;
const SLOT: u64 = 12;

/// Consensus nodes on a bench: each is asked every second, and answers as the test says.
struct Bench {
    state: PoolState,
    nodes: Vec<Node>,
    start: Instant,
    seconds: u64,
}

impl Bench {
    fn new(nodes: usize, chain: Option<u64>) -> Self {
        Self::of(Layer::Cl, nodes, chain)
    }

    fn of(layer: Layer, nodes: usize, chain: Option<u64>) -> Self {
        let side = layer.as_str();
        let text: String = (0..nodes).map(|n| format!("[[{side}.primary]]\nhttp = \"http://node-{n}\"\n")).collect();
        let config = Config::parse(&text, &|_| None).unwrap();
        let (dial, metrics): (Arc<dyn crate::net::Dial>, _) = (Arc::new(System), Arc::new(Metrics::new()));
        let account = Account::new(Arc::new(|| 0), 0);
        let connect = Duration::from_secs(1);
        let node = |node| Node::new(node, ("default", layer), &dial, connect, 0, &metrics, &account).unwrap();
        let networks = &config.networks[0];
        let nodes: Vec<Node> = if layer == Layer::Cl { &networks.cl } else { &networks.el }.iter().map(node).collect();
        let state = PoolState::new(nodes.len(), layer, &config.health, chain);
        Self { state, nodes, start: Instant::now(), seconds: 0 }
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let now = self.start + Duration::from_secs(self.seconds);
        // The first slots are long past.
        let unix = GENESIS + 100 * SLOT + self.seconds;
        self.state.step(input, &self.nodes, 0, now, unix)
    }

    /// A round, a second later: each node's answer.
    fn round(&mut self, answers: &[Result<Probe, Trouble>]) -> Vec<Verdict> {
        self.seconds += 1;
        for (node, answer) in answers.iter().enumerate() {
            self.step(Input::Probed(NodeId(node), answer.clone()));
        }
        self.state.known.iter().map(|known| known.verdict).collect()
    }

    /// As many rounds with the same answers as a node needs to prove itself, and to be asked since
    /// the others were.
    fn settled(&mut self, answers: &[Result<Probe, Trouble>]) -> Vec<Verdict> {
        self.round(answers);
        self.round(answers);
        self.round(answers)
    }
}

fn chain(id: u64, genesis: &str) -> Chain {
    let genesis_validators_root = genesis.to_owned();
    let beacon = Beacon {
        genesis_validators_root,
        genesis_time: GENESIS,
        slot_millis: Some(SLOT * 1000),
        slots_per_epoch: Some(32),
    };
    Chain { id: Some(id), beacon: Some(Arc::new(beacon)) }
}

fn at(slot: u64) -> Probe {
    let block = BlockRef { number: slot, hash: String::new(), parent: String::new(), timestamp: GENESIS + slot * SLOT };
    let asked = Instant::now();
    Probe {
        block,
        condition: Condition::default(),
        chain: chain(1, "0xaa"),
        latency: Duration::ZERO,
        asked,
        json: None,
    }
}

fn says(condition: Condition) -> Probe {
    Probe { condition, ..at(100) }
}

fn on(id: u64, genesis: &str) -> Result<Probe, Trouble> {
    Ok(Probe { chain: chain(id, genesis), ..at(100) })
}

fn trouble(fault: Fault) -> Result<Probe, Trouble> {
    Err(Trouble { fault, text: String::new() })
}

use Verdict::{ElOffline, Lagging, Optimistic, Suspect, Syncing, Up, WrongChain};

#[test]
fn the_words_of_consensus_nodes_become_verdicts() {
    let condition = Condition::default;
    for (answers, verdicts) in [
        (vec![at(100), at(100)], vec![Up, Up]),
        (vec![says(Condition { syncing: true, ..condition() }), at(100)], vec![Syncing, Up]),
        (vec![says(Condition { optimistic: true, ..condition() }), at(100)], vec![Optimistic, Up]),
        (vec![says(Condition { el_offline: true, ..condition() }), at(100)], vec![ElOffline, Up]),
        // Three slots are the limit for slots, five blocks that for blocks.
        (vec![at(97), at(100)], vec![Up, Up]),
        (vec![at(96), at(100)], vec![Lagging(4), Up]),
        // All behind the clock.
        (vec![at(50), at(49), at(50)], vec![Up, Up, Up]),
        // By its own word.
        (
            vec![Probe { condition: Condition { sync_distance: 6, ..condition() }, ..at(96) }, at(100), at(96)],
            vec![Lagging(4), Up, Up],
        ),
        (
            vec![Probe { condition: Condition { sync_distance: 5, ..condition() }, ..at(96) }, at(100), at(96)],
            vec![Up, Up, Up],
        ),
        // More than a minute into the future.
        (vec![at(100), at(106)], vec![Up, Suspect]),
        // Alone, a node is as good as it reports.
        (vec![at(10)], vec![Up]),
        (vec![says(Condition { optimistic: true, ..condition() })], vec![Optimistic]),
    ] {
        let mut bench = Bench::new(answers.len(), None);
        let said: Vec<_> = answers.iter().cloned().map(Ok).collect();
        assert_eq!(bench.settled(&said), verdicts, "{answers:?}");
    }
}

#[test]
fn nodes_behind_the_clock_lag_though_they_are_the_majority() {
    for (slot, verdict) in [(94, Lagging(6)), (95, Up)] {
        let mut bench = Bench::new(3, None);
        assert_eq!(bench.settled(&[Ok(at(100)), Ok(at(100)), Ok(at(100))]), [Up, Up, Up]);
        assert_eq!(bench.settled(&[Ok(at(slot)), Ok(at(slot)), Ok(at(100))]), [verdict, verdict, Up]);
        assert_eq!(bench.settled(&[Ok(at(100)), Ok(at(100)), Ok(at(100))]), [Up, Up, Up]);
    }
}

#[test]
fn a_node_ahead_of_the_clock_is_suspect_beside_one_on_time() {
    // Slots of two seconds: half a minute is too little to be a future by the stamps of blocks.
    let beacon = Beacon { slot_millis: Some(2000), ..(**chain(1, "0xaa").beacon.as_ref().unwrap()).clone() };
    let chain = Chain { id: Some(1), beacon: Some(Arc::new(beacon)) };
    let at = |slot: u64| {
        let block = BlockRef { timestamp: GENESIS + slot * 2, ..at(slot).block };
        Ok(Probe { block, chain: chain.clone(), ..at(slot) })
    };
    let mut bench = Bench::new(2, None);
    assert_eq!(bench.settled(&[at(615), at(600)]), [Suspect, Up]);
    for slot in 601..606 {
        bench.step(Input::Probed(NodeId(0), at(slot + 15)));
        assert_eq!(bench.state.known[0].verdict, Suspect, "until the other is asked again");
        assert_eq!(bench.round(&[at(slot + 15), at(slot)]), [Suspect, Up]);
    }
    assert_eq!(bench.state.snapshot(&bench.nodes, bench.start).head, Some(605));
    // Where all are ahead, our clock may be wrong.
    assert_eq!(bench.settled(&[at(630), at(630)]), [Up, Up]);
}

#[test]
fn our_slow_clock_makes_no_node_suspect_and_is_told_once() {
    let mut bench = Bench::new(2, None);
    let mut told = Vec::new();
    let mut round = |bench: &mut Bench, slots: [u64; 2]| {
        bench.seconds += 1;
        for (node, slot) in slots.into_iter().enumerate() {
            let effects = bench.step(Input::Probed(NodeId(node), Ok(at(slot))));
            let slow = effects.into_iter().filter_map(|effect| match effect {
                Effect::ClockIsSlow(slots) => Some(slots),
                _ => None,
            });
            told.extend(slow);
        }
        bench.state.known.iter().map(|known| known.verdict).collect::<Vec<_>>()
    };
    // Now and then one of them is a slot behind the other, and so not ahead of our clock.
    for slots in [[105, 105], [106, 105], [107, 106], [107, 107], [105, 105], [107, 107], [108, 108]] {
        assert_eq!(round(&mut bench, slots), [Up, Up], "{slots:?}");
    }
    assert_eq!(told, [6, 7]);
}

#[test]
fn the_chain_is_that_of_most_nodes_that_the_operator_wants() {
    for (expected, answers, verdicts, prevails) in [
        (None, vec![on(1, "a"), on(1, "a"), on(1, "b")], vec![Up, Up, WrongChain], "a"),
        (None, vec![on(1, "b"), on(1, "a"), on(1, "a")], vec![WrongChain, Up, Up], "a"),
        (None, vec![on(2, "a"), on(1, "a"), on(1, "a")], vec![WrongChain, Up, Up], "a"),
        // Among equals, the first.
        (None, vec![on(1, "b"), on(1, "a")], vec![Up, WrongChain], "b"),
        (Some(1), vec![on(2, "b"), on(2, "b"), on(1, "a")], vec![WrongChain, WrongChain, Up], "a"),
        (Some(1), vec![on(1, "b"), on(1, "a"), on(1, "a")], vec![WrongChain, Up, Up], "a"),
    ] {
        let mut bench = Bench::new(answers.len(), expected);
        assert_eq!(bench.settled(&answers), verdicts, "{answers:?}");
        let chain = bench.state.snapshot(&bench.nodes, bench.start).chain.unwrap();
        assert_eq!(chain.beacon.unwrap().genesis_validators_root, prevails);
    }
    let mut bench = Bench::new(1, Some(1));
    assert_eq!(bench.settled(&[on(2, "b")]), [WrongChain]);
    assert_eq!(bench.state.snapshot(&bench.nodes, bench.start).chain, Some(Chain::from(1)));
}

#[test]
fn the_chain_stays_the_one_before_when_a_node_changes_sides() {
    let mut bench = Bench::new(2, None);
    assert_eq!(bench.settled(&[on(1, "a"), on(1, "a")]), [Up, Up]);
    assert_eq!(bench.settled(&[on(1, "b"), on(1, "a")]), [WrongChain, Up]);
    assert_eq!(bench.settled(&[on(1, "a"), on(1, "a")]), [Up, Up]);
}

#[test]
fn a_syncing_node_that_proves_itself_measures_no_other() {
    let mut bench = Bench::new(2, None);
    bench.settled(&[Ok(at(100)), Ok(at(100))]);
    let silent = trouble(Fault::Silent);
    bench.round(&[Ok(at(100)), silent.clone()]);
    bench.round(&[Ok(at(100)), silent.clone()]);
    assert_eq!(bench.round(&[Ok(at(100)), silent]), [Up, Verdict::Down(Down::Silent)]);
    let syncing = |slot| Ok(Probe { condition: Condition { syncing: true, ..Condition::default() }, ..at(slot) });
    assert_eq!(bench.round(&[Ok(at(100)), syncing(103)]), [Up, Verdict::Down(Down::Proving)]);
    assert_eq!(bench.state.head, Some(100));
    assert_eq!(bench.round(&[Ok(at(100)), syncing(103)]), [Up, Syncing]);
    // The node has to keep to its own word for a while, too.
    assert_eq!(bench.round(&[Ok(at(100)), Ok(at(101))]), [Up, Verdict::Down(Down::Proving)]);
    assert_eq!(bench.round(&[Ok(at(100)), Ok(at(101))]), [Up, Up]);
    assert_eq!(bench.state.head, Some(101));
}

#[test]
fn a_node_that_takes_its_word_back_has_to_keep_it_for_longer() {
    let mut bench = Bench::new(2, None);
    bench.settled(&[Ok(at(100)), Ok(at(100))]);
    let offline = || Ok(Probe { condition: Condition { el_offline: true, ..Condition::default() }, ..at(100) });
    for rounds in [2, 4, 8] {
        assert_eq!(bench.round(&[Ok(at(100)), offline()]), [Up, Verdict::ElOffline]);
        for round in 1..=rounds {
            let expected = if round < rounds { Verdict::Down(Down::Proving) } else { Up };
            assert_eq!(bench.round(&[Ok(at(100)), Ok(at(100))]), [Up, expected], "{round} of {rounds}");
        }
    }
}

fn told(bench: &Bench, slot: u64, after: u64) -> Input {
    Input::Told(NodeId(0), at(slot).block, bench.start + Duration::from_secs(after))
}

fn heights(bench: &Bench) -> (Option<u64>, Option<u64>) {
    let snapshot = bench.state.snapshot(&bench.nodes, bench.start);
    (snapshot.nodes[0].head.as_ref().map(|head| head.number), snapshot.head)
}

#[test]
fn an_answer_from_before_a_pushed_block_takes_nothing_back() {
    let mut bench = Bench::new(1, None);
    let asked = |slot, after| {
        let asked = bench.start + Duration::from_secs(after);
        Input::Probed(NodeId(0), Ok(Probe { asked, ..at(slot) }))
    };
    let (first, early, late) = (asked(100, 0), asked(100, 1), asked(100, 3));
    let news = told(&bench, 101, 2);
    bench.step(first);
    bench.step(news);
    assert_eq!(heights(&bench), (Some(101), Some(101)));
    bench.step(early);
    assert_eq!(heights(&bench), (Some(101), Some(101)));
    // A probe that was sent since counts.
    bench.step(late);
    assert_eq!(heights(&bench).0, Some(100));
}

#[test]
fn a_pushed_block_below_the_head_has_the_node_probed() {
    let mut bench = Bench::new(1, None);
    bench.step(Input::Probed(NodeId(0), Ok(at(100))));
    let news = told(&bench, 98, 2);
    let effects = bench.state.step(news, &bench.nodes, 0, bench.start, GENESIS + 100 * SLOT);
    assert_eq!(effects, [Effect::ProbeNow(NodeId(0))]);
    assert_eq!(heights(&bench).0, Some(100));
    // A push at the same height may be of another block.
    let mut other = at(100).block;
    other.hash = "other".to_owned();
    bench.step(Input::Told(NodeId(0), other.clone(), bench.start + Duration::from_secs(3)));
    assert_eq!(bench.state.snapshot(&bench.nodes, bench.start).nodes[0].head, Some(other));
}

#[test]
fn a_node_that_tells_of_blocks_and_answers_no_probe_is_not_in() {
    let mut bench = Bench::new(1, None);
    let news = told(&bench, 101, 2);
    bench.step(news);
    assert_eq!(bench.state.known[0].verdict, Verdict::Down(Down::Unknown));
    assert_eq!(heights(&bench).1, None);
}

#[test]
fn blocks_come_as_seen_and_slots_never_slower_than_by_the_clock() {
    for (layer, chain, seconds) in [(Layer::El, Chain::from(1), 60), (Layer::Cl, chain(1, "0xaa"), 12)] {
        let mut bench = Bench::of(layer, 1, None);
        for block in 0..20 {
            bench.seconds = 60 * block;
            bench.step(Input::Probed(NodeId(0), Ok(Probe { chain: chain.clone(), ..at(100 + block) })));
        }
        let time = bench.state.snapshot(&bench.nodes, bench.start).block_time.unwrap();
        assert_eq!(time.as_secs_f64().round() as u64, seconds, "{layer:?}");
    }
}

/// C16: an order here and a wish for all replicas each keep a node out, and neither ends the other.
#[tokio::test]
async fn two_orders_each_keep_a_node_out() {
    let mut bench = Bench::new(2, None);
    bench.settled(&[Ok(at(100)), Ok(at(100))]);
    let active = |bench: &Bench| bench.state.snapshot(&bench.nodes, Instant::now()).active;
    let first = NodeId(0);
    assert_eq!(active(&bench), Some(first));
    let orders = [
        (Input::Cordon(first, true), true),
        (Input::Wish(first, true), true),
        (Input::Cordon(first, false), true),
        (Input::Cordon(first, true), true),
        (Input::Wish(first, false), true),
        (Input::Cordon(first, false), false),
        (Input::Wish(first, true), true),
        (Input::Wish(first, false), false),
    ];
    for (order, is_out) in orders {
        bench.step(order.clone());
        let known = &bench.state.snapshot(&bench.nodes, Instant::now()).nodes[first];
        assert_eq!((known.cordoned, known.cordons.any()), (is_out, is_out), "{order:?}");
        assert_eq!(active(&bench) == Some(first), !is_out, "{order:?}");
    }
}
