//! The pool's mind: inputs in, a snapshot and effects out. No I/O and no clock of its own.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    head::{self, Memory, Report, Standing},
    health::{Fault, Health},
    node::Node,
    snapshot::{Facts, Rank, Snapshot},
};
use crate::{
    config::Health as Settings,
    domain::{
        block::BlockRef,
        verdict::{Down, Verdict},
    },
};

/// For how long the highest served head is kept when no node reaches it any more.
const KEEP_SERVED: Duration = Duration::from_secs(60);

/// What a good probe learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The latest block.
    pub block: BlockRef,
    /// Whether the node says that it is syncing.
    pub syncing: bool,
    /// The chain id, when it was asked.
    pub chain_id: Option<u64>,
    /// How long the node took.
    pub latency: Duration,
}

/// What a probe or a call ran into, in words without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it says of the node.
    pub fault: Fault,
    /// For people.
    pub text: String,
}

/// What can happen to a pool.
#[derive(Clone, Debug)]
pub enum Input {
    /// A probe ended.
    Probed(usize, Result<Probe, Trouble>),
    /// A call failed in a way that speaks of the node.
    CallFailed(usize, Trouble),
    /// Evidence that needs no repetition: the node is out.
    Out(usize, Trouble),
    /// The operator takes the node out, or lets it back in.
    Cordon(usize, bool),
}

/// What follows from an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The node went out: calls that wait on it move on, and its idle connections are of no use.
    WentOut(usize),
    /// The node answers again.
    CameBack(usize),
    /// The node should be probed now.
    Poke(usize),
    /// The verdict on a node changed.
    Verdict {
        /// Which.
        node: usize,
        /// From what.
        from: Verdict,
        /// To what.
        to: Verdict,
    },
    /// Calls go elsewhere first.
    Switched {
        /// From which node.
        from: Option<usize>,
        /// To which node.
        to: Option<usize>,
        /// Why, in a word of a bounded set.
        reason: &'static str,
    },
}

struct Known {
    health: Health,
    chain_id: Option<u64>,
    report: Option<Report>,
    block: Option<BlockRef>,
    syncing: bool,
    latency: Option<Duration>,
    last_error: Option<(String, Instant)>,
    cordoned: bool,
    verdict: Verdict,
}

/// All that is known of a pool's nodes.
pub struct Board {
    near: u64,
    expected_chain: Option<u64>,
    chain: Option<u64>,
    known: Vec<Known>,
    memory: Memory,
    head: Option<u64>,
    active: Option<usize>,
    unreached_since: Option<Instant>,
}

impl Board {
    /// A board for `nodes` nodes. `expected_chain` is the chain id that the operator named, if any.
    pub fn new(nodes: usize, settings: &Settings, expected_chain: Option<u64>) -> Self {
        let known = || Known {
            health: Health::new(settings.fall.get(), settings.rise.get()),
            chain_id: None,
            report: None,
            block: None,
            syncing: false,
            latency: None,
            last_error: None,
            cordoned: false,
            verdict: Verdict::Down(Down::Unknown),
        };
        Self {
            near: settings.max_lag_blocks,
            expected_chain,
            chain: expected_chain,
            known: (0..nodes).map(|_| known()).collect(),
            memory: Memory::default(),
            head: None,
            active: None,
            unreached_since: None,
        }
    }

    /// Takes note of `input` and tells what follows. `nodes` are the pool's, for what their traffic shows; `served` the highest block
    /// that clients have been shown; `unix` the wall clock in seconds.
    pub fn step(&mut self, input: Input, nodes: &[Node], served: u64, now: Instant, unix: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Probed(node, Ok(probe)) => {
                nodes[node].traffic.touch(now);
                nodes[node].traffic.lower(probe.block.number);
                self.known[node].probed(node, probe, now);
            }
            Input::Probed(node, Err(trouble)) => {
                self.known[node].failed(trouble, now);
                if self.known[node].health.is_doubtful() {
                    effects.push(Effect::Poke(node));
                }
            }
            Input::CallFailed(node, trouble) => {
                self.known[node].failed(trouble, now);
                effects.push(Effect::Poke(node));
            }
            Input::Out(node, trouble) => {
                self.known[node].health.out(trouble.fault, now);
                self.known[node].last_error = Some((trouble.text, now));
            }
            Input::Cordon(node, cordoned) => self.known[node].cordoned = cordoned,
        }
        self.judge(now, unix, &mut effects);
        self.choose(nodes, served, now, &mut effects);
        effects
    }

    /// Gives every node its verdict.
    fn judge(&mut self, now: Instant, unix: u64, effects: &mut Vec<Effect>) {
        self.chain = self.expected_chain.or_else(|| self.prevailing_chain());
        let mut verdicts: Vec<Option<Verdict>> = self.known.iter().map(|known| known.own_verdict(self.chain)).collect();
        // A node that is proving itself has a head worth knowing.
        let counts = |known: &Known, verdict: &Option<Verdict>| match verdict {
            None => known.report,
            Some(Verdict::Down(Down::Proving)) if !known.is_off(self.chain) && !known.syncing => known.report,
            Some(_) => None,
        };
        let reports: Vec<Report> =
            self.known.iter().zip(&verdicts).filter_map(|(known, verdict)| counts(known, verdict)).collect();
        let (memory, judgement) = head::judge(&self.memory, &reports, self.near, now, unix);
        self.memory = memory;
        if judgement.head.is_some() {
            self.head = judgement.head;
        }
        let alone = self.known.len() == 1;
        for (report, standing) in reports.iter().zip(judgement.standings) {
            verdicts[report.node].get_or_insert(match standing {
                _ if alone => Verdict::Up,
                Standing::Fit => Verdict::Up,
                Standing::Lagging(blocks) => Verdict::Lagging(blocks),
                Standing::Stalled => Verdict::Stalled,
                Standing::Implausible => Verdict::Suspect,
            });
        }
        for (node, (known, verdict)) in self.known.iter_mut().zip(verdicts).enumerate() {
            let to = verdict.unwrap_or(Verdict::Down(Down::Unknown));
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

    /// The chain that most nodes serve; among equals the one before, then the first in the order of the configuration.
    fn prevailing_chain(&self) -> Option<u64> {
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        for id in self.known.iter().filter_map(|known| known.chain_id) {
            *votes.entry(id).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        let leads = |id: &u64| votes.get(id) == Some(&most);
        self.chain.filter(leads).or_else(|| self.known.iter().filter_map(|known| known.chain_id).find(leads))
    }

    fn choose(&mut self, nodes: &[Node], served: u64, now: Instant, effects: &mut Vec<Effect>) {
        let rank = |node: usize| self.known[node].facts(nodes[node].tier, now).rank(nodes[node].traffic.told(), served);
        let best: Option<(Rank, usize)> = (0..nodes.len()).filter_map(|node| Some((rank(node)?, node))).min();
        let reached = best.is_none_or(|(rank, _)| rank.below_served == 0);
        self.unreached_since = if reached { None } else { self.unreached_since.or(Some(now)) };
        let to = best.map(|(_, node)| node);
        if to == self.active {
            return;
        }
        let from = std::mem::replace(&mut self.active, to);
        let reason = match from {
            None => "start",
            Some(from) if self.known[from].cordoned => "cordoned",
            Some(from) if self.known[from].verdict.is_usable() && rank(from).is_some_and(|r| r.below_served == 0) => {
                "failback"
            }
            Some(from) if self.known[from].verdict.is_usable() => "behind",
            Some(from) => self.known[from].verdict.as_str(),
        };
        effects.push(Effect::Switched { from, to, reason });
    }

    /// The height to which the highest served head is to be lowered, since no node has reached it for long.
    pub fn forget_served(&self, now: Instant) -> Option<u64> {
        let long_ago = self.unreached_since.is_some_and(|since| now.saturating_duration_since(since) > KEEP_SERVED);
        if long_ago { self.head } else { None }
    }

    /// The height of the active node, if the rules find it usable: what clients may have been shown.
    pub fn active_height(&self) -> Option<u64> {
        let active = &self.known[self.active?];
        active.block.as_ref().filter(|_| active.verdict.is_usable()).map(|block| block.number)
    }

    /// What is known now.
    pub fn snapshot(&self, nodes: &[Node], now: Instant) -> Snapshot {
        let facts = |(known, node): (&Known, &Node)| {
            let mut facts = known.facts(node.tier, now);
            facts.lag = known.block.as_ref().and_then(|block| Some(self.head?.saturating_sub(block.number)));
            facts
        };
        Snapshot {
            nodes: self.known.iter().zip(nodes).map(facts).collect(),
            head: self.head,
            active: self.active,
            chain_id: self.chain,
        }
    }
}

impl Known {
    fn probed(&mut self, node: usize, probe: Probe, now: Instant) {
        self.health.good(now);
        let number = probe.block.number;
        let moved = self.report.filter(|report| report.number == number).map_or(now, |report| report.moved);
        self.report = Some(Report { node, number, timestamp: probe.block.timestamp, heard: now, moved });
        self.block = Some(probe.block);
        self.syncing = probe.syncing;
        self.chain_id = probe.chain_id.or(self.chain_id);
        self.latency = Some(probe.latency);
    }

    fn failed(&mut self, trouble: Trouble, now: Instant) {
        self.health.bad(trouble.fault, now);
        self.last_error = Some((trouble.text, now));
    }

    fn is_off(&self, chain: Option<u64>) -> bool {
        self.chain_id.is_some() && self.chain_id != chain
    }

    /// The verdict that needs no comparison of heads.
    fn own_verdict(&self, chain: Option<u64>) -> Option<Verdict> {
        match self.health.down() {
            Some(Down::Proving) if self.is_off(chain) => Some(Verdict::WrongChain),
            Some(why) => Some(Verdict::Down(why)),
            None if self.is_off(chain) => Some(Verdict::WrongChain),
            None if self.syncing => Some(Verdict::Syncing),
            None => None,
        }
    }

    fn facts(&self, tier: crate::config::Tier, now: Instant) -> Facts {
        let proving = match self.health.down() {
            Some(Down::Unknown) | None => 0,
            Some(_) => self.health.missing(now),
        };
        Facts {
            tier,
            verdict: self.verdict,
            cordoned: self.cordoned,
            head: self.block.clone(),
            lag: None,
            chain_id: self.chain_id,
            latency: self.latency,
            last_error: self.last_error.clone(),
            proving,
        }
    }
}
