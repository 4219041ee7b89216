//! The evidence of calls against a node, and the conclusions from it.
//!
//! The rule: **calls raise the question, and questions of our own answer it.** A call that a node
//! failed and another node answered may have failed by its own nature, and so may all calls of one
//! method, or of one client. So nothing that clients do takes a node out by itself. Failures count
//! as follows:
//!
//! - HTTP 4xx speaks of the request, and quota has a [rest](super::resting): neither counts here.
//! - `fall` failures in a row of one method, with no good answer of that method in between, have
//!   calls of that method pass the node over for a while, if another is there. All other calls go
//!   on. Errors that may be the call's own fault ([`Fault::Erring`]) count for the next rule only.
//! - `fall` failures in a row of two methods or more, with no good answer to any call in between,
//!   have the node *examined*: the node is asked harmless questions of those methods, the same for
//!   all nodes, and so is the node that answered. A node that fails two questions that the other
//!   answers is out, and stays out until it answers these too.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    Pool,
    ask::{self, NodeRefusal},
    health::{Fault, Trouble},
    node::Node,
    own_question::{Clock, OwnQuestion},
    probe,
    resting::Kind,
    snapshot::Facts,
    state::Input,
};
use crate::domain::{
    backoff::doubled,
    beacon_route::Route,
    layer::Layer,
    method::{Method, MethodId},
    node_id::{ByNode, NodeId},
};

/// The pause after an examination that found nothing, and the longest: each is twice the one
/// before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How many questions are asked at least and at most, and how many must be failed.
const FEW: usize = 3;
const MANY: usize = 5;
const GUILTY: usize = 2;
/// The longest answer to a question, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// The consequence of a failed call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    /// Calls of this method pass the node over.
    pass_over: bool,
    /// The node is examined.
    examine: bool,
}

/// The consequence of a failure: `of_method` failures in a row of its method (0: a kind that is not
/// counted by method), and `in_all` failures in a row of all calls, of so many `methods`.
fn weigh(of_method: u32, in_all: u32, methods: usize, fall: u32) -> Step {
    Step { pass_over: of_method >= fall, examine: in_all >= fall && methods >= 2 }
}

/// How a node took a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Took {
    Well,
    /// No evidence: the node does not offer the method, has no quota or connection left, or this
    /// machine could not ask.
    Declined,
    Failed,
}

/// Whether a node is to blame, by its own and another node's outcome for the same questions.
fn is_guilty(taken: &[(Took, Took)]) -> bool {
    taken.iter().filter(|(this, other)| (*this, *other) == (Took::Failed, Took::Well)).count() >= GUILTY
}

/// A harmless question: for an execution node a method and its params, for a consensus node a group
/// of routes and a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question(&'static str, &'static str);

/// If fewer questions than `FEW` are about the failed methods, the first of the others are asked
/// too.
const OF_EXECUTION: [Question; 16] = [
    Question("eth_call", r#"[{"to":"0x0000000000000000000000000000000000000000","data":"0x"},"latest"]"#),
    Question("eth_getBalance", r#"["0x0000000000000000000000000000000000000000","latest"]"#),
    Question("eth_gasPrice", "[]"),
    Question("eth_blockNumber", "[]"),
    Question("eth_getCode", r#"["0x0000000000000000000000000000000000000000","latest"]"#),
    Question("eth_getStorageAt", r#"["0x0000000000000000000000000000000000000000","0x0","latest"]"#),
    Question("eth_getTransactionCount", r#"["0x0000000000000000000000000000000000000000","latest"]"#),
    Question(
        "eth_getLogs",
        r#"[{"fromBlock":"latest","toBlock":"latest","address":"0x0000000000000000000000000000000000000000"}]"#,
    ),
    Question("eth_getTransactionByHash", r#"["0x0000000000000000000000000000000000000000000000000000000000000000"]"#),
    Question("eth_getTransactionReceipt", r#"["0x0000000000000000000000000000000000000000000000000000000000000000"]"#),
    Question("eth_getBlockByHash", r#"["0x0000000000000000000000000000000000000000000000000000000000000000",false]"#),
    Question("eth_getBlockByNumber", r#"["latest",false]"#),
    Question("eth_feeHistory", r#"["0x1","latest",[]]"#),
    Question("eth_maxPriorityFeePerGas", "[]"),
    Question("eth_chainId", "[]"),
    Question("net_version", "[]"),
];

const OF_CONSENSUS: [Question; 5] = [
    Question("states", "/eth/v1/beacon/states/head/finality_checkpoints"),
    Question("blocks", "/eth/v1/beacon/blocks/head/root"),
    Question("node", "/eth/v1/node/version"),
    Question("headers", "/eth/v1/beacon/headers/head"),
    Question("config", "/eth/v1/config/spec"),
];

impl Question {
    fn method(self, layer: Layer) -> Option<MethodId> {
        match layer {
            Layer::El => Some(Method::of(self.0).id),
            Layer::Cl => Route::GROUPS.iter().position(|group| *group == self.0).map(MethodId),
        }
    }

    /// The questions about calls of these methods.
    fn about(methods: &[MethodId], layer: Layer) -> Vec<Self> {
        let all: &[Self] = match layer {
            Layer::El => &OF_EXECUTION,
            Layer::Cl => &OF_CONSENSUS,
        };
        let is_about = |question: &&Self| question.method(layer).is_some_and(|method| methods.contains(&method));
        let mut questions: Vec<Self> = all.iter().filter(is_about).copied().take(MANY).collect();
        let more = all.iter().filter(|question| !is_about(question)).copied();
        let missing = FEW.saturating_sub(questions.len());
        questions.extend(more.take(missing));
        questions
    }

    async fn put_to(self, node: &Node, layer: Layer, limit: Duration) -> (Took, String) {
        let clock = Clock::new(limit);
        let question = OwnQuestion::new(Some(&clock), None);
        let asked = async {
            match layer {
                Layer::El => match ask::ask(question, node, self.0, self.1, MAX_ANSWER).await {
                    Ok(Ok(_)) => (Took::Well, String::new()),
                    Ok(Err(NodeRefusal { is_offered: true, text, .. })) => (Took::Failed, text),
                    Ok(Err(NodeRefusal { text, .. })) => (Took::Declined, text),
                    Err(trouble) => Self::failed(trouble),
                },
                Layer::Cl => match probe::status_of(question, node, self.1).await {
                    Ok(200..=299) => (Took::Well, String::new()),
                    Ok(status @ (300..=499 | 501)) => (Took::Declined, format!("{}: HTTP status {status}", self.1)),
                    Ok(status) => (Took::Failed, format!("{}: HTTP status {status}", self.1)),
                    Err(trouble) => Self::failed(trouble),
                },
            }
        };
        let late = || (Took::Failed, format!("{}: no answer within {limit:?}", self.0));
        clock.limits(asked).await.unwrap_or_else(late)
    }

    fn failed(trouble: Trouble) -> (Took, String) {
        match trouble.fault {
            Fault::Ours | Fault::Full | Fault::Resting(_) => (Took::Declined, trouble.text),
            _ => (Took::Failed, trouble.text),
        }
    }
}

/// The evidence of one node's calls.
#[derive(Debug, Default)]
pub struct Evidence {
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last good answer to a call, and their methods.
    in_a_row: u32,
    methods: Vec<MethodId>,
    /// The node is to be examined, beside this one, which answered.
    beside: Option<NodeId>,
    /// There is no examination before this moment, and the next pause after it is so long.
    not_before: Option<Instant>,
    pause: Duration,
    /// The failures that examinations have proved, and whether the node has been out for them yet.
    failed: Vec<Question>,
    is_out: bool,
}

impl Evidence {
    /// A call was answered well.
    pub fn answered(&self) {
        if self.any.load(Relaxed) {
            self.any.store(false, Relaxed);
            let mut state = self.lock();
            state.in_a_row = 0;
            state.methods.clear();
        }
    }

    /// Notes that a call of `method` failed, which node `other` answered. Returns the consequences:
    /// calls of the method pass the node over, or the node is examined now, or both.
    fn failed(&self, method: MethodId, of_method: u32, other: NodeId, fall: u32, now: Instant) -> Step {
        self.any.store(true, Relaxed);
        let mut state = self.lock();
        state.in_a_row = state.in_a_row.saturating_add(1);
        if !state.methods.contains(&method) {
            state.methods.push(method);
        }
        let mut step = weigh(of_method, state.in_a_row, state.methods.len(), fall);
        step.examine &= state.beside.is_none() && state.not_before.is_none_or(|not_before| now >= not_before);
        if step.examine {
            state.beside = Some(other);
        }
        step
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// A call of this kind was answered well.
    pub fn call_answered(&self, node: NodeId, kind: Kind) {
        self.answered(node, kind, None);
    }

    /// The same of a call that was sent at that moment, perhaps while the node rested.
    pub fn call_answered_since(&self, node: NodeId, kind: Kind, sent: Instant) {
        self.answered(node, kind, Some(sent));
    }

    fn answered(&self, node: NodeId, kind: Kind, sent: Option<Instant>) {
        let Node { evidence, resting, traffic, .. } = &self.nodes[node];
        traffic.answered(kind.id());
        evidence.answered();
        if resting.is_any() && resting.answered(kind, sent, Instant::now()) {
            self.rest_changed(node);
        }
    }

    /// A call of this kind failed in a way that may be the node's fault; `other` is the node that
    /// answered the call, if one did. A refused connection has the node probed at once, and counts
    /// like a failed probe; for all other failures, the rule is at the head of this file.
    pub fn call_failed(&self, node: NodeId, kind: Kind, trouble: Trouble, other: Option<NodeId>) {
        let Node { evidence, resting, traffic, .. } = &self.nodes[node];
        match (trouble.fault, other) {
            (Fault::Ours | Fault::Full | Fault::Resting(_), _) => {}
            (Fault::Unreachable, _) => {
                // A full inbox is full of the same news.
                let _ = self.inbox.try_send(Input::CallFailed(node, trouble));
            }
            (_, None) => {}
            (fault, Some(other)) => {
                let now = Instant::now();
                let of_method = if fault == Fault::Erring { 0 } else { traffic.failed(kind.id()) };
                let step = evidence.failed(kind.id(), of_method, other, self.settings.fall.get(), now);
                if step.pass_over {
                    resting.failed(kind, now);
                }
                if step.examine {
                    self.probe_now(node);
                }
            }
        }
    }
}

/// Examines a node, if its failed calls demand an examination. Returns the trouble if the node is
/// guilty.
pub(super) async fn examine(pool: &Pool, index: NodeId) -> Option<Trouble> {
    let (node, layer, limit) = (&pool.nodes[index], pool.layer, pool.settings.timeout);
    let (beside, methods) = {
        let mut state = node.evidence.lock();
        let beside = state.beside.take()?;
        state.in_a_row = 0;
        (beside, std::mem::take(&mut state.methods))
    };
    let questions = Question::about(&methods, layer);
    let taken = join_all(questions.iter().map(|question| question.put_to(node, layer, limit))).await;
    let failed = || questions.iter().copied().zip(&taken).filter(|(_, (took, _))| *took == Took::Failed);
    let mut guilty = false;
    if failed().count() >= GUILTY {
        let other = &pool.nodes[beside];
        let others = join_all(failed().map(|(question, _)| question.put_to(other, layer, limit))).await;
        guilty = is_guilty(&others.iter().map(|(took, _)| (Took::Failed, *took)).collect::<Vec<_>>());
    }
    let mut state = node.evidence.lock();
    let pause = if state.pause.is_zero() || guilty { FIRST_PAUSE } else { doubled(state.pause, 1, LONGEST_PAUSE) };
    (state.pause, state.not_before) = (pause, Some(Instant::now() + pause));
    if !guilty {
        return None;
    }
    (state.failed, state.is_out) = (failed().map(|(question, _)| question).collect(), false);
    let text = failed().map(|(_, (_, text))| text.clone()).next().unwrap_or_default();
    Some(Trouble { fault: Fault::Failing, text: node.redact_text(&format!("fails what another node answers: {text}")) })
}

/// Asks a node again the questions that it failed, while it is out for that.
pub(super) async fn examine_again(pool: &Pool, index: NodeId) -> Option<Trouble> {
    let (node, layer, limit) = (&pool.nodes[index], pool.layer, pool.settings.timeout);
    let serves = |(other, facts): (NodeId, &Facts)| other != index && facts.preference(0, 0).is_some();
    if !pool.snapshot().nodes.by_node().any(serves) {
        // The node answers calls that no other node answers.
        return None;
    }
    let questions = {
        let mut state = node.evidence.lock();
        let is_in = pool.snapshot().nodes[index].verdict.is_in();
        if is_in && state.is_out {
            state.failed.clear();
        }
        state.is_out |= !is_in;
        state.failed.clone()
    };
    let taken = join_all(questions.iter().map(|question| question.put_to(node, layer, limit))).await;
    let (_, text) = taken.into_iter().find(|(took, _)| *took == Took::Failed)?;
    Some(Trouble {
        fault: Fault::Failing,
        text: node.redact_text(&format!("still fails what another node answers: {text}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_method_passes_the_node_over_and_several_examine_it() {
        for (of_method, in_all, methods, pass_over, examine) in [
            // Too few to say anything.
            (1, 1, 1, false, false),
            (2, 2, 1, false, false),
            (1, 2, 2, false, false),
            // A single method, however often.
            (3, 3, 1, true, false),
            (1000, 1000, 1, true, false),
            // Several.
            (1, 3, 2, false, true),
            (1, 3, 3, false, true),
            (3, 5, 2, true, true),
            // A method fails by nature, and other calls are answered in between.
            (4, 1, 1, true, false),
            // Failures that are not counted by method.
            (0, 3, 1, false, false),
            (0, 3, 2, false, true),
        ] {
            let step = weigh(of_method, in_all, methods, 3);
            assert_eq!(step, Step { pass_over, examine }, "{of_method} {in_all} {methods}");
        }
    }

    #[test]
    fn a_node_is_guilty_of_what_it_fails_and_another_answers_twice() {
        use Took::{Declined, Failed, Well};
        for (taken, guilty) in [
            (vec![], false),
            (vec![(Failed, Well)], false),
            (vec![(Failed, Well), (Failed, Well)], true),
            (vec![(Failed, Well), (Failed, Failed), (Well, Well)], false),
            (vec![(Failed, Well), (Failed, Declined), (Declined, Well)], false),
            (vec![(Failed, Well), (Well, Well), (Failed, Well)], true),
        ] {
            assert_eq!(is_guilty(&taken), guilty, "{taken:?}");
        }
    }

    #[test]
    fn the_questions_are_of_the_failed_methods_and_never_too_few() {
        let names =
            |methods: &[MethodId], layer| Question::about(methods, layer).iter().map(|q| q.0).collect::<Vec<_>>();
        let method = |name| Method::of(name).id;
        assert_eq!(names(&[], Layer::El), ["eth_call", "eth_getBalance", "eth_gasPrice"]);
        assert_eq!(
            names(&[method("eth_getLogs"), method("x_y")], Layer::El),
            ["eth_getLogs", "eth_call", "eth_getBalance"]
        );
        let all: Vec<MethodId> = (0..=Method::COUNT).map(MethodId).collect();
        assert_eq!(names(&all, Layer::El).len(), MANY);
        let config = Route::of("GET", "/eth/v1/config/spec").id;
        assert_eq!(names(&[config], Layer::Cl), ["config", "states", "blocks"]);
        for question in OF_EXECUTION {
            assert_ne!(Method::of(question.0).id, MethodId(Method::COUNT), "{}", question.0);
            assert!(serde_json::from_str::<serde_json::Value>(question.1).is_ok(), "{}", question.0);
        }
        for Question(group, path) in OF_CONSENSUS {
            assert_eq!(Route::of("GET", path).group, group);
        }
    }

    #[test]
    fn a_good_answer_ends_a_run_and_one_examination_is_enough() {
        let (evidence, now) = (Evidence::default(), Instant::now());
        let fails = |method, of_method| evidence.failed(MethodId(method), of_method, NodeId(1), 3, now).examine;
        assert!(!fails(1, 1) && !fails(2, 1));
        evidence.answered();
        assert!(!fails(1, 2) && !fails(2, 2));
        assert!(fails(1, 3));
        assert!(!fails(2, 3), "it is asked for already");
    }
}
