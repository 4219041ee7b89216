//! Finds the topics that nodes do not know.
//!
//! Rule: where a node refuses a set of topics, each topic is tried alone, and meanwhile the stream
//! carries the others. Reason: the refusal does not name the unknown topic. Example: a client adds
//! `head_v2` and `block_gossip` to a stream of `head`, and the node answers 400. Both are tried;
//! the node refuses `head_v2` alone, so `block_gossip` joins the stream, and `head_v2` is not asked
//! for in the next [`FORGET`].
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
    /// Whether a stream without these doubted topics opens.
    Without(NodeId, Names, bool),
}

/// Topics that a node refused together.
struct Suspects {
    node: NodeId,
    topics: Names,
    untried: Names,
    found: bool,
    refusal: Refusal,
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

    /// The node refused these topics together: each is tried, if there is more than one.
    pub(super) fn begin(&mut self, pool: &Arc<Pool>, node: NodeId, topics: Names, refusal: Refusal) {
        if topics.len() == 1 {
            return self.refuse(node, topics, &refusal);
        }
        for topic in topics.clone() {
            let pool = pool.clone();
            self.running
                .spawn(async move { Trial::Alone(node, topic.clone(), node::refuses(pool, node, topic).await) });
        }
        self.suspects.push(Suspects { node, untried: topics.clone(), topics, found: false, refusal });
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
        self.running.spawn(async move { Trial::Without(node, topics, node::opens(&pool, node, &without).await) });
    }

    /// A stream of the node lasts with these topics.
    pub(super) fn lasts(&mut self, node: NodeId, topics: &Names) {
        self.doubted.retain(|(of, topic), _| *of != node || !topics.contains(topic));
    }

    fn compared(&mut self, node: NodeId, topics: Names, is_open: bool) {
        self.compared.retain(|other| (other.0, &other.1) != (node, &topics));
        self.lasts(node, &topics);
        if is_open {
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
            Some(Ok(Trial::Alone(node, topic, refusal))) => self.tried(node, topic, refusal),
            Some(Ok(Trial::Without(node, topics, is_open))) => self.compared(node, topics, is_open),
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => {}
        }
    }

    fn tried(&mut self, node: NodeId, topic: String, refusal: Option<Refusal>) {
        let is_of = |set: &Suspects| set.node == node && set.untried.contains(&topic);
        let Some(place) = self.suspects.iter().position(is_of) else { return };
        let set = &mut self.suspects[place];
        set.untried.remove(&topic);
        set.found |= refusal.is_some();
        if set.untried.is_empty() {
            let Suspects { topics, found, refusal, .. } = self.suspects.swap_remove(place);
            if !found {
                // The node knows each topic alone, and refuses them only together: all are refused.
                self.refuse(node, topics, &refusal);
            }
        }
        if let Some(refusal) = refusal {
            self.refuse(node, Names::from([topic]), &refusal);
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
        let (topics, refusal) = (names(topics), refusal("all of them"));
        trials.suspects.push(Suspects { node: NodeId(3), untried: topics.clone(), topics, found: false, refusal });
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
        trials.tried(NodeId(3), "a".to_owned(), Some(refusal("a")));
        trials.tried(NodeId(3), "b".to_owned(), None);
        assert!(!trials.may_ask(NodeId(3), "a") && trials.may_ask(NodeId(3), "b") && trials.may_ask(NodeId(2), "a"));
        assert_eq!(trials.refused_by(NodeId(3)), BTreeMap::from([("a".to_owned(), refusal("a"))]));
        trials.expire(Instant::now() + FORGET);
        assert!(trials.may_ask(NodeId(3), "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn topics_that_are_refused_only_together_are_all_refused() {
        let mut trials = suspecting(&["a", "b"]);
        trials.tried(NodeId(3), "a".to_owned(), None);
        trials.tried(NodeId(3), "b".to_owned(), None);
        assert!(!trials.may_ask(NodeId(3), "a") && !trials.may_ask(NodeId(3), "b"));
        assert_eq!(trials.refused_by(NodeId(3))["b"], refusal("all of them"));
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
