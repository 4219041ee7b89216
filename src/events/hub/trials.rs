//! Finds the topics that nodes do not know.
//!
//! Rule: where a node refuses a set of topics, each topic is tried alone, and meanwhile the stream
//! carries the others. Reason: the refusal does not name the unknown topic. Example: a client adds
//! `head_v2` and `block_gossip` to a stream of `head`, and the node answers 400. Both are tried;
//! the node refuses `head_v2` alone, so `block_gossip` joins the stream, and `head_v2` is not asked
//! for in the next [`FORGET`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinSet, time::Instant};

use super::super::{node, topics::Names};
use crate::pool::Pool;

/// How long a topic that a node does not know is not asked for again.
const FORGET: Duration = Duration::from_secs(60);
/// Refusals that are remembered, of all nodes. Clients come and go, and each may have brought
/// topics of its own.
const REMEMBERED: usize = 512;

/// Status and body of a node's answer to a topic that it does not know.
pub(super) type Refusal = (u16, Bytes);

/// The trials under way, and their results.
#[derive(Default)]
pub(super) struct Trials {
    /// Requests for one topic each; `None` where the node knows the topic, or does not say.
    running: JoinSet<(usize, String, Option<Refusal>)>,
    /// No topic is in two sets of one node, since a suspected topic is not asked for.
    suspects: Vec<Suspects>,
    /// The topics refused, with the end of the refusal and the node's answer.
    refused: BTreeMap<(usize, String), (Instant, Refusal)>,
}

/// Topics that a node refused together.
struct Suspects {
    node: usize,
    topics: Names,
    untried: Names,
    found: bool,
    refusal: Refusal,
}

impl Trials {
    /// Whether the node may be asked for this topic now.
    pub(super) fn may_ask(&self, node: usize, topic: &str) -> bool {
        let is_suspected = self.suspects.iter().any(|set| set.node == node && set.topics.contains(topic));
        !is_suspected && !self.refused.contains_key(&(node, topic.to_owned()))
    }

    /// The node's answers to the topics that are unknown to the node.
    pub(super) fn refused_by(&self, node: usize) -> BTreeMap<String, Refusal> {
        let of_node = self.refused.iter().filter(|((at, _), _)| *at == node);
        of_node.map(|((_, topic), (_, refusal))| (topic.clone(), refusal.clone())).collect()
    }

    /// The node refused these topics together: each is tried, if there is more than one.
    pub(super) fn begin(&mut self, pool: &Arc<Pool>, node: usize, topics: Names, refusal: Refusal) {
        if topics.len() == 1 {
            return self.refuse(node, topics, &refusal);
        }
        for topic in topics.clone() {
            let pool = pool.clone();
            self.running.spawn(async move { (node, topic.clone(), node::refuses(pool, node, topic).await) });
        }
        self.suspects.push(Suspects { node, untried: topics.clone(), topics, found: false, refusal });
    }

    /// Whether any trial is under way.
    pub(super) fn are_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Completes when a trial has its answer. Cancel-safe.
    pub(super) async fn next(&mut self) {
        match self.running.join_next().await {
            Some(Ok((node, topic, refusal))) => self.tried(node, topic, refusal),
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => {}
        }
    }

    fn tried(&mut self, node: usize, topic: String, refusal: Option<Refusal>) {
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
    pub(super) fn refuse(&mut self, node: usize, topics: Names, refusal: &Refusal) {
        let until = Instant::now() + FORGET;
        self.refused.extend(topics.into_iter().map(|topic| ((node, topic), (until, refusal.clone()))));
        while self.refused.len() > REMEMBERED {
            let oldest = self.refused.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.refused.remove(&key));
        }
    }

    /// Forgets refusals whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.refused.retain(|_, (until, _)| *until > now);
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
        trials.suspects.push(Suspects { node: 3, untried: topics.clone(), topics, found: false, refusal });
        trials
    }

    #[tokio::test(start_paused = true)]
    async fn the_topic_that_is_refused_alone_is_the_one() {
        let mut trials = suspecting(&["a", "b"]);
        assert!(!trials.may_ask(3, "a") && !trials.may_ask(3, "b") && trials.may_ask(3, "c") && trials.may_ask(2, "a"));
        trials.tried(3, "a".to_owned(), Some(refusal("a")));
        trials.tried(3, "b".to_owned(), None);
        assert!(!trials.may_ask(3, "a") && trials.may_ask(3, "b") && trials.may_ask(2, "a"));
        assert_eq!(trials.refused_by(3), BTreeMap::from([("a".to_owned(), refusal("a"))]));
        trials.expire(Instant::now() + FORGET);
        assert!(trials.may_ask(3, "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn topics_that_are_refused_only_together_are_all_refused() {
        let mut trials = suspecting(&["a", "b"]);
        trials.tried(3, "a".to_owned(), None);
        trials.tried(3, "b".to_owned(), None);
        assert!(!trials.may_ask(3, "a") && !trials.may_ask(3, "b"));
        assert_eq!(trials.refused_by(3)["b"], refusal("all of them"));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_bounded_and_the_oldest_go_first() {
        let mut trials = Trials::default();
        for number in 0..2 * REMEMBERED {
            tokio::time::advance(Duration::from_millis(1)).await;
            trials.refuse(0, names(&[&format!("novelty_{number}")]), &refusal("no"));
        }
        assert_eq!(trials.refused.len(), REMEMBERED);
        assert!(trials.may_ask(0, "novelty_0") && !trials.may_ask(0, &format!("novelty_{}", 2 * REMEMBERED - 1)));
    }
}
