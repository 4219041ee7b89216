//! A pool's state as a plain value: inputs in, a snapshot and effects out. No I/O and no clock of
//! its own.

mod active_node;
mod elsewhere;
mod inherit;
mod input;
mod places;
mod rests;
mod wanted;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use self::elsewhere::Elsewhere;
pub use self::input::Input;
use super::{
    clock,
    feed_watch::FeedLiveness,
    head::{self, HeadState, Limit, Memory, Report},
    health::{Fault, Health, Trouble},
    late_primary::LatePrimary,
    named_heads::NamedHeads,
    node::Node,
    probe::{Probe, may_be_of_another_chain},
    snapshot::{Chase, Cordons, Facts, Snapshot, Switch, Switches, Wait},
    validator_node::{ValidatorNode, ValidatorTies},
};
use crate::{
    config::Health as Settings,
    domain::{
        block::BlockRef,
        chain::Chain,
        layer::Layer,
        node_id::NodeId,
        verdict::{Condition, Down, Verdict},
    },
};

/// The highest block that clients have been shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The block's height.
    pub height: u64,
    /// The index of the node that showed the block, if it is one of this pool.
    pub by: Option<NodeId>,
}

impl From<u64> for Served {
    fn from(height: u64) -> Self {
        Self { height, by: None }
    }
}

/// A consequence of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The node went out: calls that wait for the node move on, and its idle connections are
    /// closed.
    WentOut(NodeId),
    /// The node answers again.
    CameBack(NodeId),
    /// The node should be probed now.
    ProbeNow(NodeId),
    /// The node has blocks that its feed of heads does not tell of.
    Mute(NodeId),
    /// The verdict on a node changed.
    Verdict {
        /// Which.
        node: NodeId,
        /// The verdict before.
        from: Verdict,
        /// The verdict from now on.
        to: Verdict,
    },
    /// Calls go elsewhere first.
    Switched(Switch),
    /// All nodes are ahead of this machine's clock, by so many slots at least.
    ClockIsSlow(u64),
}

/// How many blocks (slots) a node of `layer` may be behind.
pub fn near(layer: Layer, settings: &Settings) -> u64 {
    match layer {
        Layer::El => settings.max_lag_blocks,
        Layer::Cl => settings.max_lag_slots,
    }
}

#[derive(Clone)]
struct Known {
    health: Health,
    /// Whether the node reports itself well. A node that withdraws the report again and again has
    /// to repeat it for longer each time.
    words: Health,
    chain: Option<Chain>,
    report: Option<Report>,
    block: Option<BlockRef>,
    /// When the node last told of a block by itself. The answer to a question from before that is
    /// no news.
    told: Option<Instant>,
    feed: FeedLiveness,
    condition: Condition,
    latency: Option<Duration>,
    last_error: Option<(String, Instant)>,
    cordons: Cordons,
    /// Whether calls pass the node over, because it refused calls or probes for quota.
    resting: bool,
    /// Whether the node is looked at rarely while no call needs it.
    is_lazy: bool,
    /// Whether the node is probed less often than others, so that its report may be old.
    is_seldom: bool,
    /// The verdict that followed from the node's last report at the time.
    standing: Option<Verdict>,
    verdict: Verdict,
}

/// All that is known of a pool's nodes.
pub struct PoolState {
    limit: Limit,
    /// The time between two probes of a node, where the node's own settings say no other.
    interval: Duration,
    /// The limit in blocks of this chain.
    near: u64,
    expected_chain: Option<u64>,
    chain: Option<Chain>,
    /// The chain that prevailed over all nodes that ever told theirs.
    usual_chain: Option<Chain>,
    known: Vec<Known>,
    memory: Memory,
    head: Option<u64>,
    active: Option<NodeId>,
    /// The node that was active in the pool before, if it is not one of this pool.
    removed: Option<Arc<str>>,
    switches: Switches,
    unreached_since: Option<Instant>,
    named_heads: NamedHeads,
    home: LatePrimary,
    /// Nodes for which the highest block served is no measure, since they contradict the node that
    /// showed that block.
    exempt_from_served: Vec<bool>,
    /// No node serves.
    is_out: bool,
    /// Since when nodes serve again after an outage, while the nodes that serve are below the
    /// highest block that clients were shown.
    recovering: Option<Instant>,
    elsewhere: Elsewhere,
    wait: Option<Wait>,
    chase: Option<Chase>,
    wants_lazy: bool,
    /// The ties of clients to a node now.
    pub(super) ties: ValidatorTies,
    validator_node: ValidatorNode,
    /// All nodes are ahead of our clock, which was told.
    is_clock_slow: bool,
}

impl PoolState {
    /// The state of `nodes` nodes of `layer`. `expected_chain` is the chain id that the operator
    /// named, if any.
    pub fn new(nodes: usize, layer: Layer, settings: &Settings, expected_chain: Option<u64>) -> Self {
        let known = || Known {
            health: Health::new(settings.fall.get(), settings.rise.get()),
            words: Health::new(settings.fall.get(), settings.rise.get()),
            chain: None,
            report: None,
            block: None,
            told: None,
            feed: FeedLiveness::default(),
            condition: Condition::default(),
            latency: None,
            last_error: None,
            cordons: Cordons::default(),
            resting: false,
            is_lazy: false,
            is_seldom: false,
            standing: None,
            verdict: Verdict::Down(Down::Unknown),
        };
        Self {
            limit: Limit { blocks: near(layer, settings), time: wanted::freshness(settings.interval) },
            interval: settings.interval,
            near: near(layer, settings),
            expected_chain,
            chain: None,
            usual_chain: None,
            known: (0..nodes).map(|_| known()).collect(),
            memory: Memory::default(),
            head: None,
            active: None,
            removed: None,
            switches: Switches::default(),
            unreached_since: None,
            named_heads: NamedHeads::new(nodes),
            home: LatePrimary::default(),
            exempt_from_served: vec![false; nodes],
            is_out: true,
            recovering: None,
            elsewhere: Elsewhere::default(),
            wait: None,
            chase: None,
            wants_lazy: false,
            ties: ValidatorTies::default(),
            validator_node: ValidatorNode::default(),
            is_clock_slow: false,
        }
    }

    /// Takes note of `input` and returns the effects. `nodes` are the pool's, for the counters of
    /// their traffic; `served` is the highest block that clients have been shown; `unix` is the
    /// wall clock in seconds.
    pub fn step(
        &mut self,
        input: Input,
        nodes: &[Node],
        served: impl Into<Served>,
        now: Instant,
        unix: u64,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.note_paces(nodes);
        match input {
            Input::Probed(node, Ok(probe)) => {
                nodes[node].traffic.touch(now);
                nodes[node].resting.probe_answered(probe.asked);
                if !probe.condition.syncing && self.known[node].feed.is_mute(probe.block.number, probe.asked) {
                    effects.push(Effect::Mute(node));
                }
                if let Some(height) = self.known[node].probed(node, probe, now) {
                    nodes[node].traffic.lower_height(height);
                }
                self.claim(node);
            }
            Input::Feed(node, true) => self.known[node].feed.started(now),
            Input::Feed(node, false) => self.known[node].feed.stopped(),
            Input::Told(node, block, at) => {
                self.known[node].feed.told(block.number);
                let known = &mut self.known[node];
                let is_odd = known.block.as_ref().is_some_and(|known| may_be_of_another_chain(known, &block));
                if is_odd {
                    // Mostly a reorganisation; but the chain itself may have changed.
                    nodes[node].recheck.store(true, Relaxed);
                }
                if !known.told(node, block, at, now) || is_odd {
                    effects.push(Effect::ProbeNow(node));
                }
                self.claim(node);
            }
            Input::Probed(node, Err(Trouble { fault: Fault::Resting(wait), text })) => {
                nodes[node].traffic.touch(now);
                nodes[node].resting.probe_refused(wait, now);
                self.known[node].last_error = Some((text, now));
            }
            Input::Rests(_) => {}
            Input::Probed(node, Err(trouble)) => {
                self.known[node].failed(trouble, now);
                if self.known[node].health.is_doubtful() {
                    effects.push(Effect::ProbeNow(node));
                }
            }
            Input::CallFailed(node, trouble) => {
                self.known[node].failed(trouble, now);
                effects.push(Effect::ProbeNow(node));
            }
            Input::Out(node, trouble) => {
                self.known[node].health.out(trouble.fault, now);
                self.known[node].last_error = Some((trouble.text, now));
            }
            Input::Cordon(node, cordoned) => self.known[node].cordons.local = cordoned,
            Input::Wish(node, is_out) => self.known[node].cordons.fleet = is_out,
            Input::Woken => {}
            Input::ShownElsewhere => self.elsewhere.shown(now),
            Input::Impatient => {
                self.recovering = None;
                self.elsewhere.in_vain(now);
            }
        }
        self.note_rests(nodes, now);
        self.give_verdicts(now, unix, &mut effects);
        self.choose(nodes, served.into(), (now, unix), &mut effects);
        self.decide_about_lazy(nodes, &mut effects);
        effects
    }

    fn claim(&mut self, node: NodeId) {
        if let Some(block) = &self.known[node].block {
            self.named_heads.told(node, block);
        }
    }

    /// Gives every node its verdict.
    fn give_verdicts(&mut self, now: Instant, unix: u64, effects: &mut Vec<Effect>) {
        self.chain = self.prevailing_chain();
        let chain = self.chain.as_ref();
        let mut verdicts: Vec<Option<Verdict>> = self.known.iter().map(|known| known.own_verdict(chain)).collect();
        // A node that is proving itself has a head worth knowing.
        let counts = |known: &Known, verdict: &Option<Verdict>| match verdict {
            None => known.report,
            Some(Verdict::Down(Down::Proving)) if !known.is_off(chain) && known.condition.verdict().is_none() => {
                known.report
            }
            Some(_) => None,
        };
        let mut reports: Vec<Report> =
            self.known.iter().zip(&verdicts).filter_map(|(known, verdict)| counts(known, verdict)).collect();
        self.take_out_old(&mut reports, &mut verdicts, now);
        let places = self.places(&reports, |_| true);
        let near = self.memory.near(self.limit);
        let early = clock::early(&places, near, self.clock(unix));
        for (report, _) in reports.iter().zip(&early).filter(|(_, early)| **early) {
            verdicts[report.node].get_or_insert(Verdict::Suspect);
        }
        let mut early = early.into_iter();
        reports.retain(|_| early.next() != Some(true));
        let by_clock = chain.is_some_and(|chain| chain.beacon.is_some());
        if let Some(time) = chain.and_then(|chain| chain.block_time()) {
            self.memory.know_slot(time, by_clock);
        }
        self.doubt_clock(&places, near, unix, effects);
        let (memory, judgement) = head::judge_heads(&self.memory, &reports, self.limit, now, unix);
        self.memory = memory;
        self.near = self.memory.near(self.limit);
        if judgement.head.is_some() {
            self.head = judgement.head;
        }
        let places = self.places(&reports, |place| judgement.standings[place] == HeadState::Fit);
        let by_the_clock = match self.clock(unix) {
            // Execution nodes have no slots.
            None if !by_clock => vec![None; reports.len()],
            clock => clock::late(&places, self.near, clock),
        };
        let alone = self.known.len() == 1;
        for ((report, standing), late) in reports.iter().zip(judgement.standings).zip(by_the_clock) {
            verdicts[report.node].get_or_insert(match standing {
                _ if alone => Verdict::Up,
                HeadState::Fit => late.map_or(Verdict::Up, Verdict::Lagging),
                HeadState::Lagging(blocks) => Verdict::Lagging(blocks),
                HeadState::Stalled => Verdict::Stalled,
                HeadState::Implausible => Verdict::Suspect,
            });
            self.known[report.node].standing = verdicts[report.node];
        }
        for (index, (known, verdict)) in self.known.iter_mut().zip(verdicts).enumerate() {
            let node = NodeId(index);
            let to = match verdict.unwrap_or(Verdict::Down(Down::Unknown)) {
                Verdict::Up if known.resting => Verdict::Resting,
                verdict => verdict,
            };
            let from = std::mem::replace(&mut known.verdict, to);
            if from != to {
                match (from.answers(), to.answers()) {
                    (true, false) => effects.push(Effect::WentOut(node)),
                    (false, true) => effects.push(Effect::CameBack(node)),
                    _ => {}
                }
                effects.push(Effect::Verdict { node, from, to });
            }
        }
    }

    /// The chain that the most nodes serve, among the nodes that are in and the chains that the
    /// operator allows. Nodes that are down have no vote, so that the last node alive is used.
    /// Among equals, the chain that the most nodes ever served, then the first in the order of the
    /// configuration. While no node is in, the chain before.
    fn prevailing_chain(&mut self) -> Option<Chain> {
        let told = || self.known.iter().filter_map(|known| known.chain.as_ref());
        let alive = self.known.iter().filter(|known| known.health.down().is_none());
        let usual = Chain::prevailing(told(), self.usual_chain.as_ref(), self.expected_chain);
        let now =
            Chain::prevailing(alive.filter_map(|known| known.chain.as_ref()), usual.as_ref(), self.expected_chain);
        let is_told = |chain: &Chain| told().any(|other| other.agrees_with(chain));
        let chain = now.or_else(|| self.chain.clone().filter(is_told)).or_else(|| usual.clone());
        self.usual_chain = usual;
        chain
    }

    /// The latest knowledge of all nodes.
    pub fn snapshot(&self, nodes: &[Node], now: Instant) -> Snapshot {
        let facts = |((known, node), &exempt_from_served): ((&Known, &Node), &bool)| {
            let mut facts = known.facts(node.tier, now);
            facts.exempt_from_served = exempt_from_served;
            facts.lag = known.block.as_ref().and_then(|block| Some(self.head?.saturating_sub(block.number)));
            facts
        };
        Snapshot {
            nodes: self.known.iter().zip(nodes).zip(&self.exempt_from_served).map(facts).collect(),
            near: self.near,
            block_time: self.memory.block_time(),
            wait: self.wait,
            chase: self.chase,
            wants_lazy: self.wants_lazy,
            wake_at: self.home.wake_at(),
            head: self.head,
            active: self.active,
            moving: self.validator_node.moving,
            switches: self.switches.clone(),
            chain: self.chain.clone().or(self.expected_chain.map(Chain::from)),
        }
    }
}

impl Known {
    /// Takes note of a good probe. Returns the probe's height, unless the node has pushed a block
    /// since the probe was sent.
    fn probed(&mut self, node: NodeId, probe: Probe, now: Instant) -> Option<u64> {
        self.health.good(now);
        match probe.condition.verdict() {
            Some(_) => self.words.out(Fault::Failing, now),
            None => self.words.good(now),
        }
        self.condition = probe.condition;
        self.chain = Some(probe.chain);
        self.latency = Some(probe.latency);
        if self.told.is_some_and(|told| probe.asked <= told) {
            // The node answers, and its head is the block that it pushed.
            self.report = self.report.map(|report| Report { heard: now, ..report });
            return None;
        }
        let height = probe.block.number;
        self.stands_at(node, probe.block, now);
        Some(height)
    }

    /// Takes note of a block that the node pushed. `false` when the block is below the known head:
    /// nodes push the blocks of a reorganisation one by one, from the lowest on, and only a probe
    /// knows which of them is the head.
    fn told(&mut self, node: NodeId, block: BlockRef, at: Instant, now: Instant) -> bool {
        let rises = self.block.as_ref().is_none_or(|known| known.number <= block.number);
        if rises {
            self.told = Some(at);
            self.stands_at(node, block, now);
        }
        rises
    }

    fn stands_at(&mut self, node: NodeId, block: BlockRef, now: Instant) {
        let number = block.number;
        let moved = self.report.filter(|report| report.number == number).map_or(now, |report| report.moved);
        self.report = Some(Report { node, number, timestamp: block.timestamp, heard: now, moved });
        self.block = Some(block);
    }

    fn failed(&mut self, trouble: Trouble, now: Instant) {
        self.health.bad(trouble.fault, now);
        self.last_error = Some((trouble.text, now));
    }

    fn is_off(&self, chain: Option<&Chain>) -> bool {
        let agrees = |own: &Chain| chain.is_some_and(|chain| own.agrees_with(chain));
        self.chain.as_ref().is_some_and(|own| !agrees(own))
    }

    /// The verdict that needs no comparison of heads.
    fn own_verdict(&self, chain: Option<&Chain>) -> Option<Verdict> {
        match self.health.down() {
            Some(Down::Proving) if self.is_off(chain) => Some(Verdict::WrongChain),
            Some(why) => Some(Verdict::Down(why)),
            None if self.is_off(chain) => Some(Verdict::WrongChain),
            None => self.condition.verdict().or_else(|| self.is_on_probation().then_some(Verdict::Down(Down::Proving))),
        }
    }

    /// Whether the node reports itself well, but has not done so for long enough since another
    /// report.
    fn is_on_probation(&self) -> bool {
        self.condition.verdict().is_none() && self.words.down() == Some(Down::Proving)
    }

    fn facts(&self, tier: crate::config::Tier, now: Instant) -> Facts {
        let proving = match self.health.down() {
            None if self.is_on_probation() => self.words.missing(now),
            Some(Down::Unknown) | None => 0,
            Some(_) => self.health.missing(now),
        };
        Facts {
            tier,
            verdict: self.verdict,
            cordoned: self.cordons.any(),
            cordons: self.cordons,
            head: self.block.clone(),
            condition: self.condition,
            lag: None,
            chain: self.chain.clone(),
            latency: self.latency,
            last_error: self.last_error.clone(),
            proving,
            exempt_from_served: false,
            pushing: self.feed.is_telling(),
        }
    }
}

#[cfg(test)]
mod tests;
