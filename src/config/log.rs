//! `[log]`: the lines that are written to standard error, their form, and the access log.

use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use super::{Addresses, problem::Invalid, reader::Reader};

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object on each line.
    Json,
}

/// The most requests of which one has a line in the access log.
const MOST_REQUESTS: u64 = 1_000_000;

/// The levels that are logged, the form, and the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The levels that are logged.
    pub filter: LogFilter,
    /// The access log has a line for every request whose number this divides; 0: none.
    pub access: u64,
    /// The proxies in front whose word on their clients' addresses is believed.
    pub trusted_proxies: Addresses,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            filter: LogFilter("info".into()),
            access: 0,
            trusted_proxies: Addresses::default(),
        }
    }
}

impl Log {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            format: r.choice("format", &[("text", LogFormat::Text), ("json", LogFormat::Json)], default.format),
            filter: r.parse("filter", str::parse).unwrap_or(default.filter),
            access: r.integer("access", 0..=MOST_REQUESTS).unwrap_or(default.access),
            trusted_proxies: Addresses::read(&mut r, "trusted_proxies"),
        }
    }
}

/// Checked `tracing` directives: a level, or levels by module (`info,steadfast::pool=debug`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(Box<str>);

impl LogFilter {
    /// The directives as the operator wrote them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter that `tracing` wants.
    pub fn to_env_filter(&self) -> EnvFilter {
        // The client of NATS logs each attempt to connect, and the cluster logs the outcome. A
        // directive of the operator stands in the place of this default, which adds no line to any.
        EnvFilter::builder().parse_lossy(format!("async_nats=off,{}", self.0))
    }
}

impl FromStr for LogFilter {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // The field syntax of directives is left out: a bare word would be taken for a module's
        // name and silently log nothing.
        let directive_is_good = |directive: &str| {
            let level = directive.rsplit('=').next().unwrap_or_default().to_ascii_lowercase();
            ["off", "error", "warn", "info", "debug", "trace"].contains(&level.as_str())
        };
        if text.split(',').all(directive_is_good) && EnvFilter::builder().parse(text).is_ok() {
            Ok(Self(text.into()))
        } else {
            Err(Invalid(
                "must be off, error, warn, info, debug or trace, or such levels by module: \"info,steadfast::pool=debug\"",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_names_levels() {
        for text in ["info", "WARN", "off", "info,steadfast::pool=debug", "steadfast=trace"] {
            assert_eq!(text.parse::<LogFilter>().unwrap().as_str(), text);
        }
        for text in ["", "loud", "steadfast", "info,", "a=b=c", "[=info"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
        assert_eq!(Log::default().filter.to_env_filter().to_string(), "async_nats=off,info");
        let chosen: LogFilter = "info,async_nats=debug".parse().unwrap();
        assert_eq!(chosen.to_env_filter().to_string(), "async_nats=debug,info");
    }
}
