//! The export of spans, in builds with the feature `otlp`.

use std::sync::Arc;

#[cfg(feature = "otlp")]
use crate::spans::export;
use crate::{app::World, config::Config, metrics::Metrics, spans::Spans};

/// The export of spans; empty where there is no collector, as in every build without the feature
/// `otlp`, which refuses the setting.
#[derive(Default)]
pub(super) struct Export {
    #[cfg(feature = "otlp")]
    running: Option<export::Export>,
}

#[cfg(feature = "otlp")]
impl Export {
    /// Begins to export to the collector of the settings, if there is one.
    pub(super) fn start(config: &Config, world: &World, metrics: &Arc<Metrics>) -> Result<Self, String> {
        let running = export::Export::start(&config.tracing, world.dial.clone(), metrics, world.nanos())?;
        Ok(Self { running })
    }

    /// Where finished spans go, if there is a collector.
    pub(super) fn spans(&self) -> Option<&Arc<Spans>> {
        self.running.as_ref().map(|running| running.spans())
    }

    /// Exports the spans that wait, within a bound, and ends.
    pub(super) async fn finish(self) {
        if let Some(running) = self.running {
            running.finish().await;
        }
    }
}

#[cfg(not(feature = "otlp"))]
impl Export {
    pub(super) fn start(_: &Config, _: &World, _: &Arc<Metrics>) -> Result<Self, String> {
        Ok(Self::default())
    }

    pub(super) fn spans(&self) -> Option<&Arc<Spans>> {
        None
    }

    pub(super) async fn finish(self) {}
}
