//! How a node stands to a request that all nodes were told.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::backoff::factor;

/// The longest pause of a request that the node could not take again and again, as a multiple of
/// the first.
const MAX_FACTOR: u32 = 32;

/// The word of a node on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::beacon) enum TellOutcome {
    Taken {
        is_usable: bool,
    },
    /// The request is at fault in the node's eyes, and need not be told again.
    Refused {
        is_usable: bool,
    },
    /// The node does not offer the route.
    NotOffered,
    /// The node could not take the request, or said nothing.
    Failed,
}

impl TellOutcome {
    pub(super) fn is_taken(self) -> bool {
        matches!(self, Self::Taken { .. })
    }
}

/// A node's knowledge of a request, and the node's failures to take the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeRecord {
    pub(super) knows: Knows,
    failures: u32,
    /// Until when the node is not told.
    pause: Option<Instant>,
}

/// A node's knowledge of a request. A life begins each time that the node begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Knows {
    /// The node has not been told.
    #[default]
    Nothing,
    /// The node is being told in this life, and has not confirmed.
    IsTold(u64),
    /// The node has confirmed the request in this life.
    All(u64),
}

impl NodeRecord {
    /// Whether the node, which is in this life, is to be told now.
    pub(super) fn is_due(&self, life: u64, now: Instant) -> bool {
        let knows = matches!(self.knows, Knows::IsTold(of) | Knows::All(of) if of == life);
        !knows && self.pause.is_none_or(|until| until <= now)
    }

    /// The node's word, in the life in which the node was told. After a failure the node is told
    /// again in `pause`, and later each time.
    pub(super) fn heard(&mut self, word: TellOutcome, pause: Duration) {
        match (word, self.knows) {
            (TellOutcome::Failed, _) => {
                self.pause = Some(Instant::now() + pause * factor(self.failures, MAX_FACTOR));
                self.failures += 1;
                self.knows = Knows::Nothing;
            }
            (_, Knows::IsTold(life)) => self.knows = Knows::All(life),
            _ => {}
        }
    }

    /// The node begins anew, and may take requests that failed before.
    pub(super) fn forgive(&mut self) {
        (self.failures, self.pause) = (0, None);
    }

    /// The same node's standing in the next pool, where the node is told anew all requests that are
    /// not confirmed.
    pub(super) fn inherited(self) -> Self {
        let knows = if matches!(self.knows, Knows::All(_)) { self.knows } else { Knows::Nothing };
        Self { knows, ..Self::default() }
    }
}
