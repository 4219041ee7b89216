//! `[[outbox.tenant]]`: rules of one tenant, each in the place of the outbox's own.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use super::{MAX_CONFIRMATIONS, MAX_RESEND, blocks};
use crate::{
    config::{problem::Invalid, reader::Reader, reading::join},
    domain::tenant::TenantName,
};

/// The most tenants with rules of their own.
const MAX_TENANTS: usize = 1_000;

/// The rules of a tenant. `None`: the outbox's own holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantRules {
    /// The tenant. Unique.
    pub name: TenantName,
    /// In the place of `outbox.resend_blocks`.
    pub resend_blocks: Option<NonZeroU32>,
    /// In the place of `outbox.confirmations`.
    pub confirmations: Option<NonZeroU32>,
    /// In the place of `outbox.deadline`.
    pub deadline: Option<Duration>,
    /// In the place of `outbox.max_pending_per_tenant`.
    pub max_pending: Option<NonZeroUsize>,
}

impl TenantRules {
    /// The tables `[[outbox.tenant]]`. `max_pending` bounds all tenants together.
    pub(super) fn read_all(r: &mut Reader<'_>, max_pending: NonZeroUsize) -> Vec<Self> {
        let has_header = r.has("tenant_header");
        let tables = r.tables("tenant");
        r.check(tables.len() <= MAX_TENANTS, "tenant", &[], "has more than 1,000 entries");
        let mut paths: BTreeMap<TenantName, String> = BTreeMap::new();
        let mut all = Vec::new();
        for r in tables {
            let (path, reading) = (r.path().to_owned(), r.reading());
            if !has_header {
                reading.fail(&path, "needs `outbox.tenant_header`: without it no call has this tenant");
            }
            let Some(rules) = Self::read(r, max_pending) else { continue };
            match paths.get(&rules.name) {
                Some(first) => reading.fail(&join(&path, "name"), format!("is the name of `{first}` already")),
                None => {
                    paths.insert(rules.name.clone(), path);
                    all.push(rules);
                }
            }
        }
        all
    }

    /// `None` where the name is missing or wrong.
    fn read(mut r: Reader<'_>, most: NonZeroUsize) -> Option<Self> {
        let name = r.parse("name", name);
        if name.is_none() && r.reading().is_clean(&join(r.path(), "name")) {
            r.reading().fail(r.path(), "needs `name`");
        }
        let rules = Self {
            resend_blocks: blocks(&mut r, "resend_blocks", MAX_RESEND),
            confirmations: blocks(&mut r, "confirmations", MAX_CONFIRMATIONS),
            deadline: r.duration_if_set("deadline"),
            max_pending: r.count_if_set("max_pending"),
            name: name?,
        };
        if rules.max_pending.is_some_and(|own| own > most) {
            r.fail("max_pending", "must not be more than `outbox.max_pending`, which bounds all tenants together");
        }
        Some(rules)
    }
}

/// The name of a tenant, as gateways and the file write it.
pub(super) fn name(text: &str) -> Result<TenantName, Invalid> {
    text.parse().map_err(|_| Invalid("must be 1 to 64 of `a-z 0-9 - _ .`, and not `.` or `..`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Errors};

    const HEADER: &str = "tenant_header = \"x-tenant-id\"";

    fn parse(outbox: &str) -> Result<Vec<TenantRules>, Errors> {
        let text = format!("[outbox]\n{outbox}\n[[el.primary]]\nhttp = \"http://127.0.0.1:18545\"\n");
        Config::parse(&text, &|_| None).map(|config| config.outbox.unwrap().tenants)
    }

    /// U27: each rule has its place, and each may be left out.
    #[test]
    fn every_rule_of_a_tenant_is_read() {
        let tables = "[[outbox.tenant]]\nname = \"acme\"\nresend_blocks = 5\nconfirmations = 30\ndeadline = \"5m\"\n\
                      max_pending = 7\n[[outbox.tenant]]\nname = \"zeta\"";
        let name = |name: &str| name.parse::<TenantName>().unwrap();
        let expected = [
            TenantRules {
                name: name("acme"),
                resend_blocks: NonZeroU32::new(5),
                confirmations: NonZeroU32::new(30),
                deadline: Some(Duration::from_secs(300)),
                max_pending: NonZeroUsize::new(7),
            },
            TenantRules {
                name: name("zeta"),
                resend_blocks: None,
                confirmations: None,
                deadline: None,
                max_pending: None,
            },
        ];
        assert_eq!(parse(&format!("{HEADER}\n{tables}")).unwrap(), expected);
    }

    /// U27: each mistake is told with its key.
    #[test]
    fn wrong_rules_are_told_with_their_keys() {
        let acme = "[[outbox.tenant]]\nname = \"acme\"";
        for (outbox, path, words) in [
            (acme.to_owned(), "outbox.tenant[0]", "needs `outbox.tenant_header`"),
            (format!("{HEADER}\n{acme}\n{acme}"), "outbox.tenant[1].name", "the name of `outbox.tenant[0]` already"),
            (format!("{HEADER}\n[[outbox.tenant]]\nname = \"A B\""), "outbox.tenant[0].name", "1 to 64 of `a-z"),
            (format!("{HEADER}\n[[outbox.tenant]]\nconfirmations = 3"), "outbox.tenant[0]", "needs `name`"),
            (format!("{HEADER}\n{acme}\nresend_blocks = 0"), "outbox.tenant[0].resend_blocks", "from 1 to 1000"),
            (format!("{HEADER}\n{acme}\nconfirmations = 0"), "outbox.tenant[0].confirmations", "from 1 to 100000"),
            (format!("{HEADER}\n{acme}\ndeadline = \"0s\""), "outbox.tenant[0].deadline", "zero"),
            (format!("{HEADER}\n{acme}\nmax_pending = 0"), "outbox.tenant[0].max_pending", "from 1 to"),
            (
                format!("max_pending = 3\n{HEADER}\n{acme}\nmax_pending = 4"),
                "outbox.tenant[0].max_pending",
                "more than `outbox.max_pending`",
            ),
            (format!("{HEADER}\n{acme}\ndeadlin = \"1h\""), "outbox.tenant[0].deadlin", "did you mean `deadline`?"),
        ] {
            let errors = parse(&outbox).expect_err(&outbox);
            let [problem] = &*errors.problems else { panic!("{outbox}: {errors}") };
            assert_eq!(problem.path, path, "{outbox}");
            assert!(problem.message.contains(words), "{outbox}: {}", problem.message);
        }
        let many: String = (0..1001).map(|number| format!("[[outbox.tenant]]\nname = \"t{number}\"\n")).collect();
        let told = parse(&format!("{HEADER}\n{many}")).unwrap_err().to_string();
        assert!(told.contains("outbox.tenant: has more than 1,000 entries"), "{told}");
    }
}
