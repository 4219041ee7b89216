//! Lookups of nodes' names: one lookup of a name at a time for all callers, and none that is waited
//! for without end.
//!
//! The system's resolver can hang, and cannot be told to give up. So each lookup has a thread of
//! its own, of which there are only so many, and callers wait for a bounded time. The last good
//! addresses of a name are kept, for when the next lookup hangs or fails.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// How long a caller waits for a lookup: the first if addresses of the name are known from before.
const KNOWN_TTL: Duration = Duration::from_millis(300);
const UNKNOWN_TTL: Duration = Duration::from_secs(1);
/// How long good addresses are believed when lookups fail.
const STALE_TTL: Duration = Duration::from_secs(60 * 60);
/// How long the address to which a connection came about is tried before the others.
const PREFERRED: Duration = Duration::from_secs(60);
/// Lookups under way at once, at most.
const MAX_LOOKUPS: usize = 64;
/// Names that are remembered, at most.
const MAX_NAMES: usize = 1024;

/// The outcome of a lookup.
pub type Found = io::Result<Vec<IpAddr>>;
/// A change of a name's addresses, for the log.
pub type Done = Box<dyn FnOnce(Found) + Send>;

/// Looks names up.
pub trait Resolve: Send + Sync + 'static {
    /// Looks `host` up and calls `done`, now or later, on any thread. The lookup may hang for long,
    /// but not on this thread.
    fn resolve(&self, host: &str, done: Done);
}

/// The system's resolver.
pub(super) struct System;

impl Resolve for System {
    fn resolve(&self, host: &str, done: Done) {
        let host = host.to_owned();
        let done = Arc::new(Mutex::new(Some(done)));
        let of_the_thread = done.clone();
        let tell = |done: &Mutex<Option<Done>>, found| {
            if let Some(done) = lock(done).take() {
                done(found);
            }
        };
        let look = move || {
            let found = (&*host, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
            tell(&of_the_thread, found);
        };
        if let Err(error) = std::thread::Builder::new().name("lookup".to_owned()).spawn(look) {
            tell(&done, Err(error));
        }
    }
}

/// The names that were looked up.
pub struct Names {
    resolve: Box<dyn Resolve>,
    entries: Arc<Mutex<BTreeMap<Arc<str>, Entry>>>,
}

#[derive(Default)]
struct Entry {
    /// The addresses that the last good lookup found, and when.
    good: Option<(Vec<IpAddr>, Instant)>,
    /// The address to which a connection last came about, and when.
    preferred: Option<(IpAddr, Instant)>,
    /// The lookup under way.
    flight: Option<Flight>,
}

type Flight = watch::Receiver<Option<Arc<Found>>>;

impl Names {
    /// Names that `resolve` looks up.
    pub fn new(resolve: impl Resolve) -> Self {
        Self { resolve: Box::new(resolve), entries: Arc::default() }
    }

    /// The addresses of `host`, that to which a connection last came about before the others.
    ///
    /// # Errors
    /// When the name has no address, or none is found in time and none is known from before.
    pub async fn lookup(&self, host: &Arc<str>) -> Found {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let known = self.known(host);
        let time_limit = if known.is_some() { KNOWN_TTL } else { UNKNOWN_TTL };
        match self.find(host, time_limit).await {
            Ok(addresses) => Ok(self.sorted(host, addresses)),
            Err(error) => known.map(|(addresses, _)| self.sorted(host, addresses)).ok_or(error),
        }
    }

    /// The addresses of `host` that a lookup finds now.
    ///
    /// # Errors
    /// When the name has no address, or none is found in time: also where some are known from
    /// before.
    pub async fn look_up_now(&self, host: &Arc<str>) -> Found {
        self.find(host, UNKNOWN_TTL).await
    }

    async fn find(&self, host: &Arc<str>, time_limit: Duration) -> Found {
        let Some(mut flight) = self.fly(host) else {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "too many names are being looked up"));
        };
        match timeout(time_limit, flight.wait_for(Option::is_some)).await {
            Ok(Ok(found)) => match found.as_deref() {
                Some(Ok(addresses)) if !addresses.is_empty() => Ok(addresses.clone()),
                Some(Err(error)) => Err(again(error)),
                _ => Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address")),
            },
            Ok(Err(_)) => Err(io::Error::other("its name is not looked up any more")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("its name was not found in {time_limit:?}"))),
        }
    }

    /// A connection to this address came about.
    pub fn connected(&self, host: &Arc<str>, address: IpAddr) {
        if let Some(entry) = lock(&self.entries).get_mut(host) {
            entry.preferred = Some((address, Instant::now()));
        }
    }

    /// The addresses that the last good lookup of `host` found, and when, if that is not too long
    /// ago.
    pub fn known(&self, host: &Arc<str>) -> Option<(Vec<IpAddr>, Instant)> {
        let entries = lock(&self.entries);
        let good = entries.get(host)?.good.as_ref();
        good.filter(|(_, since)| since.elapsed() < STALE_TTL).cloned()
    }

    fn sorted(&self, host: &Arc<str>, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let mut sorted = alternating(&addresses);
        let preferred = lock(&self.entries).get(host).and_then(|entry| entry.preferred);
        if let Some((address, since)) = preferred
            && since.elapsed() < PREFERRED
            && let Some(place) = sorted.iter().position(|other| *other == address)
        {
            sorted[..=place].rotate_right(1);
        }
        sorted
    }

    /// The lookup of `host` that is under way, or a new one. `None` when there are too many.
    fn fly(&self, host: &Arc<str>) -> Option<Flight> {
        let (told, flight) = watch::channel(None);
        {
            let mut entries = lock(&self.entries);
            if let Some(flight) = entries.get(host).and_then(|entry| entry.flight.clone()) {
                return Some(flight);
            }
            if entries.len() >= MAX_NAMES && !entries.contains_key(host) {
                entries.retain(|_, entry| entry.flight.is_some());
            }
            if entries.values().filter(|entry| entry.flight.is_some()).count() >= MAX_LOOKUPS {
                return None;
            }
            entries.entry(host.clone()).or_default().flight = Some(flight.clone());
        }
        let (entries, name) = (self.entries.clone(), host.clone());
        let done = move |found: Found| {
            let mut entries = lock(&entries);
            if let Some(entry) = entries.get_mut(&name) {
                entry.flight = None;
                if let Ok(addresses) = &found
                    && !addresses.is_empty()
                {
                    entry.good = Some((addresses.clone(), Instant::now()));
                }
            }
            drop(entries);
            told.send_replace(Some(Arc::new(found)));
        };
        self.resolve.resolve(host, Box::new(done));
        Some(flight)
    }
}

/// Every change is made whole under the lock, so a panic elsewhere cannot have spoilt the map.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A copy of the error. The number matters: it shows a shortage on this machine, such as of
/// descriptors.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// The addresses in the order in which they are tried: the resolver's order, with the two families
/// alternating and no address twice.
fn alternating(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut different: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if !different.contains(address) {
            different.push(*address);
        }
    }
    let of_the_first = different.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        different.into_iter().partition(|address| address.is_ipv6() == of_the_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns_and_no_address_comes_twice() {
        for (given, order) in [
            ("", ""),
            ("1.1.1.1", "1.1.1.1"),
            ("1.1.1.1 1.1.1.1 2.2.2.2", "1.1.1.1 2.2.2.2"),
            ("::1 ::2 ::3 1.1.1.1 2.2.2.2", "::1 1.1.1.1 ::2 2.2.2.2 ::3"),
            ("1.1.1.1 2.2.2.2 ::1", "1.1.1.1 ::1 2.2.2.2"),
            ("::1 ::2 1.1.1.1 ::1", "::1 1.1.1.1 ::2"),
        ] {
            let list = |text: &str| text.split_whitespace().map(ip).collect::<Vec<_>>();
            assert_eq!(alternating(&list(given)), list(order), "{given}");
        }
    }

    /// A resolver that answers when the test says so.
    #[derive(Clone, Default)]
    struct Slow {
        asked: Arc<AtomicUsize>,
        waiting: Arc<Mutex<Vec<Done>>>,
    }

    impl Resolve for Slow {
        fn resolve(&self, _: &str, done: Done) {
            self.asked.fetch_add(1, SeqCst);
            lock(&self.waiting).push(done);
        }
    }

    impl Slow {
        fn answer(&self, found: impl Fn() -> Found) {
            let waiting = std::mem::take(&mut *lock(&self.waiting));
            waiting.into_iter().for_each(|done| done(found()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_serves_all_callers_and_one_that_hangs_holds_none() {
        let slow = Slow::default();
        let names = Arc::new(Names::new(slow.clone()));
        let (host, other): (Arc<str>, Arc<str>) = ("node".into(), "other".into());
        let start = Instant::now();
        // Nothing is known: that is said after a while, and the lookup goes on.
        let many = (0..20).map(|_| names.lookup(&host));
        for found in futures_util::future::join_all(many).await {
            assert_eq!(found.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!((start.elapsed(), slow.asked.load(SeqCst)), (UNKNOWN_TTL, 1));
        let asking = {
            let names = names.clone();
            tokio::spawn(async move { names.lookup(&other).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(slow.asked.load(SeqCst), 2, "a lookup that hangs holds up another name");
        slow.answer(|| Ok(vec![ip("::1"), ip("1.1.1.1")]));
        assert_eq!(asking.await.unwrap().unwrap(), [ip("::1"), ip("1.1.1.1")]);
        // Known addresses serve when a lookup hangs, or fails, or finds nothing.
        let start = Instant::now();
        assert_eq!(names.lookup(&host).await.unwrap(), [ip("::1"), ip("1.1.1.1")]);
        assert_eq!(start.elapsed(), KNOWN_TTL);
        for found in [|| Err(io::ErrorKind::Other.into()), || Ok(Vec::new())] {
            let asking = {
                let (names, host) = (names.clone(), host.clone());
                tokio::spawn(async move { names.lookup(&host).await })
            };
            tokio::task::yield_now().await;
            slow.answer(found);
            assert_eq!(asking.await.unwrap().unwrap().len(), 2);
        }
        // The address that works comes first for a while.
        names.connected(&host, ip("1.1.1.1"));
        assert_eq!(names.lookup(&host).await.unwrap(), [ip("1.1.1.1"), ip("::1")]);
        tokio::time::sleep(PREFERRED).await;
        assert_eq!(names.lookup(&host).await.unwrap(), [ip("::1"), ip("1.1.1.1")]);
        tokio::time::sleep(STALE_TTL).await;
        assert!(names.lookup(&host).await.is_err(), "addresses of long ago are believed");
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_not_looked_up_and_lookups_are_so_many_at_most() {
        let slow = Slow::default();
        let names = Names::new(slow.clone());
        for text in ["127.0.0.1", "::1"] {
            assert_eq!(names.lookup(&text.into()).await.unwrap(), [ip(text)]);
        }
        assert_eq!(slow.asked.load(SeqCst), 0);
        let hosts: Vec<Arc<str>> = (0..MAX_LOOKUPS + 3).map(|n| format!("node-{n}").into()).collect();
        let found = futures_util::future::join_all(hosts.iter().map(|host| names.lookup(host))).await;
        assert!(found.iter().all(Result::is_err));
        assert_eq!(slow.asked.load(SeqCst), MAX_LOOKUPS);
    }

    #[tokio::test]
    async fn the_systems_resolver_finds_this_machine() {
        let names = Names::new(System);
        assert!(names.lookup(&"localhost".into()).await.unwrap().iter().all(IpAddr::is_loopback));
        assert!(names.lookup(&"no-such-host.invalid".into()).await.is_err());
    }
}
