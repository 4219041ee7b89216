//! The name of a tenant.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest name of a tenant, in bytes.
pub const LONGEST_TENANT: usize = 64;

/// Why a text is no name of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant's name is 1 to 64 of `a-z 0-9 - _ .`, and not `.` or `..`")]
pub struct NotATenant;

/// A tenant: the party whose transactions, bounds and webhooks are kept apart from all others'.
/// 1 to 64 of `a-z 0-9 - _ .`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(Arc<str>);

impl TenantName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tenant of all calls where no header names tenants.
impl Default for TenantName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for TenantName {
    type Err = NotATenant;

    fn from_str(text: &str) -> Result<Self, NotATenant> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        let is_name = (1..=LONGEST_TENANT).contains(&text.len()) && text.bytes().all(good);
        if is_name && !matches!(text, "." | "..") { Ok(Self(text.into())) } else { Err(NotATenant) }
    }
}

impl TryFrom<String> for TenantName {
    type Error = NotATenant;

    fn try_from(text: String) -> Result<Self, NotATenant> {
        text.parse()
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Borrow<str> for TenantName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_name_is_checked_where_it_is_read() {
        for good in ["a", "team-1", "a.b_c", "...", &"x".repeat(LONGEST_TENANT)] {
            assert_eq!(good.parse::<TenantName>().unwrap().as_str(), good);
            let json = format!("\"{good}\"");
            let read: TenantName = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), json);
        }
        for bad in ["", ".", "..", "A", "a b", "a/b", "a\0", "ü", &"x".repeat(LONGEST_TENANT + 1)] {
            assert_eq!(bad.parse::<TenantName>(), Err(NotATenant), "{bad}");
            assert!(serde_json::from_value::<TenantName>(bad.into()).is_err(), "{bad}");
        }
        assert_eq!(TenantName::default().as_str(), "default");
    }
}
