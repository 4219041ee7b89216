//! An attempt that takes long: whether another node would do better.
//!
//! The rule, in one place. A long call is no dead node: while the node answers its probes, the
//! attempt goes on, and no second one is begun. A second one is begun beside it, at another usable
//! node, when the node of the first is no longer well, or when it is the last moment at which a
//! second attempt would still have `calls.attempt_timeout`: with the defaults 20 s after the call
//! came. The first good answer is the client's.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Calls, Terms,
    attempt::Attempt,
    choice::{Choice, Wish, choose},
    leaving::Leaving,
};
use crate::{
    domain::{
        method::{Again, Class, Method},
        rpc::Request,
    },
    pool::{Scout, resting::Kind},
};

/// How often the node of a long attempt is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// An attempt under way, and the call that it is for.
#[derive(Clone, Copy)]
pub(super) struct Late<'a, 'c> {
    pub(super) calls: &'a Calls,
    pub(super) request: &'a Request<'a>,
    pub(super) method: Method,
    pub(super) terms: &'a Terms<'a>,
    pub(super) kind: Kind,
    pub(super) deadline: Instant,
    /// The node of the attempt.
    pub(super) node: usize,
    pub(super) started: Instant,
    /// The nodes that have failed the call.
    pub(super) tried: &'c [usize],
}

/// What to do about a long attempt.
pub(super) enum Next<'a> {
    /// Look again then.
    At(Instant),
    /// Begin this one beside it.
    Beside(Beside<'a>),
}

/// A second attempt.
pub(super) struct Beside<'a> {
    pub(super) node: usize,
    pub(super) attempt: Attempt<'a>,
    /// Kept until it is known what became of the attempt.
    pub(super) scout: Option<Scout<'a>>,
}

impl<'a> Late<'a, '_> {
    /// The attempt at `node`.
    pub(super) fn attempt(&self, node: usize) -> Attempt<'a> {
        Attempt {
            node: &self.calls.pool.nodes[node],
            body: self.request.raw,
            headers: self.terms.headers,
            verify: self.terms.verify,
            leaving: Leaving::new(self.terms, self.method),
            memory: Some(self.terms.memory),
            caller: self.terms.caller,
            id: self.request.id,
            again: self.method.again(),
            patience: (self.started + self.calls.settings.attempt_timeout).min(self.deadline),
            limit: self.deadline,
        }
    }

    /// What to do now.
    pub(super) fn next(&self) -> Next<'a> {
        let Calls { pool, settings, .. } = self.calls;
        let now = Instant::now();
        let may_be_sent_twice = matches!(self.method.class, Class::Read | Class::RawTransaction);
        if !may_be_sent_twice || self.method.again() != Again::Anywhere {
            return Next::At(self.deadline);
        }
        let last = (self.deadline - settings.attempt_timeout).max(self.started + settings.attempt_timeout);
        if pool.answers_probes(self.node) && now < last {
            return Next::At(last.min(now + LOOK));
        }
        let tried = [self.tried, &[self.node]].concat();
        let (policy, class, kind) = (settings.policy, self.method.class, self.kind);
        match choose(pool, Wish { policy, class, kind, tried: &tried, again: false }) {
            Choice::Node(node, scout) if pool.is_usable(node) => {
                Next::Beside(Beside { node, attempt: self.attempt(node), scout })
            }
            _ => Next::At(now + LOOK),
        }
    }
}
