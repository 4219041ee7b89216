//! The differences of the outbox, its tenants and its webhooks.

use std::collections::BTreeSet;

use super::{
    HIDDEN, Setting, compare as add,
    values::{duration, items, optional, plain, size, word},
};
use crate::config::{Outbox, TenantRules, Webhook};

/// Adds the settings with another value to `changes`.
pub(super) fn compare(changes: &mut Vec<Setting>, old: Option<&Outbox>, new: Option<&Outbox>) {
    let told = |outbox: &Option<&Outbox>| if outbox.is_some() { "on" } else { "off" }.to_owned();
    let (Some(old), Some(new)) = (old, new) else {
        if old.is_some() != new.is_some() {
            add(changes, "outbox".into(), &old, &new, told);
        }
        return;
    };
    // Without `..`: a new setting does not compile until its author has the value told here.
    let Outbox {
        dir,
        ack,
        send_to,
        resend_blocks,
        confirmations,
        deadline,
        keep,
        max_pending,
        max_pending_per_tenant,
        max_bytes,
        max_bytes_per_tenant,
        max_in_flight_per_tenant,
        max_transaction,
        max_blob_transaction,
        tenant_header,
        tenants,
        webhooks,
    } = old;
    let key = |name: &str| format!("outbox.{name}");
    add(changes, key("dir"), dir, &new.dir, |dir| dir.display().to_string());
    add(changes, key("ack"), ack, &new.ack, word);
    add(changes, key("send_to"), send_to, &new.send_to, word);
    add(changes, key("resend_blocks"), resend_blocks, &new.resend_blocks, plain);
    add(changes, key("confirmations"), confirmations, &new.confirmations, plain);
    add(changes, key("deadline"), deadline, &new.deadline, duration);
    add(changes, key("keep"), keep, &new.keep, duration);
    add(changes, key("max_pending"), max_pending, &new.max_pending, plain);
    add(changes, key("max_pending_per_tenant"), max_pending_per_tenant, &new.max_pending_per_tenant, plain);
    add(changes, key("max_bytes"), max_bytes, &new.max_bytes, size);
    add(changes, key("max_bytes_per_tenant"), max_bytes_per_tenant, &new.max_bytes_per_tenant, size);
    add(changes, key("max_in_flight_per_tenant"), max_in_flight_per_tenant, &new.max_in_flight_per_tenant, plain);
    add(changes, key("max_transaction"), max_transaction, &new.max_transaction, size);
    add(changes, key("max_blob_transaction"), max_blob_transaction, &new.max_blob_transaction, size);
    add(changes, key("tenant_header"), tenant_header, &new.tenant_header, optional(plain));
    rules(changes, tenants, &new.tenants);
    endpoints(changes, webhooks, &new.webhooks);
}

/// The rules of tenants that come, go and change, by the tenants' names.
fn rules(changes: &mut Vec<Setting>, old: &[TenantRules], new: &[TenantRules]) {
    let none = |name| TenantRules { name, resend_blocks: None, confirmations: None, deadline: None, max_pending: None };
    let names: BTreeSet<_> = old.iter().chain(new).map(|rules| rules.name.clone()).collect();
    for name in names {
        let of = |all: &[TenantRules]| all.iter().find(|rules| rules.name == name).cloned();
        let (old, new) = (of(old).unwrap_or(none(name.clone())), of(new).unwrap_or(none(name.clone())));
        let TenantRules { name, resend_blocks, confirmations, deadline, max_pending } = &old;
        let key = |field: &str| format!("outbox.tenant.{name}.{field}");
        add(changes, key("resend_blocks"), resend_blocks, &new.resend_blocks, optional(plain));
        add(changes, key("confirmations"), confirmations, &new.confirmations, optional(plain));
        add(changes, key("deadline"), deadline, &new.deadline, optional(duration));
        add(changes, key("max_pending"), max_pending, &new.max_pending, optional(plain));
    }
}

/// The endpoints that come, go and change, by their names.
fn endpoints(changes: &mut Vec<Setting>, old: &[Webhook], new: &[Webhook]) {
    let key = |webhook: &Webhook| format!("outbox.webhook.{}", webhook.name);
    let like = |all: &[Webhook], one: &Webhook| all.iter().any(|other| other.name == one.name);
    let none = || super::NOT_SET.to_owned();
    for gone in old.iter().filter(|webhook| !like(new, webhook)) {
        changes.push(Setting { key: key(gone), from: gone.url.to_string(), to: none() });
    }
    for come in new.iter().filter(|webhook| !like(old, webhook)) {
        changes.push(Setting { key: key(come), from: none(), to: come.url.to_string() });
    }
    for (old, new) in old.iter().filter_map(|old| Some((old, new.iter().find(|new| new.name == old.name)?))) {
        let Webhook { name, url, events, tenants, secrets, timeout, max_attempts, allow_private, ca_file } = old;
        let key = |field: &str| format!("outbox.webhook.{name}.{field}");
        add(changes, key("url"), url, &new.url, plain);
        add(changes, key("events"), events, &new.events, items);
        add(changes, key("tenants"), tenants, &new.tenants, optional(items));
        add(changes, key("secret"), secrets, &new.secrets, |_| HIDDEN.to_owned());
        add(changes, key("timeout"), timeout, &new.timeout, duration);
        add(changes, key("max_attempts"), max_attempts, &new.max_attempts, plain);
        add(changes, key("allow_private"), allow_private, &new.allow_private, plain);
        add(
            changes,
            key("ca_file"),
            ca_file,
            &new.ca_file,
            optional(|file: &crate::config::CaFile| file.path.display().to_string()),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, sync::Arc};

    use super::*;
    use crate::config::Config;

    fn outbox(webhooks: &str) -> Outbox {
        let text = format!("[outbox]\n{webhooks}\n[[el.primary]]\nhttp = \"http://10.0.0.1\"\n");
        Config::parse(&text, &|_| None).unwrap_or_else(|errors| panic!("{errors}")).outbox.unwrap()
    }

    fn between(old: Option<&Outbox>, new: Option<&Outbox>) -> Vec<(String, String, String)> {
        let mut changes = Vec::new();
        compare(&mut changes, old, new);
        changes.into_iter().map(|Setting { key, from, to }| (key, from, to)).collect()
    }

    fn told(key: &str, from: &str, to: &str) -> (String, String, String) {
        (key.to_owned(), from.to_owned(), to.to_owned())
    }

    #[test]
    fn the_outbox_comes_goes_and_changes() {
        let old = outbox("");
        assert_eq!(between(None, Some(&old)), [told("outbox", "off", "on")]);
        assert_eq!(between(Some(&old), None), [told("outbox", "on", "off")]);
        assert_eq!(between(Some(&old), Some(&old)), []);
        let new = Outbox { max_pending: NonZeroUsize::MIN, max_bytes: 1 << 29, ..old.clone() };
        let expected = [told("outbox.max_pending", "100000", "1"), told("outbox.max_bytes", "1GiB", "512MiB")];
        assert_eq!(between(Some(&old), Some(&new)), expected);
    }

    #[test]
    fn rules_of_tenants_are_told_by_name() {
        const HEADER: &str = "tenant_header = \"x-tenant-id\"\n";
        let with = |tables: &str| outbox(&format!("{HEADER}{tables}"));
        let old = with("[[outbox.tenant]]\nname = \"acme\"\nconfirmations = 3\ndeadline = \"5m\"");
        let new = with(
            "[[outbox.tenant]]\nname = \"b\"\nmax_pending = 7\n[[outbox.tenant]]\nname = \"acme\"\ndeadline = \"1m\"\nresend_blocks = 9",
        );
        let expected = [
            told("outbox.tenant.acme.resend_blocks", "not set", "9"),
            told("outbox.tenant.acme.confirmations", "3", "not set"),
            told("outbox.tenant.acme.deadline", "300s", "60s"),
            told("outbox.tenant.b.max_pending", "not set", "7"),
        ];
        assert_eq!(between(Some(&old), Some(&new)), expected);
        assert_eq!(between(Some(&old), Some(&old)), []);
    }

    #[test]
    fn endpoints_are_told_by_name_and_without_secrets() {
        let old = outbox(
            "[[outbox.webhook]]\nname = \"a\"\nurl = \"https://a.example/k3y\"\nevents = [\"tx.final\"]\n\
             secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"",
        );
        let mut new = old.clone();
        new.webhooks[0].secrets = vec![crate::config::Secret::new([7; 32].into())];
        let [change] = <[_; 1]>::try_from(between(Some(&old), Some(&new))).unwrap();
        assert_eq!(change, told("outbox.webhook.a.secret", "***", "*** (another)"));
        new.webhooks[0].name = Arc::from("b");
        let expected = [
            told("outbox.webhook.a", "https://a.example/***", "not set"),
            told("outbox.webhook.b", "not set", "https://a.example/***"),
        ];
        assert_eq!(between(Some(&old), Some(&new)), expected);
    }
}
