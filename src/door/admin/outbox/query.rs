//! The parameters of a request to `/outbox`. An unknown parameter is refused: a filter that is
//! overlooked would let too much through.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::Refusal;
use crate::outbox::record::{Network, StateName, TenantName};

/// The parameters of a request. Libraries escape some characters of values, such as `/` and `,`,
/// and others do not.
pub(super) struct Query<'a>(Vec<(&'a str, Cow<'a, str>)>);

/// A part of a URL as it was before it was escaped.
pub(super) fn unescaped(text: &str) -> Result<Cow<'_, str>, Refusal> {
    percent_decode_str(text).decode_utf8().map_err(|_| Refusal::bad(format!("`{text}` is not UTF-8")))
}

impl<'a> Query<'a> {
    /// Reads the parameters, each at most once and of these names.
    pub(super) fn read(text: Option<&'a str>, names: &[&str]) -> Result<Self, Refusal> {
        let mut found: Vec<(&str, Cow<'_, str>)> = Vec::new();
        for part in text.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if !names.contains(&name) {
                let known = names.join(", ");
                return Err(Refusal::bad(format!("there is no parameter `{name}` here; there are {known}")));
            }
            if found.iter().any(|(other, _)| *other == name) {
                return Err(Refusal::bad(format!("the parameter `{name}` is there twice")));
            }
            found.push((name, unescaped(value)?));
        }
        Ok(Self(found))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| &**value)
    }

    pub(super) fn tenant(&self) -> Result<Option<TenantName>, Refusal> {
        let named = self.get("tenant").map(str::parse).transpose();
        named.map_err(|error| Refusal::bad(format!("tenant={}: {error}", self.get("tenant").unwrap_or_default())))
    }

    pub(super) fn network(&self) -> Option<Network> {
        self.get("network").map(Network::from)
    }

    /// The states of `state=`, with commas between.
    pub(super) fn states(&self) -> Result<Vec<StateName>, Refusal> {
        let named = self.get("state").into_iter().flat_map(|list| list.split(','));
        named
            .map(|word| {
                StateName::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(|| {
                    let all = StateName::ALL.map(StateName::as_str).join(", ");
                    Refusal::bad(format!("there is no state `{word}`; there are {all}"))
                })
            })
            .collect()
    }

    /// The number of `limit=`, from 1 to `most`.
    pub(super) fn limit(&self, usual: usize, most: usize) -> Result<usize, Refusal> {
        let Some(text) = self.get("limit") else { return Ok(usual) };
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| Refusal::bad(format!("limit={text} is no number from 1 to {most}")))
    }

    /// Whether `name=1` is there. Any other value is refused.
    pub(super) fn is_set(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            None => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(Refusal::bad(format!("{name}={other}: only {name}=1 is known"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_come_escaped_and_plain() {
        for text in ["after=default%2Fmain%2F0x12&state=mined%2Cfinal", "after=default/main/0x12&state=mined,final"] {
            let query = Query::read(Some(text), &["after", "state"]).ok().unwrap();
            assert_eq!(query.get("after"), Some("default/main/0x12"));
            assert_eq!(query.states().ok().unwrap().len(), 2);
        }
        assert!(Query::read(Some("after=%ff"), &["after"]).is_err(), "that is no text");
        assert_eq!(unescaped("evt_1%40billing").ok().unwrap(), "evt_1@billing");
    }
}
