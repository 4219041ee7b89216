//! The addresses that a request to a server of others may go to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{domain::address_space::Space, net::names::Names};

/// None of a host's addresses may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its host is on this machine or in a private network, and `allow_private` does not name that host")]
pub(super) struct Forbidden;

/// Looks names up, and gives only the addresses that may be dialled: the connection goes to one of
/// these, so a name that changes between a check and the connection is of no use to anybody.
pub(super) struct Guard {
    names: Arc<Names>,
    allow_private: bool,
}

impl Guard {
    pub(super) fn new(names: Arc<Names>, allow_private: bool) -> Self {
        Self { names, allow_private }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, host, allow_private) = (self.names.clone(), Arc::from(name.as_str()), self.allow_private);
        Box::pin(async move {
            let found = names.lookup(&host).await?;
            let dialled = dialled(&found, allow_private);
            if dialled.is_empty() { Err(Forbidden.into()) } else { Ok(Box::new(dialled.into_iter()) as Addrs) }
        })
    }
}

/// The addresses of a name that may be dialled; port 0 is that of the URL. A name never leads to a
/// reserved address, such as that of a cloud's metadata, whatever is allowed.
fn dialled(found: &[IpAddr], allow_private: bool) -> Vec<SocketAddr> {
    let may = |address: &&IpAddr| match Space::of(**address) {
        Space::Public => true,
        Space::Private => allow_private,
        Space::Reserved => false,
    };
    found.iter().filter(may).map(|address| SocketAddr::new(*address, 0)).collect()
}

/// Checks the URL's `host` as it will be dialled against the host `written` in the settings. A
/// literal address is dialled without a lookup, so the whole rule is here: it is public, or the
/// very address is written and allowed.
///
/// # Errors
/// When the host is an address that must not be dialled.
pub(super) fn check_literal(host: &str, written: &str, allow_private: bool) -> Result<(), Forbidden> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(address) = bare.parse::<IpAddr>() else { return Ok(()) };
    let is_written = written.parse() == Ok(address);
    let may = Space::of(address) == Space::Public || (allow_private && is_written);
    if may { Ok(()) } else { Err(Forbidden) }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::net::names::{self, Done};

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_addresses_that_may_be_dialled_are_left() {
        let found = ips(&["10.0.0.1", "1.1.1.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "2606:4700::1"]);
        let left = |allow| dialled(&found, allow).iter().map(|to| to.ip().to_string()).collect::<Vec<_>>();
        assert_eq!(left(false), ["1.1.1.1", "2606:4700::1"]);
        assert_eq!(left(true), ["10.0.0.1", "1.1.1.1", "::1", "::ffff:127.0.0.1", "2606:4700::1"]);
    }

    #[test]
    fn a_literal_is_dialled_only_as_it_is_written() {
        for (host, written, allow_private, is_good) in [
            ("hooks.example", "hooks.example", false, true),
            ("1.1.1.1", "1.1.1.1", false, true),
            ("127.0.0.1", "127.0.0.1", false, false),
            ("127.0.0.1", "127.0.0.1", true, true),
            ("[::1]", "::1", true, true),
            ("[::ffff:10.0.0.1]", "::ffff:10.0.0.1", false, false),
            ("169.254.169.254", "169.254.169.254", false, false),
            ("169.254.169.254", "169.254.169.254", true, true),
            // Forms that the library reads as an address, and the settings as a name.
            ("127.0.0.1", "0x7f000001", false, false),
            ("127.0.0.1", "0x7f000001", true, false),
        ] {
            let outcome = check_literal(host, written, allow_private);
            assert_eq!(outcome.is_ok(), is_good, "{host} written {written}, {allow_private}");
        }
    }

    struct Fixed(&'static [&'static str]);

    impl names::Resolve for Fixed {
        fn resolve(&self, _: &str, done: Done) {
            done(if self.0.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(ips(self.0)) });
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_dialled() {
        let resolve = async |addresses, allow| {
            let guard = Guard::new(Arc::new(Names::new(Fixed(addresses))), allow);
            let found = guard.resolve("hooks.example".parse().unwrap()).await;
            found.map(Iterator::count).map_err(|error| error.is::<Forbidden>())
        };
        assert_eq!(resolve(&["10.0.0.1"], false).await, Err(true));
        assert_eq!(resolve(&["10.0.0.1"], true).await, Ok(1));
        assert_eq!(resolve(&["169.254.169.254"], true).await, Err(true));
        assert_eq!(resolve(&["10.0.0.1", "1.1.1.1"], false).await, Ok(1));
        assert_eq!(resolve(&[], false).await, Err(false), "a failed lookup is another matter");
    }
}
