//! `steadfast run`.

use std::{process::ExitCode, sync::Arc, thread::available_parallelism};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{Settings, block_on, conclude, log::start_log};
use crate::{
    app::{App, FileWatch, Source, World},
    net::{descriptors, passed::Passed, system::System, systemd::Supervisor},
};

pub(super) fn run(settings: &Settings) -> ExitCode {
    // Operators do not see the working directory.
    let file = settings.file().map(|file| std::path::absolute(&file).unwrap_or(file));
    // From before the reading on, so that no change goes unseen.
    let file = file.map(FileWatch::new);
    let mut config = match settings.read_or_complain() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let (_flush, set_log) = start_log(&config.log);
    let threads = config.workers.or_else(|| available_parallelism().ok()).map_or(1, |threads| threads.get());
    let again = settings.clone();
    let passed = match Passed::of_process(Arc::new(System)) {
        Ok(passed) => Arc::new(passed),
        Err(why) => return conclude(Ok(Err(why))),
    };
    if let Err(why) = passed.settle(&mut config) {
        return conclude(Ok(Err(why)));
    }
    let sockets = passed.clone();
    let read = move || {
        let mut config = again.read_again().map_err(|errors| errors.to_string())?;
        sockets.settle(&mut config)?;
        Ok(config)
    };
    let source = file.as_ref().map(|_| Arc::new(read) as Source);
    let served = block_on(async {
        let mut signals = Signals::listen()?;
        let supervisor = Supervisor::of_process().map_err(|error| format!("NOTIFY_SOCKET: {error}"))?;
        let supervisor = Arc::new(supervisor);
        let descriptors = descriptors::raise();
        let own = World::real(threads);
        let (supervised, set_log) = (supervisor.clone(), Some(set_log));
        let world = World { descriptors, file, listen: passed, supervisor: supervised, set_log, ..own };
        let app = App::start(config, world, source).await.map_err(|error| error.to_string())?;
        let clients: Vec<String> = app.addresses().iter().map(ToString::to_string).collect();
        info!(clients = %clients.join(","), admin = %app.admin_addr(), threads, "steadfast is running");
        supervisor.tell(Supervisor::READY);
        let End { name: reason, at_once, .. } = signals.until_told(&app).await;
        if at_once {
            return Ok(ExitCode::FAILURE);
        }
        supervisor.tell(Supervisor::STOPPING);
        info!(reason, "shutting down: letting calls finish; a second signal ends the process at once");
        Ok::<_, String>(signals.see_down(app).await)
    });
    conclude(served)
}

/// A signal to end.
pub(super) struct End {
    name: &'static str,
    /// The exit code of a process that the signal ends at once, as a shell counts: 128 and the
    /// signal's number.
    code: u8,
    /// Whether the process must not even let calls finish.
    at_once: bool,
}

/// The signals to end and to reload, which are caught from the moment that this exists.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal to end; reloads when told to in the meantime.
    pub(super) async fn until_told(&mut self, app: &App) -> End {
        loop {
            // All arms are cancel-safe.
            tokio::select! {
                () = app.must_end() => return End { name: "cluster", code: 1, at_once: true },
                end = Self::end(&mut self.terminate, &mut self.interrupt) => return end,
                _ = self.hangup.recv() => app.ask_for_reload(),
            }
        }
    }

    /// Lets calls in flight finish. Another signal to end cuts that short, and sets the exit code.
    pub(super) async fn see_down(&mut self, app: App) -> ExitCode {
        let must_end = app.must_end();
        // Dropping a shutdown that is under way ends the proxy at once.
        tokio::select! {
            () = must_end => ExitCode::FAILURE,
            () = app.shutdown() => ExitCode::SUCCESS,
            end = Self::end(&mut self.terminate, &mut self.interrupt) => {
                warn!(reason = end.name, "ending at once: calls in flight are cut");
                ExitCode::from(end.code)
            }
        }
    }

    async fn end(terminate: &mut Signal, interrupt: &mut Signal) -> End {
        // Both arms are cancel-safe.
        tokio::select! {
            _ = terminate.recv() => End { name: "SIGTERM", code: 128 + 15, at_once: false },
            _ = interrupt.recv() => End { name: "SIGINT", code: 128 + 2, at_once: false },
        }
    }
}
