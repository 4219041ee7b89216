//! The methods that a node lacks: by its settings, and as its answers have shown.
//!
//! Rule: a node that answers that a method is not offered gets calls of that method only where no
//! other node is left: for ten minutes at first, and for twice as long after each further refusal,
//! up to six hours. A good answer to a call of the method ends that, and so does the node's return
//! from an outage. Reason: a call that is sure to fail costs its client a round trip, and a
//! provider's quota; but nodes are upgraded, and get other flags. Example: geth lacks `trace_block`
//! and erigon has the method: one call goes to geth in vain, all others go to erigon at once.
//!
//! Nothing here is evidence against a node. Only the node's answers put a method here, and a name
//! that a client made up takes a place among [`MOST_UNKNOWN`] at most.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    config::{MethodPattern, Node as Settings},
    domain::{
        backoff::doubled,
        method::{Method, MethodId},
    },
};

/// How long a node's word counts at first, and at most.
const FIRST_TIME: Duration = Duration::from_secs(10 * 60);
const LONGEST_TIME: Duration = Duration::from_secs(6 * 60 * 60);
/// Methods that the table of methods does not know, and that are kept of one node.
const MOST_UNKNOWN: usize = 64;
/// The longest name of these that is kept, in bytes.
const LONGEST_NAME: usize = 64;

/// Words of a set of the methods of the table.
const WORDS: usize = Method::COUNT.div_ceil(64);

/// The place of a method in a set: the word and the bit. `None` for methods that the table does not
/// know.
fn place(MethodId(index): MethodId) -> Option<(usize, u64)> {
    (index < Method::COUNT).then_some((index / 64, 1 << (index % 64)))
}

/// The methods for which the settings let calls go to a node.
#[derive(Debug, Default)]
pub struct MethodRules {
    /// The only methods; all, where this is empty.
    only: Vec<MethodPattern>,
    never: Vec<MethodPattern>,
    /// The methods of the table that are ruled out.
    ruled_out: [u64; WORDS],
}

impl MethodRules {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut rules =
            Self { only: settings.methods.clone(), never: settings.not_methods.clone(), ruled_out: [0; WORDS] };
        for index in 0..Method::COUNT {
            let id = MethodId(index);
            if let Some((word, bit)) = place(id).filter(|_| rules.match_none(Method::label_of(id))) {
                rules.ruled_out[word] |= bit;
            }
        }
        rules
    }

    fn match_none(&self, name: &str) -> bool {
        let has = |patterns: &[MethodPattern]| patterns.iter().any(|pattern| pattern.matches(name));
        has(&self.never) || !(self.only.is_empty() || has(&self.only))
    }

    /// Whether there are any rules.
    pub fn is_any(&self) -> bool {
        !self.only.is_empty() || !self.never.is_empty()
    }

    /// Whether calls of this method must not go to the node.
    pub fn rules_out(&self, id: MethodId, name: &str) -> bool {
        match place(id) {
            Some((word, bit)) => self.ruled_out[word] & bit != 0,
            None => self.is_any() && self.match_none(name),
        }
    }
}

/// A method that a node lacks, by its own word.
#[derive(Debug)]
struct Learnt {
    id: MethodId,
    /// The name of a method that the table does not know; empty for others.
    name: Box<str>,
    time: Duration,
    until: Instant,
}

impl Learnt {
    fn is_of(&self, id: MethodId, name: &str) -> bool {
        self.id == id && (place(id).is_some() || &*self.name == name)
    }
}

/// The methods that a node lacks, by its own word. The cost is one atomic load while there are
/// none, and no lock for a method of the table that is not among them.
#[derive(Debug)]
pub struct MissingMethods {
    any: AtomicBool,
    of_the_table: [AtomicU64; WORDS],
    learnt: Mutex<Vec<Learnt>>,
}

impl Default for MissingMethods {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            of_the_table: std::array::from_fn(|_| AtomicU64::new(0)),
            learnt: Mutex::default(),
        }
    }
}

impl MissingMethods {
    /// Whether any method may be missing.
    pub fn is_any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether the node lacks the method by a word that still counts.
    pub fn has(&self, id: MethodId, name: &str, now: Instant) -> bool {
        let may_have =
            self.is_any() && place(id).is_none_or(|(word, bit)| self.of_the_table[word].load(Relaxed) & bit != 0);
        may_have && self.lock().iter().any(|learnt| learnt.is_of(id, name) && now < learnt.until)
    }

    /// The node says that the method is not offered. Returns whether that is news.
    pub fn learn(&self, id: MethodId, name: &str, now: Instant) -> bool {
        if place(id).is_none() && name.len() > LONGEST_NAME {
            return false;
        }
        let mut learnt = self.lock();
        if let Some(known) = learnt.iter_mut().find(|learnt| learnt.is_of(id, name)) {
            // An answer within the time is to a call that no other node could take.
            if now >= known.until {
                known.time = doubled(known.time, 1, LONGEST_TIME);
            }
            known.until = now + known.time;
            return false;
        }
        let name = match place(id) {
            Some((word, bit)) => {
                self.of_the_table[word].fetch_or(bit, Relaxed);
                Box::default()
            }
            None => {
                let unknown = |learnt: &Learnt| place(learnt.id).is_none();
                if learnt.iter().filter(|learnt| unknown(learnt)).count() >= MOST_UNKNOWN {
                    let soonest =
                        (0..learnt.len()).filter(|at| unknown(&learnt[*at])).min_by_key(|at| learnt[*at].until);
                    soonest.map(|at| learnt.swap_remove(at));
                }
                name.into()
            }
        };
        learnt.push(Learnt { id, name, time: FIRST_TIME, until: now + FIRST_TIME });
        self.any.store(true, Relaxed);
        true
    }

    /// The node answered a call of the method well.
    pub fn answered(&self, id: MethodId, name: &str) {
        if self.is_any() && place(id).is_none_or(|(word, bit)| self.of_the_table[word].load(Relaxed) & bit != 0) {
            self.forget(|learnt| learnt.is_of(id, name));
        }
    }

    /// The node may be another program now.
    pub fn forget_all(&self) {
        self.forget(|_| true);
    }

    /// The names of the methods that count as missing now, in order.
    pub fn names(&self, now: Instant) -> Vec<String> {
        let counts = |learnt: &&Learnt| now < learnt.until;
        let name = |learnt: &Learnt| match place(learnt.id) {
            Some(_) => Method::label_of(learnt.id).to_owned(),
            None => learnt.name.to_string(),
        };
        let mut names: Vec<String> = self.lock().iter().filter(counts).map(name).collect();
        names.sort_unstable();
        names
    }

    fn forget(&self, is_over: impl Fn(&Learnt) -> bool) {
        let mut learnt = self.lock();
        learnt.retain(|learnt| {
            let is_over = is_over(learnt);
            if let Some((word, bit)) = place(learnt.id).filter(|_| is_over) {
                self.of_the_table[word].fetch_and(!bit, Relaxed);
            }
            !is_over
        });
        self.any.store(!learnt.is_empty(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Learnt>> {
        // The list is whole at every moment, so a panic elsewhere cannot have spoilt the list.
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> MethodId {
        Method::of(name).id
    }

    fn rules(only: &[&str], never: &[&str]) -> MethodRules {
        let patterns = |list: &[&str]| format!("{list:?}");
        let text = format!(
            "[[el.primary]]\nhttp = \"http://a\"\nmethods = {}\nnot_methods = {}\n",
            patterns(only),
            patterns(never)
        );
        let config = crate::config::Config::parse(&text, &|_| None).unwrap();
        MethodRules::new(&config.networks[0].el[0])
    }

    #[test]
    fn the_settings_say_which_methods_a_node_is_for() {
        for (only, never, method, is_ruled_out) in [
            (&[][..], &[][..], "trace_block", false),
            (&[], &["trace_*"], "trace_block", true),
            (&[], &["trace_*"], "trace_newThing", true),
            (&[], &["trace_*"], "eth_call", false),
            (&["trace_*", "debug_traceCall"], &[], "trace_block", false),
            (&["trace_*", "debug_traceCall"], &[], "debug_traceCall", false),
            (&["trace_*", "debug_traceCall"], &[], "eth_call", true),
            (&["trace_*"], &[], "bor_getAuthor", true),
            (&["eth_*"], &["eth_getLogs"], "eth_getLogs", true),
            (&["eth_*"], &["eth_getLogs"], "eth_call", false),
        ] {
            assert_eq!(rules(only, never).rules_out(id(method), method), is_ruled_out, "{only:?} {never:?} {method}");
        }
    }

    #[test]
    fn a_missing_method_counts_for_a_time_that_doubles() {
        let (missing, start) = (MissingMethods::default(), Instant::now());
        let has = |name: &str, now| missing.has(id(name), name, now);
        for name in ["trace_block", "bor_getAuthor"] {
            assert!(!has(name, start) && missing.learn(id(name), name, start) && has(name, start));
            assert!(!missing.learn(id(name), name, start), "that is known");
            let end = start + FIRST_TIME;
            assert!(has(name, end - Duration::from_millis(1)) && !has(name, end));
            missing.learn(id(name), name, end);
            assert!(has(name, end + FIRST_TIME) && !has(name, end + 2 * FIRST_TIME));
        }
        assert!(!has("trace_call", start) && !has("bor_getSigners", start));
        let mut now = start;
        for _ in 0..20 {
            missing.learn(id("trace_block"), "trace_block", now);
            now += LONGEST_TIME;
        }
        assert!(!has("trace_block", now));
    }

    #[test]
    fn a_good_answer_and_a_return_make_a_method_known() {
        let (missing, now) = (MissingMethods::default(), Instant::now());
        for name in ["trace_block", "trace_call", "bor_getAuthor", "bor_getSigners"] {
            missing.learn(id(name), name, now);
        }
        missing.answered(id("trace_block"), "trace_block");
        missing.answered(id("bor_getAuthor"), "bor_getAuthor");
        assert_eq!(missing.names(now), ["bor_getSigners", "trace_call"]);
        missing.forget_all();
        assert!(missing.names(now).is_empty() && !missing.is_any());
        assert!(!missing.has(id("trace_call"), "trace_call", now));
    }

    #[test]
    fn names_that_clients_made_up_are_bounded() {
        let (missing, now) = (MissingMethods::default(), Instant::now());
        missing.learn(id("trace_block"), "trace_block", now);
        for count in 0..2 * MOST_UNKNOWN {
            let name = format!("made_up{count}");
            missing.learn(id(&name), &name, now + Duration::from_secs(count as u64));
        }
        let long = "l".repeat(LONGEST_NAME + 1);
        assert!(!missing.learn(id(&long), &long, now));
        let names = missing.names(now);
        assert_eq!(names.len(), MOST_UNKNOWN + 1);
        assert!(names.contains(&"trace_block".to_owned()) && names.contains(&"made_up127".to_owned()));
        assert!(!names.contains(&"made_up0".to_owned()));
    }
}
