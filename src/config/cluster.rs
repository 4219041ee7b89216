//! `[cluster]`: several replicas that agree through NATS JetStream.

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use super::{
    ca_file::CaFile, node::http_url, problem::Invalid, reader::Reader, reading::join, secret::Secret, url::Url,
};
use crate::domain::fleet::{
    ClusterName, ReplicaName,
    timing::{BadTiming, Timing},
};

/// The most servers that are named.
const MAX_SERVERS: usize = 16;
/// The longest time that a hook may take.
const LONGEST_HOOK: Duration = Duration::from_secs(60);

const HEARTBEAT: Duration = Duration::from_secs(1);
const FAILURE_THRESHOLD: NonZeroU32 = NonZeroU32::new(3).expect("not zero");
const SAFETY_MARGIN: Duration = Duration::from_secs(1);
// Three NATS servers were seen to take up to 7.4 s to elect a leader of a stream. A shorter time
// would have replicas fail each other over an outage of the store.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(12);
const ON_HOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// `[cluster]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's name. The bucket is `steadfast-<name>`.
    pub name: ClusterName,
    /// This replica's name, which no other replica has.
    pub replica: ReplicaName,
    /// The servers of NATS; none where the store is in this process's memory.
    pub nats: Vec<NatsUrl>,
    /// A file with the JWT and key of a user of NATS.
    pub credentials: Option<PathBuf>,
    /// Authorities that are trusted for the TLS of NATS beside the platform's.
    pub ca_file: Option<CaFile>,
    /// The folder of the file by which a process knows that the one before is dead.
    pub dir: Option<PathBuf>,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Heartbeats in a row that fail until a leader stops.
    pub failure_threshold: NonZeroU32,
    /// The time that a leader has to end its work.
    pub safety_margin: Duration,
    /// How long a replica is silent before another takes over.
    pub failover_timeout: Duration,
    /// The four times above, checked against each other and the time of `on_fence`.
    pub timing: Timing,
    /// Whether this replica asks another leader for the lease.
    pub preferred: bool,
    /// Runs when this replica becomes the leader.
    pub on_lead: Option<Hook>,
    /// Runs when this replica ceases to be the leader.
    pub on_fence: Option<Hook>,
    /// The time that a hook has.
    pub on_hook_timeout: Duration,
}

/// The URL of a server of NATS. `Display` and `Debug` leave out the user, which may be a token.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(Secret<String>);

impl NatsUrl {
    /// The whole URL.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn read(text: &str) -> Result<Self, Invalid> {
        let wrong = Invalid("must be a URL such as \"nats://host:4222\" or \"tls://host:4222\"");
        let (scheme, rest) = text.split_once("://").ok_or(wrong)?;
        let host = rest.rsplit('@').next().unwrap_or_default();
        let is_host = !host.is_empty() && !host.contains(['/', '?', '#', ',']) && !host.contains(char::is_whitespace);
        if ["nats", "tls"].contains(&scheme) && is_host { Ok(Self(Secret::new(text.to_owned()))) } else { Err(wrong) }
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.expose().split_once("://").unwrap_or_default();
        match rest.rsplit_once('@') {
            Some((_, host)) => write!(f, "{scheme}://***@{host}"),
            None => write!(f, "{scheme}://{rest}"),
        }
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hook: a command, or a URL that gets a POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The program and its arguments, at least the program.
    Command(Vec<String>),
    /// The URL.
    Url(Url),
}

impl Hook {
    fn read(r: &mut Reader<'_>, key: &'static str) -> Option<Self> {
        let words = r.one_or_more(key, |word| Ok(word.to_owned()))?;
        let is_url = |word: &str| word.starts_with("http://") || word.starts_with("https://");
        match &words[..] {
            [url] if is_url(url) => http_url(url).map(Self::Url).map_err(|wrong| r.fail(key, wrong.to_string())).ok(),
            [program, ..] if !program.is_empty() && !is_url(program) => Some(Self::Command(words)),
            _ => {
                r.fail(key, "must be a program with its arguments, or one URL");
                None
            }
        }
    }
}

/// The hook without the parts that may be secret: arguments, and the path of a URL.
impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Command(words) => f.write_str(words.first().map_or("", String::as_str)),
        }
    }
}

impl Cluster {
    /// A replica whose store is in this process's memory, with the usual times.
    ///
    /// # Errors
    /// The usual times do not fit together.
    pub fn in_memory(name: ClusterName, replica: ReplicaName) -> Result<Self, BadTiming> {
        Ok(Self {
            name,
            replica,
            nats: Vec::new(),
            credentials: None,
            ca_file: None,
            dir: None,
            heartbeat: HEARTBEAT,
            failure_threshold: FAILURE_THRESHOLD,
            safety_margin: SAFETY_MARGIN,
            failover_timeout: FAILOVER_TIMEOUT,
            timing: Timing::new(HEARTBEAT, FAILURE_THRESHOLD, SAFETY_MARGIN, FAILOVER_TIMEOUT, None)?,
            preferred: false,
            on_lead: None,
            on_fence: None,
            on_hook_timeout: ON_HOOK_TIMEOUT,
        })
    }

    /// Reads the table; `None` where the file has none, since the table's presence turns the
    /// cluster on.
    pub(super) fn read_if_set(root: &mut Reader<'_>) -> Option<Self> {
        let is_on = root.has("cluster");
        Self::read(root.section("cluster"), is_on)
    }

    fn read(mut r: Reader<'_>, is_on: bool) -> Option<Self> {
        let folder = r.reading().folder();
        let path = |text: &str| match text.is_empty() || text.contains('\0') {
            true => Err(Invalid("must be a path")),
            false => Ok(folder.join(text)),
        };
        let name = r.parse("name", |text| text.parse::<ClusterName>().map_err(|wrong| wrong.why));
        let replica = r.parse("replica", |text| text.parse::<ReplicaName>().map_err(|wrong| wrong.why));
        let nats = r.one_or_more("nats", NatsUrl::read);
        let (heartbeat, failure_threshold) =
            (r.duration("heartbeat", HEARTBEAT), r.positive("failure_threshold", FAILURE_THRESHOLD));
        let (safety_margin, failover_timeout) =
            (r.duration("safety_margin", SAFETY_MARGIN), r.duration("failover_timeout", FAILOVER_TIMEOUT));
        let credentials = r.parse("credentials", path);
        let ca_file = r.parse("ca_file", |path| CaFile::read(folder, path));
        let dir = r.parse("dir", path);
        let preferred = r.boolean("preferred", false);
        let (on_lead, on_fence) = (Hook::read(&mut r, "on_lead"), Hook::read(&mut r, "on_fence"));
        let on_hook_timeout = r.duration("on_hook_timeout", ON_HOOK_TIMEOUT);
        let is_clean = |key: &str| r.reading().is_clean(&join(r.path(), key));
        for (key, is_there) in [("name", name.is_some()), ("replica", replica.is_some()), ("nats", nats.is_some())] {
            if is_on && !is_there && is_clean(key) {
                r.reading().fail(r.path(), format!("needs `{key}`"));
            }
        }
        let count = nats.as_ref().map_or(1, Vec::len);
        r.check((1..=MAX_SERVERS).contains(&count), "nats", &[], "must name 1 to 16 servers");
        r.check(on_hook_timeout <= LONGEST_HOOK, "on_hook_timeout", &[], "must not be longer than a minute");
        let fence_hook = on_fence.is_some().then_some(on_hook_timeout);
        let timing = checked(&r, heartbeat, failure_threshold, (safety_margin, failover_timeout), fence_hook);
        Some(Self {
            name: name?,
            replica: replica?,
            nats: nats?,
            credentials,
            ca_file,
            dir,
            heartbeat,
            failure_threshold,
            safety_margin,
            failover_timeout,
            timing: timing?,
            preferred,
            on_lead,
            on_fence,
            on_hook_timeout,
        })
    }

    /// The settings that differ in `new` and that a reload cannot apply, by their keys.
    pub(super) fn changes_needing_restart(&self, new: &Self) -> Vec<&'static str> {
        // Without `..`: a new setting does not compile until its author decides here.
        let Self {
            name,
            replica,
            nats,
            credentials,
            ca_file,
            dir,
            heartbeat: _,
            failure_threshold: _,
            safety_margin: _,
            failover_timeout: _,
            timing: _,
            preferred: _,
            on_lead: _,
            on_fence: _,
            on_hook_timeout: _,
        } = self;
        let changes = [
            ("cluster.name", *name != new.name),
            ("cluster.replica", *replica != new.replica),
            ("cluster.nats", *nats != new.nats),
            ("cluster.credentials", *credentials != new.credentials),
            ("cluster.ca_file", *ca_file != new.ca_file),
            ("cluster.dir", *dir != new.dir),
        ];
        changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
    }
}

/// The rule between the times.
fn checked(
    r: &Reader<'_>,
    heartbeat: Duration,
    failure_threshold: NonZeroU32,
    (safety_margin, failover_timeout): (Duration, Duration),
    fence_hook: Option<Duration>,
) -> Option<Timing> {
    let bad = match Timing::new(heartbeat, failure_threshold, safety_margin, failover_timeout, fence_hook) {
        Ok(timing) => return Some(timing),
        Err(bad) => bad,
    };
    let (key, others): (_, &[&str]) = match bad {
        BadTiming::FailoverTooShort { .. } => {
            ("failover_timeout", &["heartbeat", "failure_threshold", "safety_margin", "on_hook_timeout"])
        }
        BadTiming::FailoverTooLong(_) => ("failover_timeout", &[]),
        BadTiming::HeartbeatTooShort(_) => ("heartbeat", &[]),
        BadTiming::ThresholdTooLow(_) => ("failure_threshold", &[]),
        BadTiming::MarginTooShort(_) => ("safety_margin", &[]),
    };
    r.check(false, key, others, &bad.to_string());
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Errors};

    const NEEDED: &str = "name = \"eu\"\nreplica = \"r1\"\nnats = \"nats://n1:4222\"\n";

    fn whole(cluster: &str) -> Result<Option<Cluster>, Errors> {
        let text = format!("{cluster}\n[[el.primary]]\nhttp = \"http://127.0.0.1:18545\"\n");
        let env = |name: &str| (name == "HOSTNAME").then(|| "pod-7.example".to_owned());
        Config::parse(&text, &env).map(|config| config.cluster)
    }

    fn read(lines: &str) -> Result<Option<Cluster>, Errors> {
        whole(&format!("[cluster]\n{NEEDED}{lines}"))
    }

    /// A26, A27, A36.
    #[test]
    fn the_table_by_itself_turns_the_cluster_on() {
        assert_eq!(whole("").unwrap(), None);
        let cluster = read("").unwrap().unwrap();
        assert_eq!((cluster.name.bucket().as_str(), cluster.replica.as_str()), ("steadfast-eu", "r1"));
        assert_eq!(cluster.failover_timeout, Duration::from_secs(12));
        assert_eq!((cluster.preferred, cluster.on_lead), (false, None));
        let named = whole("[cluster]\nname = \"eu\"\nreplica = \"${HOSTNAME}\"\nnats = [\"tls://a\", \"nats://b\"]");
        let named = named.unwrap().unwrap();
        assert_eq!((named.replica.as_str(), named.nats.len()), ("pod-7.example", 2));
    }

    /// A26: the message has the sum.
    #[test]
    fn wrong_values_are_all_told_with_their_keys() {
        for (lines, key, words) in [
            ("failover_timeout = \"4s\"", "cluster.failover_timeout", "must be more than 4s, which is `heartbeat` 1s"),
            (
                "on_fence = \"/x\"\non_hook_timeout = \"9s\"",
                "cluster.failover_timeout",
                "more than 12s, which is `heartbeat` 1s * `failure_threshold` 3 + `on_hook_timeout` 9s",
            ),
            ("heartbeat = \"4s\"", "cluster.failover_timeout", "more than 13s"),
            ("failover_timeout = \"365d\"", "cluster.failover_timeout", "10 minutes at most"),
            ("heartbeat = \"10ms\"", "cluster.heartbeat", "50ms at least"),
            ("safety_margin = \"10ms\"", "cluster.safety_margin", "50ms at least"),
            ("failure_threshold = 0", "cluster.failure_threshold", "from 1 to"),
            ("failure_threshold = 1", "cluster.failure_threshold", "2 at least"),
            ("credentials = \"\"", "cluster.credentials", "path"),
            ("on_lead = []", "cluster.on_lead", "program"),
            ("on_lead = [\"\"]", "cluster.on_lead", "program"),
            ("on_fence = [\"http://a\", \"b\"]", "cluster.on_fence", "one URL"),
            ("on_hook_timeout = \"2m\"", "cluster.on_hook_timeout", "a minute"),
            ("prefered = true", "cluster.prefered", "did you mean `preferred`?"),
        ] {
            let errors = read(lines).expect_err(lines);
            let [problem] = &*errors.problems else { panic!("{lines}: {errors}") };
            assert_eq!(problem.path, key, "{lines}");
            assert!(problem.message.contains(words), "{lines}: {}", problem.message);
        }
        assert!(read("on_lead = \"/x\"\non_hook_timeout = \"9s\"").is_ok(), "on_lead is bound by no time of others");
        let errors = whole("[cluster]").unwrap_err().to_string();
        for key in ["`name`", "`replica`", "`nats`"] {
            assert!(errors.contains(&format!("needs {key}")), "{errors}");
        }
    }

    /// O1: neither a name nor a URL is shown where its value is wrong.
    #[test]
    fn wrong_names_and_urls_are_refused_without_their_value() {
        for (key, value) in [
            ("name", "a.s3cret"),
            ("replica", "s3cret *"),
            ("nats", "http://s3cret"),
            ("nats", "s3cret:4222"),
            ("nats", "nats://u:p@/s3cret"),
        ] {
            let lines: Vec<_> = NEEDED.lines().filter(|line| !line.starts_with(key)).collect();
            let errors = whole(&format!("[cluster]\n{}\n{key} = \"{value}\"", lines.join("\n"))).unwrap_err();
            let [problem] = &*errors.problems else { panic!("{value}: {errors}") };
            assert_eq!(problem.path, format!("cluster.{key}"));
            assert!(!errors.to_string().contains("s3cret"), "{errors}");
        }
    }

    #[test]
    fn a_hook_is_a_command_or_a_url() {
        let hooks = read("on_lead = [\"/bin/take\", \"-v\"]\non_fence = \"https://h.example/k3y\"").unwrap().unwrap();
        assert_eq!(hooks.on_lead, Some(Hook::Command(vec!["/bin/take".into(), "-v".into()])));
        let fence = hooks.on_fence.unwrap();
        assert!(matches!(fence, Hook::Url(_)));
        assert_eq!(fence.to_string(), "https://h.example/***");
    }

    #[test]
    fn the_user_of_a_nats_url_is_not_shown() {
        let url = NatsUrl::read("nats://us3r:p4ss@n1:4222").unwrap();
        assert_eq!(url.to_string(), "nats://***@n1:4222");
        assert_eq!(format!("{url:?}"), "nats://***@n1:4222");
        assert_eq!(url.expose(), "nats://us3r:p4ss@n1:4222");
    }

    #[test]
    fn a_reload_changes_times_and_hooks_and_no_place() {
        let base = read("").unwrap().unwrap();
        let needing = |lines: &str| base.changes_needing_restart(&read(lines).unwrap().unwrap());
        assert_eq!(needing("credentials = \"/x\""), ["cluster.credentials"]);
        assert_eq!(needing("dir = \"/x\""), ["cluster.dir"]);
        assert!(needing("heartbeat = \"2s\"\npreferred = true\non_lead = \"/x\"").is_empty());
    }
}
