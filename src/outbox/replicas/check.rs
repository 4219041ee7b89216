//! Something that a replica looks at in the bucket, and without which it takes no part.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tracing::{error, info};

use crate::outbox::desk::NotDone;

/// The outcome of the last look: why the replica takes no part, or that it may. Unset before the
/// first look.
#[derive(Default)]
pub(super) struct Check(ArcSwapOption<Option<NotDone>>);

impl Check {
    pub(super) fn is_passed(&self) -> bool {
        self.0.load().as_deref().is_some_and(Option::is_none)
    }

    pub(super) fn why(&self) -> Option<NotDone> {
        self.0.load().as_deref().cloned().flatten()
    }

    /// Notes the outcome of a look, and logs a change.
    pub(super) fn note(&self, why: Option<NotDone>) {
        let before = self.0.swap(Some(Arc::new(why.clone())));
        match (why, before.as_deref().is_some_and(Option::is_some)) {
            (Some(why), false) => error!(%why, "this replica takes no part in the outbox"),
            (None, true) => info!("this replica takes part in the outbox again"),
            _ => {}
        }
    }
}
