//! Finds the topics that nodes do not know.
//!
//! Rule: where a node refuses a set of topics, each topic is tried alone, and meanwhile the stream
//! carries the others. Reason: the refusal does not name the unknown topic. Example: a client adds
//! `head_v2` and `block_gossip` to a stream of `head`, and the node answers 400. Both are tried;
//! the node refuses `head_v2` alone, so `block_gossip` joins the stream, and `head_v2` is not asked
//! for in the next [`FORGET`]. Where the node knows each topic alone, or a stream opens without the
//! topics, all are asked for together once more before they count as refused: a gateway may have
//! answered in the place of the node.
//!
//! Rule: where a stream with more topics is lost, or fails in another way than by a refusal, the
//! topics count as refused when that happens again and a stream without them opens then. Reason: a
//! busy or starting node fails any stream once. Example: a client adds `attestation` and the node
//! answers 503. A second later the stream opens, and the client never hears of the failure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinSet, time::Instant};

use super::super::{node, topics::Names};
use crate::{domain::node_id::NodeId, pool::Pool};

/// How long a topic that a node does not know is not asked for again.
const FORGET: Duration = Duration::from_secs(60);
/// Refusals that are remembered, of all nodes, and failures likewise. Clients come and go, and each
/// may have brought topics of its own.
const REMEMBERED: usize = 512;

/// Status and body of a node's answer to an unknown topic.
pub(super) type Refusal = (u16, Bytes);

/// The trials under way, and their results.
#[derive(Default)]
pub(super) struct Trials {
    running: JoinSet<Trial>,
    /// The pool of the nodes that are tried.
    pool: Option<Arc<Pool>>,
    /// No topic is in two sets of one node, since a suspected topic is not asked for.
    suspects: Vec<Suspects>,
    /// Topics with which a stream failed once, and until when that counts.
    doubted: BTreeMap<(NodeId, String), Instant>,
    /// Topics with which streams failed, while a stream without them is tried.
    compared: Vec<(NodeId, Names)>,
    /// The topics refused, with the end of the refusal and the node's answer.
    refused: BTreeMap<(NodeId, String), (Instant, Refusal)>,
}

/// The result of a trial.
enum Trial {
    /// Of one topic alone: `None` where the node knows the topic, or does not say.
    Alone(NodeId, String, Option<Refusal>),
    /// Of topics that were found alone, together once more: `None` where the node opens their
    /// stream, or does not say.
    Together(NodeId, Names, Option<Refusal>),
    /// Whether a stream without these doubted topics opens, and one with them does not.
    Without(NodeId, Names, bool),
}

/// Topics that a node refused together.
struct Suspects {
    node: NodeId,
    topics: Names,
    /// All topics of the stream that was refused.
    all: Names,
    untried: Names,
    found: bool,
}

impl Trials {
    /// Whether the node may be asked for this topic now.
    pub(super) fn may_ask(&self, node: NodeId, topic: &str) -> bool {
        let is_suspected = self.suspects.iter().any(|set| set.node == node && set.topics.contains(topic))
            || self.compared.iter().any(|(of, topics)| *of == node && topics.contains(topic));
        !is_suspected && !self.refused.contains_key(&(node, topic.to_owned()))
    }

    /// The node's answers to the topics that are unknown to the node.
    pub(super) fn refused_by(&self, node: NodeId) -> BTreeMap<String, Refusal> {
        let of_node = self.refused.iter().filter(|((at, _), _)| *at == node);
        of_node.map(|((_, topic), (_, refusal))| (topic.clone(), refusal.clone())).collect()
    }

    /// The node refused these topics as a part of `all`: each is tried, if there is more than one.
    pub(super) fn begin(&mut self, pool: &Arc<Pool>, node: NodeId, (topics, all): (Names, Names), refusal: Refusal) {
        if topics.len() == 1 {
            return self.refuse(node, topics, &refusal);
        }
        for topic in topics.clone() {
            let pool = pool.clone();
            self.running.spawn(async move {
                Trial::Alone(node, topic.clone(), node::refuses(&pool, node, &[topic].into()).await)
            });
        }
        self.pool = Some(pool.clone());
        self.suspects.push(Suspects { node, untried: topics.clone(), topics, all, found: false });
    }

    /// A stream of the node failed with these topics, beside a good one that is `without` them.
    pub(super) fn failed(&mut self, pool: &Arc<Pool>, node: NodeId, mut topics: Names, without: Names) {
        let again = |topic: &String| self.doubted.contains_key(&(node, topic.clone()));
        if !topics.iter().any(again) {
            let until = Instant::now() + FORGET;
            self.doubted.extend(topics.into_iter().map(|topic| ((node, topic), until)));
            bound(&mut self.doubted, |until| *until);
            return;
        }
        topics.retain(|topic| again(topic));
        self.compared.push((node, topics.clone()));
        let pool = pool.clone();
        self.running.spawn(async move {
            let is_open = node::opens(&pool, node, &without).await;
            let all = without.union(&topics).cloned().collect();
            let is_refused = is_open && !node::keeps_open(&pool, node, &all).await;
            Trial::Without(node, topics, is_refused)
        });
    }

    /// A stream of the node lasts with these topics.
    pub(super) fn lasts(&mut self, node: NodeId, topics: &Names) {
        self.doubted.retain(|(of, topic), _| *of != node || !topics.contains(topic));
    }

    fn compared(&mut self, node: NodeId, topics: Names, is_refused: bool) {
        self.compared.retain(|other| (other.0, &other.1) != (node, &topics));
        self.lasts(node, &topics);
        if is_refused {
            let body = Bytes::from_static(br#"{"code":503,"message":"no node sends these topics now"}"#);
            self.refuse(node, topics, &(503, body));
        }
    }

    /// Whether any trial is under way.
    pub(super) fn are_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Completes when a trial has its answer. Cancel-safe.
    pub(super) async fn next(&mut self) {
        match self.running.join_next().await {
            Some(Ok(Trial::Alone(node, topic, refusal))) => {
                if let (Some((topics, all)), Some(pool)) = (self.tried(node, topic, refusal), self.pool.clone()) {
                    self.running
                        .spawn(async move { Trial::Together(node, topics, node::refuses(&pool, node, &all).await) });
                }
            }
            Some(Ok(Trial::Together(node, topics, refusal))) => self.together(node, topics, refusal),
            Some(Ok(Trial::Without(node, topics, is_refused))) => self.compared(node, topics, is_refused),
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => {}
        }
    }

    /// Takes note of the trial of one topic. Returns the topics to ask for together once more, and
    /// all topics of their stream, when each was found alone.
    fn tried(&mut self, node: NodeId, topic: String, refusal: Option<Refusal>) -> Option<(Names, Names)> {
        let is_of = |set: &Suspects| set.node == node && set.untried.contains(&topic);
        let set = self.suspects.iter_mut().find(|set| is_of(set))?;
        set.untried.remove(&topic);
        set.found |= refusal.is_some();
        let is_done = set.untried.is_empty();
        let again = (is_done && !set.found).then(|| (set.topics.clone(), set.all.clone()));
        if is_done && again.is_none() {
            self.suspects.retain(|set| set.node != node || !set.topics.contains(&topic));
        }
        if let Some(refusal) = refusal {
            self.refuse(node, Names::from([topic]), &refusal);
        }
        again
    }

    /// Takes note of the trial of topics together, of which the node knows each alone.
    fn together(&mut self, node: NodeId, topics: Names, refusal: Option<Refusal>) {
        self.suspects.retain(|set| set.node != node || set.topics != topics);
        if let Some(refusal) = refusal {
            self.refuse(node, topics, &refusal);
        }
    }

    /// The node is not asked for these topics for a while.
    pub(super) fn refuse(&mut self, node: NodeId, topics: Names, refusal: &Refusal) {
        let until = Instant::now() + FORGET;
        self.refused.extend(topics.into_iter().map(|topic| ((node, topic), (until, refusal.clone()))));
        bound(&mut self.refused, |(until, _)| *until);
    }

    /// Forgets refusals and failures whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.refused.retain(|_, (until, _)| *until > now);
        self.doubted.retain(|_, until| *until > now);
    }
}

/// Forgets the oldest of the topics that are too many.
fn bound<T>(topics: &mut BTreeMap<(NodeId, String), T>, until: impl Fn(&T) -> Instant) {
    while topics.len() > REMEMBERED {
        let oldest = topics.iter().min_by_key(|(_, value)| until(value)).map(|(key, _)| key.clone());
        oldest.and_then(|key| topics.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Names {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn refusal(text: &'static str) -> Refusal {
        (400, Bytes::from_static(text.as_bytes()))
    }

    fn suspecting(topics: &[&str]) -> Trials {
        let mut trials = Trials::default();
        let topics = names(topics);
        let (untried, all) = (topics.clone(), topics.clone());
        trials.suspects.push(Suspects { node: NodeId(3), untried, topics, all, found: false });
        trials
    }

    #[tokio::test(start_paused = true)]
    async fn the_topic_that_is_refused_alone_is_the_one() {
        let mut trials = suspecting(&["a", "b"]);
        assert!(
            !trials.may_ask(NodeId(3), "a")
                && !trials.may_ask(NodeId(3), "b")
                && trials.may_ask(NodeId(3), "c")
                && trials.may_ask(NodeId(2), "a")
        );
        assert_eq!(trials.tried(NodeId(3), "a".to_owned(), Some(refusal("a"))), None);
        assert_eq!(trials.tried(NodeId(3), "b".to_owned(), None), None);
        assert!(!trials.may_ask(NodeId(3), "a") && trials.may_ask(NodeId(3), "b") && trials.may_ask(NodeId(2), "a"));
        assert_eq!(trials.refused_by(NodeId(3)), BTreeMap::from([("a".to_owned(), refusal("a"))]));
        trials.expire(Instant::now() + FORGET);
        assert!(trials.may_ask(NodeId(3), "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn topics_that_are_refused_only_together_are_all_refused() {
        for again in [None, Some(refusal("all of them"))] {
            let mut trials = suspecting(&["a", "b"]);
            assert_eq!(trials.tried(NodeId(3), "a".to_owned(), None), None);
            let both = names(&["a", "b"]);
            assert_eq!(trials.tried(NodeId(3), "b".to_owned(), None), Some((both.clone(), both.clone())));
            assert!(!trials.may_ask(NodeId(3), "a"));
            trials.together(NodeId(3), both, again.clone());
            assert_eq!(trials.may_ask(NodeId(3), "a"), again.is_none());
            assert_eq!(trials.refused_by(NodeId(3)).get("b"), again.as_ref());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_bounded_and_the_oldest_go_first() {
        let mut trials = Trials::default();
        for number in 0..2 * REMEMBERED {
            tokio::time::advance(Duration::from_millis(1)).await;
            trials.refuse(NodeId(0), names(&[&format!("novelty_{number}")]), &refusal("no"));
        }
        assert_eq!(trials.refused.len(), REMEMBERED);
        assert!(
            trials.may_ask(NodeId(0), "novelty_0")
                && !trials.may_ask(NodeId(0), &format!("novelty_{}", 2 * REMEMBERED - 1))
        );
    }
}
