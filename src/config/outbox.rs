//! `[outbox]`: accepted transactions are kept on disk, followed, and reported by webhooks.

mod tenant;
mod webhook;

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use http::HeaderName;

pub use self::{
    tenant::TenantRules,
    webhook::{SigningKey, Webhook},
};
use super::{
    calls::SendTo,
    header::{self, names_a_credential},
    problem::Invalid,
    reader::Reader,
};

/// The most blocks that may be asked for on top of a transaction's block.
const MAX_CONFIRMATIONS: u64 = 100_000;
/// The most blocks between two sendings of a transaction.
const MAX_RESEND: u64 = 1_000;

/// When a client gets the hash of its transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// The transaction is on disk, and a node took it.
    #[default]
    Node,
    /// The transaction is on disk.
    Disk,
}

/// `[outbox]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// The folder of the store.
    pub dir: PathBuf,
    /// When a client gets the hash.
    pub ack: Ack,
    /// The nodes that a transaction is sent to.
    pub send_to: SendTo,
    /// Blocks after which a transaction that no node knows is sent again.
    pub resend_blocks: NonZeroU32,
    /// Blocks, its own included, after which a transaction counts as confirmed.
    pub confirmations: NonZeroU32,
    /// How long a transaction may wait for a block before expiry.
    pub deadline: Duration,
    /// How long a record is kept when its life is over.
    pub keep: Duration,
    /// Transactions whose life is not over, at most.
    pub max_pending: NonZeroUsize,
    /// The same of one tenant.
    pub max_pending_per_tenant: NonZeroUsize,
    /// Bytes of all records, bodies and raw transactions, at most.
    pub max_bytes: usize,
    /// The same of one tenant.
    pub max_bytes_per_tenant: usize,
    /// Transactions of one tenant on their way to nodes at once, at most.
    pub max_in_flight_per_tenant: NonZeroUsize,
    /// The longest raw transaction without blobs, in bytes.
    pub max_transaction: usize,
    /// The longest raw transaction with blobs, in bytes.
    pub max_blob_transaction: usize,
    /// The header that names the tenant of a call; `None`: all calls are of one tenant.
    pub tenant_header: Option<HeaderName>,
    /// The tenants with rules of their own, in the order of the file, no name twice.
    pub tenants: Vec<TenantRules>,
    /// The endpoints for events, in the order of the file, no name twice.
    pub webhooks: Vec<Webhook>,
}

impl Default for Outbox {
    fn default() -> Self {
        let pending = const { NonZeroUsize::new(100_000).expect("not zero") };
        Self {
            dir: "/var/lib/steadfast".into(),
            ack: Ack::default(),
            send_to: SendTo::default(),
            resend_blocks: const { NonZeroU32::new(2).expect("not zero") },
            confirmations: const { NonZeroU32::new(12).expect("not zero") },
            deadline: Duration::from_secs(24 * 60 * 60),
            keep: Duration::from_secs(7 * 24 * 60 * 60),
            max_pending: pending,
            max_pending_per_tenant: pending,
            max_bytes: 1 << 30,
            max_bytes_per_tenant: 1 << 30,
            max_in_flight_per_tenant: const { NonZeroUsize::new(256).expect("not zero") },
            max_transaction: 128 << 10,
            max_blob_transaction: 1 << 20,
            tenant_header: None,
            tenants: Vec::new(),
            webhooks: Vec::new(),
        }
    }
}

impl Outbox {
    /// Reads the table; `None` where the file has none, since the table's presence turns the outbox
    /// on.
    pub(super) fn read_if_set(root: &mut Reader<'_>) -> Option<Self> {
        let is_on = root.has("outbox");
        let outbox = Self::read(root.section("outbox"));
        is_on.then_some(outbox)
    }

    fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        let folder = r.reading().folder();
        let max_pending = r.count("max_pending", default.max_pending);
        let max_bytes = r.size("max_bytes", default.max_bytes);
        let tenants = TenantRules::read_all(&mut r, max_pending);
        let outbox = Self {
            dir: r.parse("dir", |path| some_path(path).map(|path| folder.join(path))).unwrap_or(default.dir),
            ack: r.choice("ack", &[("node", Ack::Node), ("disk", Ack::Disk)], default.ack),
            send_to: r.choice(
                "send_to",
                &[("all", SendTo::All), ("tier", SendTo::Tier), ("first", SendTo::First)],
                default.send_to,
            ),
            resend_blocks: blocks(&mut r, "resend_blocks", MAX_RESEND).unwrap_or(default.resend_blocks),
            confirmations: blocks(&mut r, "confirmations", MAX_CONFIRMATIONS).unwrap_or(default.confirmations),
            deadline: r.duration("deadline", default.deadline),
            keep: r.duration("keep", default.keep),
            max_pending,
            max_pending_per_tenant: r.count("max_pending_per_tenant", max_pending),
            max_bytes,
            max_bytes_per_tenant: r.size("max_bytes_per_tenant", max_bytes),
            max_in_flight_per_tenant: r.count("max_in_flight_per_tenant", default.max_in_flight_per_tenant),
            max_transaction: r.size("max_transaction", default.max_transaction),
            max_blob_transaction: r.size("max_blob_transaction", default.max_blob_transaction),
            tenant_header: r.parse("tenant_header", tenant_header),
            tenants,
            webhooks: Webhook::read_all(&mut r),
        };
        outbox.check(&r);
        outbox
    }

    /// The rules between keys.
    fn check(&self, r: &Reader<'_>) {
        r.check(
            self.max_pending_per_tenant <= self.max_pending,
            "max_pending_per_tenant",
            &["max_pending"],
            "must not be more than `max_pending`, which bounds all tenants together",
        );
        r.check(
            self.max_bytes_per_tenant <= self.max_bytes,
            "max_bytes_per_tenant",
            &["max_bytes"],
            "must not be more than `max_bytes`, which bounds all tenants together",
        );
        r.check(
            self.max_transaction <= self.max_blob_transaction,
            "max_blob_transaction",
            &["max_transaction"],
            "must not be less than `max_transaction`: blobs come on top of a transaction",
        );
        r.check(
            self.max_blob_transaction <= self.max_bytes_per_tenant,
            "max_bytes_per_tenant",
            &["max_blob_transaction", "max_bytes"],
            "must not be less than `max_blob_transaction`: a transaction of that length could never be taken",
        );
    }

    /// The settings that differ in `new` and that a reload cannot apply, by their keys.
    pub(super) fn changes_needing_restart(&self, new: &Self) -> Vec<&'static str> {
        // Without `..`: a new setting does not compile until its author decides here.
        let Self {
            dir,
            ack,
            send_to,
            resend_blocks,
            confirmations,
            deadline,
            keep: _,
            max_pending: _,
            max_pending_per_tenant: _,
            max_bytes: _,
            max_bytes_per_tenant: _,
            max_in_flight_per_tenant: _,
            max_transaction: _,
            max_blob_transaction: _,
            tenant_header,
            tenants: _,
            webhooks: _,
        } = self;
        let changes = [
            ("outbox.dir", *dir != new.dir),
            ("outbox.ack", *ack != new.ack),
            ("outbox.send_to", *send_to != new.send_to),
            ("outbox.resend_blocks", *resend_blocks != new.resend_blocks),
            ("outbox.confirmations", *confirmations != new.confirmations),
            ("outbox.deadline", *deadline != new.deadline),
            ("outbox.tenant_header", *tenant_header != new.tenant_header),
        ];
        changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }
}

/// A number of blocks, at most `most`.
fn blocks(r: &mut Reader<'_>, key: &'static str, most: u64) -> Option<NonZeroU32> {
    let number = r.integer(key, 1..=most).and_then(|n| u32::try_from(n).ok());
    number.and_then(NonZeroU32::new)
}

fn some_path(text: &str) -> Result<&str, Invalid> {
    if text.is_empty() || text.contains('\0') { Err(Invalid("must be the path of a folder")) } else { Ok(text) }
}

/// A header whose value becomes a name in logs, metrics and the store.
fn tenant_header(text: &str) -> Result<HeaderName, Invalid> {
    let name = header::name(text)?;
    if names_a_credential(name.as_str()) {
        return Err(Invalid(
            "is a header of credentials, and a tenant's name is shown: have the gateway set one such as \"x-tenant-id\"",
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Errors};

    fn read(outbox: &str) -> Result<Option<Outbox>, Errors> {
        let text = format!("{outbox}\n[[el.primary]]\nhttp = \"http://127.0.0.1:18545\"\n");
        Config::parse(&text, &|_| None).map(|config| config.outbox)
    }

    #[test]
    fn the_table_by_itself_turns_the_outbox_on() {
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("[outbox]").unwrap(), Some(Outbox::default()));
    }

    /// U12: each key has its place, its unit and its bounds.
    #[test]
    fn every_setting_is_read() {
        let outbox = read(
            "[outbox]\ndir = \"/srv/box\"\nack = \"disk\"\nsend_to = \"tier\"\nresend_blocks = 3\nconfirmations = 6\n\
             deadline = \"2h\"\nkeep = \"30d\"\nmax_pending = 50\nmax_bytes = \"64MiB\"\ntenant_header = \"X-Team\"\n\
             max_pending_per_tenant = 5\nmax_bytes_per_tenant = \"8MiB\"\nmax_in_flight_per_tenant = 2\n\
             max_transaction = \"64KiB\"\nmax_blob_transaction = \"2MiB\"",
        );
        let count = |n| NonZeroUsize::new(n).unwrap();
        let expected = Outbox {
            dir: "/srv/box".into(),
            ack: Ack::Disk,
            send_to: SendTo::Tier,
            resend_blocks: NonZeroU32::new(3).unwrap(),
            confirmations: NonZeroU32::new(6).unwrap(),
            deadline: Duration::from_secs(7200),
            keep: Duration::from_secs(30 * 86_400),
            max_pending: count(50),
            max_pending_per_tenant: count(5),
            max_bytes: 64 << 20,
            max_bytes_per_tenant: 8 << 20,
            max_in_flight_per_tenant: count(2),
            max_transaction: 64 << 10,
            max_blob_transaction: 2 << 20,
            tenant_header: Some(HeaderName::from_static("x-team")),
            tenants: Vec::new(),
            webhooks: Vec::new(),
        };
        assert_eq!(outbox.unwrap(), Some(expected));
    }

    #[test]
    fn a_tenants_bounds_follow_the_bounds_of_all() {
        let outbox = read("[outbox]\nmax_pending = 7\nmax_bytes = \"32MiB\"").unwrap().unwrap();
        assert_eq!((outbox.max_pending_per_tenant.get(), outbox.max_bytes_per_tenant), (7, 32 << 20));
    }

    #[test]
    fn wrong_values_are_all_told_with_their_keys() {
        for (lines, key, words) in [
            ("dir = \"\"", "outbox.dir", "folder"),
            ("ack = \"mempool\"", "outbox.ack", "\"node\" or \"disk\""),
            ("send_to = \"one\"", "outbox.send_to", "\"all\" or \"tier\" or \"first\""),
            ("resend_blocks = 0", "outbox.resend_blocks", "from 1 to 1000"),
            ("confirmations = 0", "outbox.confirmations", "from 1 to"),
            ("deadline = \"0s\"", "outbox.deadline", "zero"),
            ("keep = \"1 week\"", "outbox.keep", "with a unit"),
            ("max_pending = 0", "outbox.max_pending", "from 1 to"),
            ("max_pending = 3\nmax_pending_per_tenant = 4", "outbox.max_pending_per_tenant", "`max_pending`"),
            ("max_bytes_per_tenant = \"2GiB\"", "outbox.max_bytes_per_tenant", "`max_bytes`"),
            ("max_bytes = \"1000kB\"", "outbox.max_bytes_per_tenant", "`max_blob_transaction`"),
            ("max_blob_transaction = \"1KiB\"", "outbox.max_blob_transaction", "`max_transaction`"),
            ("tenant_header = \"authorization\"", "outbox.tenant_header", "credentials"),
            ("tenant_header = \"host\"", "outbox.tenant_header", "belongs to the connection"),
            ("ackk = \"node\"", "outbox.ackk", "did you mean `ack`?"),
        ] {
            let errors = read(&format!("[outbox]\n{lines}")).expect_err(lines);
            let [problem] = &*errors.problems else { panic!("{lines}: {errors}") };
            assert_eq!(problem.path, key, "{lines}");
            assert!(problem.message.contains(words), "{lines}: {}", problem.message);
        }
    }

    #[test]
    fn a_reload_changes_bounds_and_webhooks_and_nothing_else() {
        let base = Outbox::default();
        let needing = |change: fn(&mut Outbox)| {
            let mut new = base.clone();
            change(&mut new);
            assert_ne!(new, base);
            base.changes_needing_restart(&new)
        };
        assert_eq!(needing(|new| new.dir = "/other".into()), ["outbox.dir"]);
        assert_eq!(needing(|new| new.ack = Ack::Disk), ["outbox.ack"]);
        assert_eq!(needing(|new| new.send_to = SendTo::First), ["outbox.send_to"]);
        assert_eq!(needing(|new| new.deadline = Duration::from_secs(1)), ["outbox.deadline"]);
        for free in [
            (|new| new.max_pending = NonZeroUsize::MIN) as fn(&mut Outbox),
            |new| new.max_bytes = 1,
            |new| new.keep = Duration::from_secs(1),
            |new| new.max_in_flight_per_tenant = NonZeroUsize::MIN,
            |new| {
                let name = crate::domain::tenant::TenantName::default();
                let rules =
                    TenantRules { name, resend_blocks: None, confirmations: None, deadline: None, max_pending: None };
                new.tenants.push(rules);
            },
        ] {
            assert!(needing(free).is_empty());
        }
    }
}
