//! The node that an exchange goes to next, where some nodes may rest: see [`crate::pool::resting`].

use tokio::time::Instant;

use crate::{
    config::Policy,
    domain::{
        asked_blocks::AskedBlocks,
        method::Class,
        node_id::{ByNode, NodeId},
        refusal::Unserved,
        verdict::Verdict,
    },
    pool::{
        Pool, Scout,
        health::Fault,
        node::Node,
        resting::{Kind, RestState},
        snapshot::Snapshot,
    },
    route::{self, Load, reach::out_of_reach},
};

/// The request for a node: which calls it is for, and which nodes were tried.
#[derive(Clone, Copy)]
pub struct NodeQuery<'a> {
    /// The policy of the side.
    pub policy: Policy,
    /// The class of the exchange, which says how far a node may be behind.
    pub class: Class,
    /// The kind of the exchange, for nodes that rest from one kind.
    pub kind: Kind,
    /// The method, for nodes that lack some; empty for requests of the beacon API.
    pub method: &'a str,
    /// The blocks that the call needs, if known, for nodes that lack some.
    pub blocks: Option<AskedBlocks>,
    /// The nodes that have had their chance in this round.
    pub tried: &'a [NodeId],
    /// Whether all nodes failed the exchange before.
    pub again: bool,
    /// Whether the exchange is tried at a node that rests rather than refused, if no other node is
    /// left and that node has not had the exchange.
    pub is_urgent: bool,
}

/// Where an exchange goes.
pub enum Choice<'a> {
    /// To this node, as a scout if the node has been resting.
    Node(NodeId, Option<Scout<'a>>),
    /// To none yet: all nodes that may serve rest. The moment is the earliest known end of a rest.
    Rest(Option<Instant>),
    /// Nowhere.
    Nowhere,
}

/// The best node for an exchange. A node that rests is passed over. A node whose rest is over gets
/// a scout in its turn. An urgent exchange goes to a node that rests where no other is left. A node
/// that lacks the method or the blocks comes last. A node whose settings rule the method out gets
/// nothing, and so does a node without credits for the call, urgent or not.
pub fn choose<'a>(pool: &'a Pool, query: NodeQuery<'_>) -> Choice<'a> {
    let choice = best_choice(pool, query);
    // A second opinion alone is no reason to look at a node more often.
    if let Choice::Node(node, _) = &choice
        && query.tried.is_empty()
    {
        pool.needs(*node);
    }
    choice
}

fn best_choice<'a>(pool: &'a Pool, query: NodeQuery<'_>) -> Choice<'a> {
    let (now, method) = (Instant::now(), query.kind.id());
    let load = |node: NodeId| {
        let Node { traffic, weight, .. } = &pool.nodes[node];
        let micros = if query.policy == Policy::Fastest { traffic.expected_micros(method, now) } else { 0 };
        Load { in_flight: traffic.in_flight(), told: traffic.max_height(), weight: *weight, micros }
    };
    let policy = match query.policy {
        policy @ (Policy::Weighted | Policy::Fastest) => (policy, pool.draw()),
        policy @ (Policy::First | Policy::Spread) => (policy, 0),
    };
    let (served, snapshot) = pool.served_and_snapshot();
    let mut last = query.blocks.map_or_else(Vec::new, |asked| lacking(pool, &snapshot, &asked));
    if last.is_empty() && !pool.is_any_resting() && !pool.is_any_method_missing() {
        match route::best_node(&snapshot, load, served, policy, query.class, query.tried) {
            Some(node) if pool.nodes[node].credits_wait(query.method, now).is_none() => {
                return Choice::Node(node, None);
            }
            // The best node has too few credits.
            Some(_) => {}
            None => return Choice::Nowhere,
        }
    }
    let (mut closed, mut due) = (query.tried.to_vec(), Vec::new());
    let (mut rests, mut earliest) = (false, None);
    let mut out_of_question = query.tried.to_vec();
    for (node, known) in snapshot.nodes.by_node() {
        if query.tried.contains(&node) || known.preference(0, 0).is_none() {
            continue;
        }
        let Node { resting, method_rules, missing_methods, .. } = &pool.nodes[node];
        if method_rules.rules_out(query.kind.id(), query.method) {
            closed.push(node);
            continue;
        }
        if let Some(until) = pool.nodes[node].credits_wait(query.method, now) {
            rests = true;
            closed.push(node);
            out_of_question.push(node);
            earliest = [earliest, Some(until)].into_iter().flatten().min();
            continue;
        }
        if missing_methods.has(query.kind.id(), query.method, now) {
            last.push(node);
        }
        match resting.state(query.kind, query.again, now) {
            RestState::Free => {}
            RestState::Due => due.push(node),
            RestState::Last => last.push(node),
            RestState::Rests(until) => {
                rests = true;
                closed.push(node);
                earliest = [earliest, Some(until)].into_iter().flatten().min();
            }
        }
    }
    // A node whose rest is over ranks as if the node had not rested.
    let lifted = due.iter().any(|&node| snapshot.nodes[node].verdict == Verdict::Resting).then(|| {
        let mut lifted = (**snapshot).clone();
        due.iter().for_each(|&node| lifted.nodes[node].verdict = Verdict::Up);
        lifted
    });
    let best = |shut: &[NodeId]| {
        let snapshot = lifted.as_ref().unwrap_or(&snapshot);
        route::best_node(snapshot, load, served, policy, query.class, shut)
    };
    // An unsafe call is a scout only where no other node is left. A node that keeps failing this
    // kind of exchange, or lacks the method or the blocks, comes last.
    let not_first = || last.iter().chain(if query.class == Class::Unsafe { &due[..] } else { &[] });
    let mut first = closed.clone();
    first.extend(not_first());
    for mut shut in [first, closed] {
        while let Some(node) = best(&shut) {
            if !due.contains(&node) {
                return Choice::Node(node, None);
            }
            if let Some(scout) = pool.scout(node, query.kind, query.again) {
                return Choice::Node(node, Some(scout));
            }
            rests = true;
            shut.push(node);
        }
    }
    if rests
        && query.is_urgent
        && !query.again
        && let Some(node) = least_bad(pool, NodeQuery { tried: &out_of_question, ..query }, policy, load)
    {
        return Choice::Node(node, None);
    }
    if rests { Choice::Rest(earliest) } else { Choice::Nowhere }
}

/// The nodes that probably lack the blocks that a call needs.
fn lacking(pool: &Pool, snapshot: &Snapshot, asked: &AskedBlocks) -> Vec<NodeId> {
    let lacks =
        |node: NodeId, height| pool.nodes[node].block_range.lacks(asked.data, height, snapshot.nodes[node].number());
    let height = |node: NodeId| snapshot.nodes[node].number().max(pool.nodes[node].traffic.max_height());
    out_of_reach(snapshot, asked, height, lacks)
}

/// The best of the nodes that rest, as if they did not: the active node first.
fn least_bad(
    pool: &Pool,
    query: NodeQuery<'_>,
    policy: (Policy, u64),
    load: impl Fn(NodeId) -> Load,
) -> Option<NodeId> {
    let (served, snapshot) = pool.served_and_snapshot();
    let mut rested = (**snapshot).clone();
    for facts in rested.nodes.iter_mut().filter(|facts| facts.verdict == Verdict::Resting) {
        facts.verdict = Verdict::Up;
    }
    let may_serve = |node: &NodeId| !query.tried.contains(node) && rested.nodes[*node].preference(0, 0).is_some();
    let active = rested.active.filter(may_serve);
    let active = active.filter(|active| query.class == Class::NodeLocal && rested.nodes[*active].verdict.is_usable());
    active.or_else(|| route::best_node(&rested, load, served, policy, query.class, query.tried))
}

/// As [`choose`], where all nodes are full: of the nodes that may serve, the one with the shortest
/// line.
pub fn shortest_line<'a>(pool: &'a Pool, query: NodeQuery<'_>) -> Choice<'a> {
    let first = choose(pool, query);
    let Choice::Node(mut best, None) = first else { return first };
    let line = |node: NodeId| pool.nodes[node].line();
    let mut seen = [query.tried, &[best]].concat();
    while let Choice::Node(node, None) = choose(pool, NodeQuery { tried: &seen, ..query }) {
        if line(node) < line(best) {
            best = node;
        }
        seen.push(node);
    }
    Choice::Node(best, None)
}

/// The earliest end of a rest, or of a wait for credits, if all nodes that may serve rest or have
/// too few credits for a call of `method`.
pub fn rest_ends(pool: &Pool, kind: Kind, method: &str) -> Option<Instant> {
    let now = Instant::now();
    let snapshot = pool.snapshot();
    let serving = snapshot.nodes.iter().zip(&pool.nodes).filter(|(known, _)| known.preference(0, 0).is_some());
    let ends = serving.map(|(_, node)| match node.resting.state(kind, false, now) {
        RestState::Rests(until) => Some(until),
        _ => node.credits_wait(method, now),
    });
    ends.collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// Why no node answered an exchange. `failure` is the fault of its last attempt, where nothing was
/// sent.
pub fn unserved(pool: &Pool, failure: Option<Fault>) -> Unserved {
    match (pool.snapshot().unserved(), failure) {
        (Unserved::Failed, Some(Fault::Full)) => Unserved::Full,
        (Unserved::Failed, Some(Fault::Ours)) => Unserved::Exhausted,
        (why, _) => why,
    }
}

/// Whole seconds until then, at least one.
pub fn seconds_to(then: Instant) -> u32 {
    let left = then.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
    (left as u32).max(1)
}
