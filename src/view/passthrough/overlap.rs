//! Removes duplicates while a subscription moves from one node to another: pure.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use tokio::time::{Duration, Instant};

/// How long after the first node the second may send the same notification.
pub(super) const OVERLAP: Duration = Duration::from_secs(2);
/// Notifications that are remembered, at most.
const MAX_REMEMBERED: usize = 8192;

/// Rule: a notification is sent as often as the node that sent it most often did. Reason: one node
/// may repeat a text on purpose, while two nodes send the same event twice. Example: node a sends
/// `x` three times and node b five times; clients get `x` five times.
pub(super) struct Overlap {
    /// Whether the notifications are states that replace each other, so that the same state may
    /// well come again soon.
    is_state: bool,
    told: HashMap<u64, Counts>,
    /// The notifications within the overlap, oldest first: time, hash, source, and whether it was
    /// sent on.
    heard: VecDeque<(Instant, u64, usize, bool)>,
    /// The state that was sent last, and its source.
    last: Option<(u64, usize)>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    told: u32,
    /// How often each of the two sources sent the notification.
    heard: [u32; 2],
}

impl Overlap {
    pub(super) fn new(is_state: bool) -> Self {
        Self { is_state, told: HashMap::new(), heard: VecDeque::new(), last: None }
    }

    /// Source `source`, 0 or 1, is another node from now on.
    pub(super) fn replace(&mut self, source: usize) {
        for counts in self.told.values_mut() {
            counts.heard[source] = 0;
        }
        self.heard.iter_mut().filter(|heard| heard.2 == source).for_each(|heard| heard.2 = usize::MAX);
        self.interrupt(source);
    }

    /// Source `source` lost its connection: its next state counts as another source's.
    pub(super) fn interrupt(&mut self, source: usize) {
        self.last = self.last.map(|(state, by)| (state, if by == source { usize::MAX } else { by }));
    }

    /// Whether to send on this notification of `source`.
    pub(super) fn hear(&mut self, source: usize, text: &[u8], now: Instant) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(text);
        if self.is_state {
            let is_repeated = self.last.is_some_and(|(state, by)| state == hash && by != source);
            self.last = Some((hash, source));
            return !is_repeated;
        }
        while self.heard.len() >= MAX_REMEMBERED || self.heard.front().is_some_and(|(at, ..)| *at + OVERLAP < now) {
            self.forget();
        }
        let counts = self.told.entry(hash).or_default();
        counts.heard[source] += 1;
        let is_new = counts.heard[source] > counts.told;
        counts.told += u32::from(is_new);
        self.heard.push_back((now, hash, source, is_new));
        is_new
    }

    fn forget(&mut self) {
        let Some((_, hash, source, was_told)) = self.heard.pop_front() else { return };
        let Some(counts) = self.told.get_mut(&hash) else { return };
        counts.told = counts.told.saturating_sub(u32::from(was_told));
        if let Some(heard) = counts.heard.get_mut(source) {
            *heard = heard.saturating_sub(1);
        }
        if counts.told == 0 && counts.heard == [0, 0] {
            self.told.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlap() -> (Overlap, Instant) {
        (Overlap::new(false), Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn event_of_two_nodes_is_sent_once_in_either_order() {
        let (mut overlap, now) = overlap();
        let hear = |overlap: &mut Overlap, source, texts: &[&str]| -> Vec<String> {
            let new = texts.iter().filter(|text| overlap.hear(source, text.as_bytes(), now));
            new.map(|text| (*text).to_owned()).collect()
        };
        assert_eq!(hear(&mut overlap, 0, &["a", "b", "c"]), ["a", "b", "c"]);
        assert_eq!(hear(&mut overlap, 1, &["b", "d", "a"]), ["d"]);
        assert_eq!(hear(&mut overlap, 0, &["d", "e"]), ["e"]);
        assert_eq!(hear(&mut overlap, 1, &["e", "c", "f"]), ["f"]);
    }

    #[tokio::test(start_paused = true)]
    async fn event_that_one_node_repeats_is_sent_as_often() {
        let (mut overlap, now) = overlap();
        for _ in 0..3 {
            assert!(overlap.hear(0, b"a", now));
        }
        let told = (0..5).filter(|_| overlap.hear(1, b"a", now)).count();
        assert_eq!(told, 2, "five times by the other, three of them told before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_third_node_is_held_against_what_was_told() {
        let (mut overlap, now) = overlap();
        assert!(overlap.hear(0, b"a", now) && !overlap.hear(1, b"a", now));
        overlap.replace(0);
        assert!(!overlap.hear(0, b"a", now));
        assert!(overlap.hear(0, b"a", now), "its second one is news");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_while_the_same_is_news_again_and_nothing_is_kept() {
        let (mut overlap, now) = overlap();
        assert!(overlap.hear(0, b"a", now));
        assert!(!overlap.hear(1, b"a", now + OVERLAP));
        let later = now + OVERLAP * 3;
        assert!(overlap.hear(1, b"a", later));
        assert!(overlap.hear(1, b"b", later + OVERLAP * 2));
        assert_eq!((overlap.told.len(), overlap.heard.len()), (1, 1));
        for n in 0..2 * MAX_REMEMBERED {
            assert!(overlap.hear(0, &n.to_le_bytes(), later + OVERLAP * 2));
        }
        assert!(overlap.heard.len() <= MAX_REMEMBERED && overlap.told.len() <= MAX_REMEMBERED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_changes_back_is_told() {
        let (mut overlap, now) = (Overlap::new(true), Instant::now());
        let said =
            [(0, "no", true), (1, "no", false), (1, "yes", true), (0, "yes", false), (1, "no", true), (1, "no", true)];
        for (source, state, told) in said {
            assert_eq!(overlap.hear(source, state.as_bytes(), now), told, "{source} {state}");
        }
        overlap.replace(1);
        assert!(!overlap.hear(1, b"no", now), "whoever it was that said so");
    }
}
