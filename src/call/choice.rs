//! The node that a call goes to next, where some may rest: see [`crate::pool::resting`].

use tokio::time::Instant;

use crate::{
    config::Policy,
    domain::{method::Class, refusal::Unserved, verdict::Verdict},
    pool::{
        Pool, Scout,
        health::Fault,
        resting::{Kind, Standing},
    },
    route::{self, Load},
};

/// What a call asks for.
#[derive(Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) policy: Policy,
    pub(super) class: Class,
    pub(super) kind: Kind,
    /// Nodes that have had their chance.
    pub(super) tried: &'a [usize],
    /// Whether all nodes failed it before.
    pub(super) again: bool,
}

/// Where a call goes.
pub(super) enum Choice<'a> {
    /// To this node, as a scout if it has been resting.
    Node(usize, Option<Scout<'a>>),
    /// All that may serve rest, until this moment at least if that is known.
    Rest(Option<Instant>),
    /// Nowhere.
    Nowhere,
}

/// The best node for a call. One that rests is passed over, and one whose rest is over gets a scout
/// in its turn.
pub(super) fn choose<'a>(pool: &'a Pool, wish: Wish<'_>) -> Choice<'a> {
    let load = |node: usize| {
        let traffic = &pool.nodes[node].traffic;
        Load { in_flight: traffic.in_flight(), told: traffic.max_height() }
    };
    let snapshot = pool.snapshot();
    if !pool.is_any_resting() {
        return match route::next(&snapshot, load, pool.served(), wish.policy, wish.class, wish.tried) {
            Some(node) => Choice::Node(node, None),
            None => Choice::Nowhere,
        };
    }
    let now = Instant::now();
    let (mut closed, mut last, mut due) = (wish.tried.to_vec(), Vec::new(), Vec::new());
    let (mut rests, mut earliest) = (false, None);
    for (node, known) in snapshot.nodes.iter().enumerate() {
        if wish.tried.contains(&node) || known.rank(0, 0).is_none() {
            continue;
        }
        match pool.nodes[node].resting.standing(wish.kind, wish.again, now) {
            Standing::Free => {}
            Standing::Due => due.push(node),
            Standing::Last => last.push(node),
            Standing::Rests(until) => {
                rests = true;
                closed.push(node);
                earliest = [earliest, until].into_iter().flatten().min();
            }
        }
    }
    // A node whose rest is over is as good as its rank without it.
    let lifted = due.iter().any(|&node| snapshot.nodes[node].verdict == Verdict::Resting).then(|| {
        let mut lifted = (**snapshot).clone();
        due.iter().for_each(|&node| lifted.nodes[node].verdict = Verdict::Up);
        lifted
    });
    let best = |shut: &[usize]| {
        let snapshot = lifted.as_ref().unwrap_or(&snapshot);
        route::next(snapshot, load, pool.served(), wish.policy, wish.class, shut)
    };
    // What may not be tried twice is no scout while another node is there, and what fails this kind
    // of calls comes last.
    let not_first = || last.iter().chain(if wish.class == Class::Unsafe { &due[..] } else { &[] });
    let mut first = closed.clone();
    first.extend(not_first());
    for mut shut in [first, closed] {
        while let Some(node) = best(&shut) {
            if !due.contains(&node) {
                return Choice::Node(node, None);
            }
            if let Some(scout) = pool.scout(node, wish.kind, wish.again) {
                return Choice::Node(node, Some(scout));
            }
            rests = true;
            shut.push(node);
        }
    }
    if rests { Choice::Rest(earliest) } else { Choice::Nowhere }
}

/// When the first of the nodes that may serve has rested, if all of them rest.
pub(super) fn rest_ends(pool: &Pool, kind: Kind) -> Option<Instant> {
    let now = Instant::now();
    let snapshot = pool.snapshot();
    let serving = snapshot.nodes.iter().zip(&pool.nodes).filter(|(known, _)| known.rank(0, 0).is_some());
    let ends = serving.map(|(_, node)| match node.resting.standing(kind, false, now) {
        Standing::Rests(until) => Some(until.unwrap_or(now)),
        _ => None,
    });
    ends.collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// Why no node answered a call, the last attempt at which failed for this, as far as it was not
/// sent.
pub(super) fn unserved(pool: &Pool, failure: Option<Fault>) -> Unserved {
    match (pool.snapshot().unserved(), failure) {
        (Unserved::Failed, Some(Fault::Full)) => Unserved::Full,
        (Unserved::Failed, Some(Fault::Ours)) => Unserved::Exhausted,
        (why, _) => why,
    }
}

/// Whole seconds until then, at least one.
pub(super) fn seconds_to(then: Instant) -> u32 {
    let left = then.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
    (left as u32).max(1)
}
