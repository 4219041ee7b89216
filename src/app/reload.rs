//! Reads the settings anew, and applies the new values or tells the changes.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{error, info};

use super::{
    Shared, Source, aside::Aside, build::Deps, cluster, dns::Followed, file_watch::FileWatch, networks::Runtime,
};
use crate::{
    config::{Config, Difference},
    door::admin::{Comparison, Reload},
    memory,
    net::systemd::Supervisor,
};

/// The settings of the operator, from which those in use are made.
pub(super) struct Written {
    pub(super) config: Config,
    /// The addresses of the names in the settings.
    pub(super) dns: Followed,
    /// Reads the settings anew.
    pub(super) source: Option<Source>,
    /// The file of the settings.
    pub(super) file: Option<FileWatch>,
}

/// Owns the networks and the settings that are in use, and changes both on request, when names of
/// nodes have other addresses, and when the file of the settings changes if the settings ask for
/// that.
pub(super) async fn keep_reloading(
    shared: Arc<Shared>,
    runtime: Runtime,
    written: Written,
    mut requests: mpsc::Receiver<Reload>,
) {
    let mut reloading = Reloading { shared, runtime, written, aside: Aside::default() };
    loop {
        let Written { config, dns, file, .. } = &mut reloading.written;
        // All arms are cancel-safe. Operators come first: their reload sees the change too.
        tokio::select! {
            biased;
            request = requests.recv() => match request {
                // The caller may have left.
                Some(Reload::Apply(answer)) => drop(answer.send(reloading.apply().await)),
                Some(Reload::Compare(answer)) => drop(answer.send(reloading.compare().await)),
                None => return,
            },
            () = file_changes(file, config.reload_on_change) => {
                info!("the file of the settings has changed");
                let _ = reloading.apply().await;
            }
            found = dns.looked_up_in_time(config) => reloading.follow(found).await,
        }
    }
}

/// Waits until the file of the settings has changed since the last reading; for ever where the
/// settings do not ask for that.
async fn file_changes(file: &mut Option<FileWatch>, is_wanted: bool) {
    match file {
        Some(file) if is_wanted => file.changed().await,
        _ => std::future::pending().await,
    }
}

struct Reloading {
    shared: Arc<Shared>,
    runtime: Runtime,
    written: Written,
    aside: Aside,
}

impl Reloading {
    /// Applies the settings of the source, or changes nothing and says why.
    async fn apply(&mut self) -> Result<String, String> {
        let shared = self.shared.clone();
        shared.world.supervisor.tell(Supervisor::RELOADING);
        let outcome = self.read_and_apply().await;
        shared.metrics.reloaded(outcome.is_ok());
        match &outcome {
            Ok(changed) => info!(changed, "configuration reloaded"),
            Err(why) => error!(why, "configuration not reloaded; nothing was changed"),
        }
        shared.world.supervisor.tell(Supervisor::READY);
        outcome
    }

    async fn read(&self) -> Result<Config, String> {
        let source = self.written.source.clone();
        let source = source.ok_or("the settings came from flags: there is no file to read anew")?;
        if self.shared.world.threads.is_none() {
            // A thread would make a simulation's runs differ.
            return source();
        }
        let read = self.aside.run(move || source()).await;
        read.unwrap_or_else(|| Err("the settings cannot be read in time: does their file system answer?".to_owned()))
    }

    async fn read_and_apply(&mut self) -> Result<String, String> {
        // A change during the reading is one to come.
        if let Some(file) = &mut self.written.file {
            file.look().await;
        }
        let config = self.read().await?;
        let needing_restart = self.runtime.config().changes_needing_restart(&config);
        if !needing_restart.is_empty() {
            return Err(needs_restart(&needing_restart));
        }
        let found = self.written.dns.looked_up(&config).await;
        let replica = cluster::prepare(&config, &self.shared.world)?;
        let changed = self.use_nodes_of(&config, &found).await?;
        if let (Some(running), Some(replica)) = (&self.shared.cluster, replica) {
            running.reload(replica).await;
        }
        self.written.dns.adopt(found);
        self.written.config = config;
        Ok(changed)
    }

    /// Changes the nodes to those that names have now.
    async fn follow(&mut self, found: Followed) {
        let config = self.written.config.clone();
        let is_new = found.expand(&config) != *self.runtime.config();
        let used = if is_new { self.use_nodes_of(&config, &found).await.map(drop) } else { Ok(()) };
        match used {
            Ok(()) => self.written.dns.adopt(found),
            Err(why) => {
                error!(why, "the nodes of a name are not changed");
                self.written.dns.reject(&found);
            }
        }
    }

    /// Puts these settings to use, with the nodes that the names in the settings have by `found`.
    async fn use_nodes_of(&mut self, config: &Config, found: &Followed) -> Result<String, String> {
        let Shared { world, metrics, worker_jobs, broken, memory, accounts, wishes, .. } = &*self.shared;
        let limit = config.max_client_memory;
        let deps = Deps { world, metrics, memory, worker_jobs, broken, accounts, wishes: wishes.as_deref() };
        let changed = self.runtime.replace(found.expand(config), &deps).await?;
        self.shared.site.store(Arc::new(self.runtime.site(self.shared.spans.as_ref())));
        memory.set_limit(limit.unwrap_or_else(memory::quarter));
        self.shared.reloaded.send_modify(|count| *count += 1);
        Ok(changed)
    }

    /// Compares the settings of the source with those in use.
    async fn compare(&mut self) -> Result<Comparison, String> {
        let config = self.read().await?;
        let difference = Difference::between(&self.written.config, &config);
        let found = self.written.dns.looked_up(&config).await;
        let refusal = match &*difference.needing_restart {
            [] => cluster::prepare(&config, &self.shared.world)
                .err()
                .or_else(|| self.runtime.fault_of(&found.expand(&config))),
            keys => Some(needs_restart(keys)),
        };
        let file = self.written.file.as_ref().map(|file| file.path().display().to_string());
        Ok(Comparison { file, difference, refusal })
    }
}

fn needs_restart(keys: &[&str]) -> String {
    let them = if keys.len() == 1 { "it" } else { "them" };
    let keys = keys.join(", ");
    format!("{keys}: cannot be changed while the proxy runs: restart to apply, or change {them} back")
}
