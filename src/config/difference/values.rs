//! Values in words, as the file writes them.

use std::{
    fmt::{Debug, Display},
    ops::Deref,
    time::Duration,
};

use http::HeaderName;

use super::{HIDDEN, NOT_SET};
use crate::{
    config::{CallRule, Hosts, Origins},
    domain::address::Address,
};

/// A number, a name, an address.
pub(super) fn plain<T: Display>(value: &T) -> String {
    value.to_string()
}

/// The word of a choice, which is the variant's name in lower case.
pub(super) fn word<T: Debug>(value: &T) -> String {
    format!("{value:?}").to_ascii_lowercase()
}

/// A value that may be left out.
pub(super) fn optional<T>(told: impl Fn(&T) -> String) -> impl Fn(&Option<T>) -> String {
    move |value| value.as_ref().map_or_else(|| NOT_SET.to_owned(), &told)
}

/// The rules for calls of some methods, as the file writes them.
pub(super) fn call_rules(rules: &impl Deref<Target = [CallRule]>) -> String {
    let told = rules.iter().map(|rule| {
        let CallRule { methods, timeout, attempt_timeout, attempts, send_to, blocked } = rule;
        let settings = [
            ("timeout", timeout.as_ref().map(duration)),
            ("attempt_timeout", attempt_timeout.as_ref().map(duration)),
            ("attempts", attempts.as_ref().map(plain)),
            ("send_to", send_to.as_ref().map(word)),
            ("blocked", blocked.as_ref().map(plain)),
        ];
        let settings = settings.into_iter().filter_map(|(key, value)| Some(format!("{key} {}", value?)));
        format!("{}: {}", items(methods), settings.collect::<Vec<_>>().join(", "))
    });
    format!("[{}]", told.collect::<Vec<_>>().join("; "))
}

/// A whole number of seconds, or of milliseconds.
pub(super) fn duration(value: &Duration) -> String {
    match value.subsec_millis() {
        0 => format!("{}s", value.as_secs()),
        _ => format!("{}ms", value.as_millis()),
    }
}

/// Bytes in the largest unit that has a whole number of them.
pub(super) fn size(value: &usize) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, bytes)| *value > 0 && value.is_multiple_of(*bytes));
    unit.map_or_else(|| format!("{value}B"), |(unit, bytes)| format!("{}{unit}", value / bytes))
}

/// A list of strings.
pub(super) fn list<T: Display>(values: &[T]) -> String {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", values.join(", "))
}

/// [`list`], where the values are in a vector.
pub(super) fn items<L: Deref<Target = [T]>, T: Display>(values: &L) -> String {
    list(values)
}

/// Where the proxy listens, with the permissions of files.
pub(super) fn listen(values: &impl Deref<Target = [Address]>) -> String {
    let told = values.iter().map(|address| match address {
        Address::Unix { mode, .. } => format!("{address} with mode {mode:04o}"),
        Address::Ip(_) => address.to_string(),
    });
    list(&told.collect::<Vec<_>>())
}

pub(super) fn hosts(value: &Hosts) -> String {
    match value {
        Hosts::None => list::<String>(&[]),
        Hosts::Any => list(&["*"]),
        Hosts::Names(names) => list(names),
    }
}

pub(super) fn origins(value: &Origins) -> String {
    match value {
        Origins::None => list::<String>(&[]),
        Origins::Any => list(&["*"]),
        Origins::List(origins) => list(origins),
    }
}

/// The names of headers, whose values may be secret.
pub(super) fn headers<L: Deref<Target = [(HeaderName, V)]>, V>(values: &L) -> String {
    let told = values.iter().map(|(name, _)| format!("{name}: {HIDDEN}"));
    list(&told.collect::<Vec<_>>())
}
