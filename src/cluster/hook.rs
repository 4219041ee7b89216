//! The operator's hooks: a command that is run, or a URL that gets a POST, when this replica
//! becomes the leader, and when this replica ceases to be the leader.

use std::{io, process::Stdio, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::process::Command;

use super::lease::HookKind;
use crate::{
    config,
    domain::fleet::Term,
    net::{
        post::{HttpPost, Post, Server},
        system,
    },
};

/// Prepares requests to the URL of a hook.
pub type ConnectHook = Arc<dyn Fn(&config::Url) -> io::Result<Arc<dyn Post>> + Send + Sync>;

/// Requests to the URL of a hook over the operating system's network.
///
/// # Errors
/// The URL has a host that must not be dialled.
pub fn connect_hook(url: &config::Url) -> io::Result<Arc<dyn Post>> {
    // The operator's own network is where load balancers are.
    let server = Server { url, allow_private: true, ca_file: None };
    Ok(Arc::new(HttpPost::new(server, system::names())?))
}

/// The outcome of a hook that did not begin.
const TOO_LATE: &str = "the lease was over before the hook began";

/// Both hooks, ready to run.
#[derive(Clone)]
pub(super) struct Hooks {
    cluster: Arc<str>,
    replica: Arc<str>,
    lead: Option<Hook>,
    fence: Option<Hook>,
}

#[derive(Clone)]
enum Hook {
    Command(Arc<[String]>),
    Url(Arc<dyn Post>),
}

impl Hooks {
    /// Prepares the hooks of the settings.
    ///
    /// # Errors
    /// A URL cannot be used: names the key.
    pub(super) fn new(settings: &config::Cluster, connect: &ConnectHook) -> Result<Self, String> {
        let prepare = |key: &str, hook: &Option<config::Hook>| match hook {
            None => Ok(None),
            Some(config::Hook::Command(words)) => Ok(Some(Hook::Command(words.clone().into()))),
            Some(config::Hook::Url(url)) => {
                connect(url).map(|post| Some(Hook::Url(post))).map_err(|why| format!("cluster.{key}: {why}"))
            }
        };
        Ok(Self {
            cluster: settings.name.as_str().into(),
            replica: settings.replica.as_str().into(),
            lead: prepare("on_lead", &settings.on_lead)?,
            fence: prepare("on_fence", &settings.on_fence)?,
        })
    }

    /// Runs a hook; `None` where the settings have none. Dropping the future kills the command, or
    /// gives the request up. `may_begin` is asked when the hook is about to begin: the process may
    /// have stood still since this call, and another replica may lead.
    pub(super) fn run(
        &self,
        kind: HookKind,
        term: Term,
        may_begin: impl Fn() -> bool + Send + 'static,
    ) -> Option<BoxFuture<'static, Result<(), String>>> {
        let (hook, event) = match kind {
            HookKind::Lead => (self.lead.clone()?, "lead"),
            HookKind::Fence => (self.fence.clone()?, "fence"),
        };
        let (cluster, replica) = (self.cluster.clone(), self.replica.clone());
        Some(match hook {
            Hook::Command(words) => Box::pin(async move {
                let (program, arguments) = words.split_first().ok_or("no program")?;
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
                command.env("STEADFAST_EVENT", event).env("STEADFAST_TERM", term.to_string());
                command.env("STEADFAST_CLUSTER", &*cluster).env("STEADFAST_REPLICA", &*replica);
                // The programs that the hook waits for end with the hook: they are one group.
                command.process_group(0);
                if !may_begin() {
                    return Err(TOO_LATE.to_owned());
                }
                let mut child = command.spawn().map_err(|error| error.to_string())?;
                let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
                let ended = child.wait().await.map_err(|error| error.to_string())?;
                group.0 = None;
                if ended.success() { Ok(()) } else { Err(ended.to_string()) }
            }),
            Hook::Url(post) => Box::pin(async move {
                let body = json!({ "event": event, "cluster": &*cluster, "replica": &*replica, "term": term });
                let mut headers = HeaderMap::new();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                if !may_begin() {
                    return Err(TOO_LATE.to_owned());
                }
                let answer = post.post(headers, Bytes::from(body.to_string())).await;
                let status = answer.map_err(|error| error.to_string())?.status;
                if status.is_success() { Ok(()) } else { Err(format!("the answer's status is {status}")) }
            }),
        })
    }
}

/// The processes of a hook, which are killed with an aborted hook.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The hook was not waited for, so no other group has the number. All may have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        net::post::{Answer, PostError},
    };

    fn hooks(lines: &str) -> Hooks {
        let needed = "[cluster]\nname = \"eu\"\nreplica = \"r1\"\nnats = \"nats://a\"\n";
        let text = format!("{needed}{lines}\n[[el.primary]]\nhttp = \"http://a\"\n");
        let connect: ConnectHook = Arc::new(connect_hook);
        Hooks::new(&Config::parse(&text, &|_| None).unwrap().cluster.unwrap(), &connect).unwrap()
    }

    /// A37: a command knows the event and the term, and its exit code is its outcome.
    #[tokio::test]
    async fn a_command_is_told_the_event_and_its_exit_code_counts() {
        let script = r#"[ "$STEADFAST_EVENT $STEADFAST_TERM $STEADFAST_CLUSTER $STEADFAST_REPLICA" = "lead 7 eu r1" ]"#;
        let hooks = hooks(&format!("on_lead = [\"/bin/sh\", \"-c\", '{script}']\non_fence = \"/bin/false\""));
        assert_eq!(hooks.run(HookKind::Lead, Term(7), || true).unwrap().await, Ok(()));
        assert!(hooks.run(HookKind::Lead, Term(8), || true).unwrap().await.is_err());
        assert!(hooks.run(HookKind::Fence, Term(7), || true).unwrap().await.unwrap_err().contains("exit status: 1"));
    }

    /// A process that stood still between the decision and the beginning begins no hook.
    #[tokio::test]
    async fn a_hook_does_not_begin_when_the_lease_is_over() {
        let file = std::env::temp_dir().join(format!("steadfast-late-hook-{}", std::process::id()));
        let command = hooks(&format!("on_lead = [\"/bin/touch\", \"{}\"]", file.display()));
        let run = command.run(HookKind::Lead, Term(7), || false).unwrap();
        assert_eq!((run.await, file.exists()), (Err(TOO_LATE.to_owned()), false));
        let server = Arc::new(Told(Default::default(), http::StatusCode::OK));
        let url = Hooks { lead: Some(Hook::Url(server.clone())), ..hooks("") };
        assert!(url.run(HookKind::Lead, Term(7), || false).unwrap().await.is_err());
        assert!(server.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_fails() {
        let hooks = hooks("on_lead = \"/nowhere/x\"");
        assert!(hooks.run(HookKind::Lead, Term(1), || true).unwrap().await.is_err());
        assert!(hooks.run(HookKind::Fence, Term(1), || true).is_none());
    }

    /// A20: an aborted command does not go on, nor do the programs that it started.
    #[tokio::test]
    async fn an_aborted_command_is_killed() {
        let file = std::env::temp_dir().join(format!("steadfast-hook-{}", std::process::id()));
        let _ = std::fs::remove_file(&file);
        let script = format!("(sleep 1; echo went on > {0}) & echo begun > {0}; wait", file.display());
        let hooks = hooks(&format!("on_lead = [\"/bin/sh\", \"-c\", \"{script}\"]"));
        let mut run = hooks.run(HookKind::Lead, Term(1), || true).unwrap();
        let read = || std::fs::read_to_string(&file).unwrap_or_default();
        while read() != "begun\n" {
            let wait = std::time::Duration::from_millis(10);
            assert!(tokio::time::timeout(wait, &mut run).await.is_err(), "the command ended");
        }
        drop(run);
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert_eq!(read(), "begun\n");
        std::fs::remove_file(&file).unwrap();
    }

    /// A server that keeps each body, and answers with this status.
    struct Told(std::sync::Mutex<Vec<serde_json::Value>>, http::StatusCode);

    impl Post for Told {
        fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
            assert_eq!(headers[CONTENT_TYPE], "application/json");
            self.0.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            Box::pin(async { Ok(Answer { status: self.1, retry_after: None }) })
        }
    }

    /// A37: a URL gets the same, and its status is the outcome.
    #[tokio::test]
    async fn a_url_is_told_the_event_and_its_status_counts() {
        for (status, is_ok) in [(204, true), (302, false), (500, false)] {
            let server = Arc::new(Told(Default::default(), http::StatusCode::from_u16(status).unwrap()));
            let fence = Some(Hook::Url(server.clone()));
            let hooks = Hooks { fence, ..hooks("") };
            assert_eq!(hooks.run(HookKind::Fence, Term(7), || true).unwrap().await.is_ok(), is_ok, "{status}");
            let expected = json!({ "event": "fence", "cluster": "eu", "replica": "r1", "term": 7 });
            assert_eq!(*server.0.lock().unwrap(), [expected]);
        }
    }
}
