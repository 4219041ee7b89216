//! `[[outbox.webhook]]`: an endpoint for events.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    num::NonZeroU32,
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    config::{
        ca_file::CaFile,
        name::NodeName,
        node::http_url,
        problem::Invalid,
        reader::Reader,
        reading::join,
        secret::Secret,
        url::{Scheme, Url},
    },
    domain::{
        address_space::Space,
        event_kind::{self, EventKind},
        tenant::TenantName,
    },
};

/// The most endpoints.
const MAX_WEBHOOKS: usize = 64;
/// The most secrets of an endpoint: the new one, and those that receivers may still have.
const MAX_SECRETS: usize = 3;
/// The shortest and the longest signing key, in bytes.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;
/// The longest time that an endpoint may take to answer.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest file of secrets that is read, in bytes.
const MAX_SECRET_FILE: u64 = 4096;

/// The bytes that sign what an endpoint is sent.
pub type SigningKey = Secret<Box<[u8]>>;

/// An endpoint for events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The endpoint's name, by which its deliveries are kept. Unique.
    pub name: Arc<str>,
    /// `https`, or `http` where `allow_private` is set.
    pub url: Url,
    /// The events that the endpoint wants, at least one.
    pub events: Vec<EventKind>,
    /// The tenants whose transactions the endpoint wants; `None`: all.
    pub tenants: Option<Vec<TenantName>>,
    /// The keys that sign each request, at least one: the first is the newest.
    pub secrets: Vec<SigningKey>,
    /// How long the endpoint may take to answer.
    pub timeout: Duration,
    /// Attempts at one delivery before quarantine.
    pub max_attempts: NonZeroU32,
    /// Whether the URL's host may have a private address.
    pub allow_private: bool,
    /// Authorities that are trusted for this endpoint's TLS beside the platform's.
    pub ca_file: Option<CaFile>,
}

impl Webhook {
    /// Whether the endpoint wants an event of this kind. `tenant` is whose transaction
    /// the event is about; the proxy's own events belong to no tenant.
    pub fn wants(&self, kind: EventKind, tenant: &TenantName) -> bool {
        let is_theirs = || self.tenants.as_ref().is_none_or(|tenants| tenants.contains(tenant));
        self.events.contains(&kind) && (!kind.is_of_a_transaction() || is_theirs())
    }

    /// The texts that must not be shown: the parts that the URL's `Display` leaves out, and the
    /// secrets as the operator and receivers write them.
    pub(crate) fn secret_texts(&self) -> Vec<String> {
        let auth = self.url.basic_auth().map(|value| String::from_utf8_lossy(value.expose().as_bytes()).into_owned());
        let keys = self.secrets.iter().map(|key| BASE64_STANDARD.encode(key.expose()));
        let words = auth.iter().flat_map(|value| value.split(' ')).map(str::to_owned);
        self.url.secrets().chain(keys).chain(words).collect()
    }

    /// The tables `[[outbox.webhook]]`.
    pub(super) fn read_all(r: &mut Reader<'_>) -> Vec<Self> {
        let tables = r.tables("webhook");
        let count = tables.len();
        let mut names: BTreeMap<Arc<str>, String> = BTreeMap::new();
        let mut webhooks = Vec::new();
        for r in tables {
            let (path, reading) = (r.path().to_owned(), r.reading());
            let Some(webhook) = Self::read(r) else { continue };
            match names.get(&webhook.name) {
                Some(first) => {
                    reading.fail(&join(&path, "name"), format!("is the name of `{first}` already"));
                }
                None => {
                    names.insert(webhook.name.clone(), path);
                    webhooks.push(webhook);
                }
            }
        }
        r.check(count <= MAX_WEBHOOKS, "webhook", &[], "has more than 64 entries");
        webhooks
    }

    /// `None` where a key that every endpoint needs is missing or wrong.
    fn read(mut r: Reader<'_>) -> Option<Self> {
        let folder = r.reading().folder();
        let name = r.parse("name", str::parse::<NodeName>);
        let url = r.parse("url", http_url);
        let events = r.list("events", |text| text.parse().map_err(|_| Invalid(event_kind::CHOICES)));
        let tenants = r.list("tenants", super::tenant::name);
        let written = r.one_or_more("secret", key);
        let of_file = r.parse("secret_file", |path| read_secrets(folder, path));
        let timeout = r.duration("timeout", Duration::from_secs(15));
        let max_attempts = r.positive("max_attempts", const { NonZeroU32::new(40).expect("not zero") });
        let allow_private = r.parse("allow_private", |text| match text {
            "" => Err(Invalid("must be the host of `url`")),
            host => Ok(host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()),
        });
        let ca_file = r.parse("ca_file", |path| CaFile::read(folder, path));
        let is_clean = |key: &str| r.reading().is_clean(&join(r.path(), key));
        for (key, is_there) in [("name", name.is_some()), ("url", url.is_some()), ("events", events.is_some())] {
            if !is_there && is_clean(key) {
                r.reading().fail(r.path(), format!("needs `{key}`"));
            }
        }
        r.check(events.as_ref().is_none_or(|events| !events.is_empty()), "events", &[], "names no event");
        r.check(
            tenants.as_ref().is_none_or(|tenants| !tenants.is_empty()),
            "tenants",
            &[],
            "names no tenant: leave it out where all are meant",
        );
        r.check(timeout <= LONGEST_TIMEOUT, "timeout", &[], "must not be longer than a minute");
        let secrets = match (written, of_file) {
            (Some(_), Some(_)) => {
                r.fail("secret_file", "cannot stand beside `secret`: the secret comes from one of them");
                None
            }
            (Some(secrets), None) => {
                r.check(secrets.len() <= MAX_SECRETS && !secrets.is_empty(), "secret", &[], "must be 1 to 3 secrets");
                Some(secrets)
            }
            (None, Some(secrets)) => Some(secrets),
            (None, None) => {
                if is_clean("secret") && is_clean("secret_file") {
                    r.reading().fail(r.path(), "needs `secret` or `secret_file`: receivers check what it signs");
                }
                None
            }
        };
        if let Some(url) = &url {
            check_host(&r, url, allow_private.as_deref());
        }
        Some(Self {
            name: name?.as_str().into(),
            url: url?,
            events: events?,
            tenants,
            secrets: secrets?,
            timeout,
            max_attempts,
            allow_private: allow_private.is_some(),
            ca_file,
        })
    }
}

/// The rules of addresses, as far as the text says; the addresses of a name are looked at when the
/// name is dialled.
fn check_host(r: &Reader<'_>, url: &Url, allowed: Option<&str>) {
    let host = &**url.host();
    r.check(
        allowed.is_none_or(|allowed| allowed == host),
        "allow_private",
        &["url"],
        "must be the host of `url`: so it is allowed by its name, and no other by accident",
    );
    let is_here = host == "localhost" || host.ends_with(".localhost");
    let space = host.parse().map_or(Space::Public, |address: IpAddr| Space::of(address));
    r.check(
        allowed.is_some() || (space == Space::Public && !is_here),
        "url",
        &["allow_private"],
        "has a host on this machine or in a private network: write the host in `allow_private` too if that is meant",
    );
    r.check(
        allowed.is_some() || url.scheme() == Scheme::Https,
        "url",
        &["allow_private"],
        "must begin with https://: only a host that is written in `allow_private` is sent plain text",
    );
}

/// A secret as the Standard Webhooks write secrets: Base64, and `whsec_` before.
fn key(text: &str) -> Result<SigningKey, Invalid> {
    let wrong =
        Invalid("must be `whsec_` and 24 to 64 bytes in Base64, such as `echo whsec_$(openssl rand -base64 32)` makes");
    let bytes = BASE64_STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).map_err(|_| wrong)?;
    if KEY_BYTES.contains(&bytes.len()) { Ok(Secret::new(bytes.into())) } else { Err(wrong) }
}

/// The secrets of a file, one on each line.
fn read_secrets(folder: &Path, path: &str) -> Result<Vec<SigningKey>, String> {
    let path = folder.join(path);
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let mut text = Vec::new();
    File::open(&path).and_then(|file| file.take(MAX_SECRET_FILE + 1).read_to_end(&mut text)).map_err(unreadable)?;
    if text.len() as u64 > MAX_SECRET_FILE {
        return Err("is longer than 4 KiB, so there is something else than secrets in the file".into());
    }
    let text = String::from_utf8(text).map_err(|_| "is not UTF-8")?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets = lines.map(key).collect::<Result<Vec<_>, _>>().map_err(|wrong| format!("a line of it {wrong}"))?;
    if (1..=MAX_SECRETS).contains(&secrets.len()) {
        Ok(secrets)
    } else {
        Err("must hold 1 to 3 secrets, one on each line".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Errors};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

    fn parse(text: &str) -> Result<Vec<Webhook>, Errors> {
        let text = format!("[outbox]\n{text}\n[[el.primary]]\nhttp = \"http://127.0.0.1:18545\"\n");
        let env = |name: &str| (name == "HOOK_SECRET").then(|| SECRET.to_owned());
        Config::parse(&text, &env).map(|config| config.outbox.unwrap().webhooks)
    }

    /// An entry with all that is needed, in which each key of `lines` takes the place of its own.
    fn entry(lines: &str) -> String {
        let key_of = |line: &str| line.split(' ').next().unwrap().to_owned();
        let given: Vec<String> = lines.lines().map(key_of).collect();
        let secret = format!("secret = \"{SECRET}\"");
        let needed = ["name = \"billing\"", "url = \"https://hooks.example/tx\"", "events = [\"tx.final\"]", &secret];
        let needed = needed.into_iter().filter(|line| !given.contains(&key_of(line)) && !lines.contains("secret_file"));
        let all = needed.collect::<Vec<_>>().join("\n");
        format!("[[outbox.webhook]]\n{all}\n{lines}\n")
    }

    fn one(lines: &str) -> Webhook {
        let [webhook] = <[Webhook; 1]>::try_from(parse(&entry(lines)).unwrap_or_else(|e| panic!("{e}"))).unwrap();
        webhook
    }

    #[test]
    fn an_entry_has_its_defaults() {
        let webhook = one("");
        assert_eq!((&*webhook.name, webhook.url.to_string().as_str()), ("billing", "https://hooks.example/***"));
        assert_eq!((webhook.timeout, webhook.max_attempts.get()), (Duration::from_secs(15), 40));
        assert_eq!((webhook.tenants, webhook.allow_private, webhook.ca_file), (None, false, None));
        assert_eq!(webhook.events, [EventKind::TxFinal]);
        assert_eq!(webhook.secrets[0].expose().len(), 24);
    }

    /// U14, U36: a secret is referred to, by a file or a variable.
    #[test]
    fn a_secret_comes_from_the_file_a_variable_or_a_list() {
        assert_eq!(one("secret = \"${HOOK_SECRET}\"").secrets, one("").secrets);
        let unmarked = format!("secret = \"{}\"", &SECRET[6..]);
        assert_eq!(one(&unmarked).secrets, one("").secrets);
        let both = one(&format!("secret = [\"{OTHER}\", \"{SECRET}\"]")).secrets;
        assert_eq!((both.len(), &both[1]), (2, &one("").secrets[0]));
        let folder = std::env::temp_dir().join(format!("steadfast-secret-{}", std::process::id()));
        std::fs::write(&folder, format!("{OTHER}\n\n{SECRET}\r\n")).unwrap();
        let entry = format!(
            "[[outbox.webhook]]\nname = \"a\"\nurl = \"https://b.example\"\nevents = [\"switch\"]\nsecret_file = \"{}\"",
            folder.display()
        );
        let read = parse(&entry);
        std::fs::write(&folder, vec![b'a'; 5000]).unwrap();
        let too_long = parse(&entry).unwrap_err().to_string();
        std::fs::remove_file(&folder).unwrap();
        assert_eq!(read.unwrap()[0].secrets, both);
        assert!(too_long.contains("4 KiB"), "{too_long}");
        assert!(parse(&entry).unwrap_err().to_string().contains("cannot be read"));
    }

    /// U11, U36: settings can be printed, and secrets stay hidden.
    #[test]
    fn no_secret_is_shown() {
        let webhook = one("url = \"https://user:passw0rd@hooks.example/k3y-of-mine?token=t0ken\"");
        let shown = format!("{webhook:?} {:?}", parse(&entry("")).unwrap());
        for secret in [&SECRET[6..], "passw0rd", "k3y-of-mine", "t0ken"] {
            assert!(!shown.contains(secret), "{shown}");
            assert!(webhook.secret_texts().iter().any(|text| text.contains(secret)), "{secret}");
        }
        for lines in ["secret = \"whsec_dG9vIHNob3J0\"", "secret = \"hunter2-hunter2-hunter2-hunter2!\""] {
            let told = parse(&entry(lines)).unwrap_err().to_string();
            assert!(told.contains("openssl") && !told.contains("hunter2") && !told.contains("dG9v"), "{told}");
        }
    }

    #[test]
    fn private_hosts_are_allowed_by_name_only() {
        for url in [
            "http://127.0.0.1:9000/",
            "https://10.0.0.7",
            "https://[::1]",
            "https://[::ffff:10.0.0.7]/",
            "https://169.254.169.254/latest",
            "https://localhost",
            "https://a.localhost",
        ] {
            let told = parse(&entry(&format!("url = \"{url}\""))).expect_err(url).to_string();
            assert!(told.contains("outbox.webhook[0].url") && told.contains("allow_private"), "{url}: {told}");
        }
        for (url, host) in [
            ("http://127.0.0.1:9000/", "127.0.0.1"),
            ("https://[::1]", "[::1]"),
            ("http://hooks.internal", "Hooks.internal"),
        ] {
            assert!(one(&format!("url = \"{url}\"\nallow_private = \"{host}\"")).allow_private, "{url}");
        }
        let told = parse(&entry("allow_private = \"hooks.internal\"")).unwrap_err().to_string();
        assert!(told.contains("webhook[0].allow_private: must be the host of `url`"), "{told}");
        let told = parse(&entry("url = \"http://hooks.example\"")).unwrap_err().to_string();
        assert!(told.contains("must begin with https://"), "{told}");
    }

    #[test]
    fn wrong_entries_are_told_with_their_keys() {
        for (lines, key, words) in [
            ("events = [\"tx.lost\"]", "events[0]", "tx.accepted, tx.mined"),
            ("events = []", "events", "no event"),
            ("tenants = []", "tenants", "no tenant"),
            ("tenants = [\"A\"]", "tenants[0]", "a-z 0-9"),
            ("name = \"a b\"", "name", "letters"),
            ("url = \"wss://hooks.example\"", "url", "http"),
            ("timeout = \"2m\"", "timeout", "a minute"),
            ("max_attempts = 0", "max_attempts", "from 1"),
            ("allow_private = true", "allow_private", "must be a string"),
        ] {
            let errors = parse(&entry(lines)).expect_err(lines);
            let [problem] = &*errors.problems else { panic!("{lines}: {errors}") };
            assert_eq!(problem.path, format!("outbox.webhook[0].{key}"), "{lines}");
            assert!(problem.message.contains(words), "{lines}: {}", problem.message);
        }
        let bare = parse("[[outbox.webhook]]\n").unwrap_err().to_string();
        for key in ["needs `name`", "needs `url`", "needs `events`", "needs `secret` or `secret_file`"] {
            assert!(bare.contains(key), "{bare}");
        }
        let twice = parse(&(entry("") + &entry(""))).unwrap_err().to_string();
        assert!(twice.contains("webhook[1].name: is the name of `outbox.webhook[0]` already"), "{twice}");
        let many: String = (0..=MAX_WEBHOOKS).map(|n| entry(&format!("name = \"w{n}\""))).collect();
        assert!(parse(&many).unwrap_err().to_string().contains("more than 64"));
    }

    #[test]
    fn an_endpoint_wants_its_events_of_its_tenants() {
        let webhook = one("events = [\"tx.final\", \"node.down\"]\ntenants = [\"a\"]");
        let (ours, others) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(webhook.wants(EventKind::TxFinal, &ours));
        assert!(!webhook.wants(EventKind::TxFinal, &others), "another tenant's");
        assert!(!webhook.wants(EventKind::TxMined, &ours), "another event");
        assert!(webhook.wants(EventKind::NodeDown, &others), "the proxy's own event is of no tenant");
        assert!(one("").wants(EventKind::TxFinal, &others));
    }
}
