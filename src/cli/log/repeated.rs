//! Keeps lines of one kind from filling the log.
//!
//! Rule: of the lines that one place of the sources writes, [`BURST`] may come at once, and then
//! one more after each [`REFILL`]. Lines beyond that are left out, and their number is told each
//! minute. Lines of the access log and below `INFO` are not bounded: an operator asked for these.
//! Reason: nodes and clients bring lines about, and a node that misbehaves for a night must neither
//! fill a disk nor hide the line of another kind. Example: a node's event stream ends four times a
//! second. The log has 200 lines of that at once, then 720 an hour, and each minute a line that
//! tells of some 230 others.

use std::{
    collections::HashMap,
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::{door::access_log, metrics::Burst};

/// The lines of one kind that may come at once.
const BURST: u32 = 200;
/// After how long one more may come.
const REFILL: Duration = Duration::from_secs(5);

/// The kinds of lines that were written, by their place in the sources.
#[derive(Clone, Debug, Default)]
pub(super) struct Repeated(Arc<Mutex<HashMap<Identifier, Kind>>>);

#[derive(Debug)]
struct Kind {
    /// The words of its first line.
    message: String,
    burst: Burst,
}

/// The `message` of a line.
#[derive(Default)]
struct Message(String);

impl Repeated {
    /// The kinds of which lines were left out, with their number, where these are to be told now.
    pub(super) fn sum_up(&self) -> Vec<(String, u64)> {
        let kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.values().filter_map(|kind| Some((kind.message.clone(), kind.burst.sum_up()?))).collect()
    }

    fn pass(&self, line: &Event<'_>) -> bool {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(line.metadata().callsite()).or_insert_with(|| {
            let mut message = Message::default();
            line.record(&mut message);
            Kind { message: message.0, burst: Burst::new(BURST, REFILL) }
        });
        kind.burst.pass()
    }
}

impl<S: Subscriber> Layer<S> for Repeated {
    fn event_enabled(&self, line: &Event<'_>, _: Context<'_, S>) -> bool {
        let is_asked_for = *line.metadata().level() > Level::INFO || line.metadata().target() == access_log::TARGET;
        is_asked_for || self.pass(line)
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use tokio::time::advance;
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    /// Counts the lines that are written.
    #[derive(Clone, Default)]
    struct Written(Arc<AtomicU32>);

    impl<S: Subscriber> Layer<S> for Written {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn lost(times: u32) {
        for time in 0..times {
            tracing::warn!(time, "a stream of events is lost");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_of_one_kind_are_bounded_and_the_others_told() {
        let (repeated, written) = (Repeated::default(), Written::default());
        let subscriber = registry().with(written.clone()).with(repeated.clone());
        let _guard = tracing::subscriber::set_default(subscriber);
        lost(BURST + 50);
        assert_eq!(written.0.load(Relaxed), BURST);
        // Neither another kind nor what an operator asked for is left out.
        tracing::error!("no usable node");
        for _ in 0..=BURST {
            tracing::info!(target: access_log::TARGET, "request");
            tracing::debug!("a detail");
        }
        assert_eq!(written.0.swap(0, Relaxed), BURST + 1 + 2 * (BURST + 1));
        assert_eq!(repeated.sum_up(), []);
        advance(Duration::from_secs(60)).await;
        assert_eq!(repeated.sum_up(), [("a stream of events is lost".to_owned(), 50)]);
        lost(20);
        assert_eq!((written.0.load(Relaxed), repeated.sum_up()), (12, vec![]));
    }
}
