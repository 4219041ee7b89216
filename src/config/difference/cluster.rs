//! The differences of the cluster's settings.

use super::{
    Setting, compare as add,
    values::{duration, items, optional, plain},
};
use crate::config::{CaFile, Cluster};

/// Adds the settings with another value to `changes`.
pub(super) fn compare(changes: &mut Vec<Setting>, old: Option<&Cluster>, new: Option<&Cluster>) {
    let told = |cluster: &Option<&Cluster>| if cluster.is_some() { "on" } else { "off" }.to_owned();
    let (Some(old), Some(new)) = (old, new) else {
        if old.is_some() != new.is_some() {
            add(changes, "cluster".into(), &old, &new, told);
        }
        return;
    };
    // Without `..`: a new setting does not compile until its author has the value told here.
    let Cluster {
        name,
        replica,
        nats,
        credentials,
        ca_file,
        dir,
        heartbeat,
        failure_threshold,
        safety_margin,
        failover_timeout,
        timing: _,
        preferred,
        on_lead,
        on_fence,
        on_hook_timeout,
    } = old;
    let key = |name: &str| format!("cluster.{name}");
    let path = |path: &std::path::PathBuf| path.display().to_string();
    let file = |file: &CaFile| file.path.display().to_string();
    add(changes, key("name"), name, &new.name, plain);
    add(changes, key("replica"), replica, &new.replica, plain);
    add(changes, key("nats"), nats, &new.nats, items);
    add(changes, key("credentials"), credentials, &new.credentials, optional(path));
    add(changes, key("ca_file"), ca_file, &new.ca_file, optional(file));
    add(changes, key("dir"), dir, &new.dir, optional(path));
    add(changes, key("heartbeat"), heartbeat, &new.heartbeat, duration);
    add(changes, key("failure_threshold"), failure_threshold, &new.failure_threshold, plain);
    add(changes, key("safety_margin"), safety_margin, &new.safety_margin, duration);
    add(changes, key("failover_timeout"), failover_timeout, &new.failover_timeout, duration);
    add(changes, key("preferred"), preferred, &new.preferred, plain);
    add(changes, key("on_lead"), on_lead, &new.on_lead, optional(plain));
    add(changes, key("on_fence"), on_fence, &new.on_fence, optional(plain));
    add(changes, key("on_hook_timeout"), on_hook_timeout, &new.on_hook_timeout, duration);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn cluster(lines: &str) -> Cluster {
        let text = format!(
            "[cluster]\nname = \"eu\"\nreplica = \"r1\"\n{lines}\n[[el.primary]]\nhttp = \"http://10.0.0.1\"\n"
        );
        Config::parse(&text, &|_| None).unwrap_or_else(|errors| panic!("{errors}")).cluster.unwrap()
    }

    #[test]
    fn the_cluster_comes_goes_and_changes_without_secrets() {
        let old = cluster("nats = \"nats://u:s3cret@n1\"");
        let between = |old: Option<&Cluster>, new: Option<&Cluster>| {
            let mut changes = Vec::new();
            compare(&mut changes, old, new);
            changes.into_iter().map(|Setting { key, from, to }| format!("{key}: {from}, {to}")).collect::<Vec<_>>()
        };
        assert_eq!(between(None, Some(&old)), ["cluster: off, on"]);
        assert!(between(Some(&old), Some(&old)).is_empty());
        let new = cluster("nats = \"nats://u:0ther@n1\"\nheartbeat = \"500ms\"\non_lead = [\"/bin/a\", \"k3y\"]");
        let expected = [
            "cluster.nats: [nats://***@n1], [nats://***@n1] (other in a part that is not shown)",
            "cluster.heartbeat: 1s, 500ms",
            "cluster.on_lead: not set, /bin/a",
        ];
        assert_eq!(between(Some(&old), Some(&new)), expected);
    }
}
