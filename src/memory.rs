//! Floor 1: the bytes that clients make the proxy hold, as one sum with one limit.
//!
//! Every door opens an [`Account`] for a connection and takes bytes as they come; what a client
//! only promises costs nothing. The bounds on single bodies, messages and buffers stand beneath
//! this one: it is for what ten thousand clients make of them together.

mod machine;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use crate::domain::refusal::Refusal;

pub use self::machine::quarter;

/// The setting's name, which refusals tell.
pub const SETTING: &str = "max_client_memory";
/// Bytes of one connection that are not counted, so that small calls one after the other never
/// touch the sum.
pub const FREE: usize = 8 * 1024;
/// Up to this size a single message or answer is not counted; so small a thing is bounded by the number
/// of connections.
pub const SMALL: usize = 4096;
/// What a call under way takes besides the bytes of its request and its answer.
pub const CALL: usize = 5 * 1024;
/// What an answer that passes piece by piece takes, on its way from the node's connection to the
/// client's.
pub const STREAM: usize = 256 * 1024;
/// An account takes from the sum in steps of so many bytes.
const STEP: usize = 16 * 1024;

/// The sum over all clients.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    held: AtomicUsize,
    refused: AtomicU64,
}

/// The sum is at its limit, which is this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("clients make the proxy hold as much as {SETTING} allows, {0} bytes")]
pub struct Full(pub usize);

impl From<Full> for Refusal {
    fn from(Full(limit): Full) -> Self {
        Self::Limit { name: SETTING, limit }
    }
}

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Clients' own: they may take three quarters, so that the calls that were let in can be
    /// answered.
    In,
    /// What is to be sent to clients.
    Out,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), held: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    /// From now on so many bytes may be held. What is held beyond it stays until it is given back.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Bytes that may be held.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// How often bytes were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn take(&self, more: usize, side: Side) -> Result<(), Full> {
        let limit = self.limit();
        let most = match side {
            Side::In => limit / 4 * 3,
            Side::Out => limit,
        };
        // Added first, so that two who take at once cannot both find room for one.
        let before = self.held.fetch_add(more, Relaxed);
        if before.saturating_add(more) > most {
            self.held.fetch_sub(more, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return Err(Full(limit));
        }
        Ok(())
    }
}

/// The bytes of one connection. It is its worker's, so its lock is never waited for.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    /// Where the client is, where that is known.
    client: Option<IpAddr>,
    /// Bytes in use. They decide what is taken from the sum.
    used: Mutex<usize>,
}

/// What `used` bytes of one connection take from the sum.
fn price(used: usize) -> usize {
    used.saturating_sub(FREE).div_ceil(STEP) * STEP
}

impl Account {
    /// An account of a new connection.
    pub fn open(budget: &Arc<Budget>) -> Arc<Self> {
        Self::of(budget, None)
    }

    /// An account of a new connection of this client.
    pub fn of(budget: &Arc<Budget>, client: Option<IpAddr>) -> Arc<Self> {
        Arc::new(Self { budget: budget.clone(), client, used: Mutex::new(0) })
    }

    /// The address of the client, where that is known.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// An account that nobody limits, for what is the proxy's own.
    pub fn unlimited() -> Arc<Self> {
        Self::open(&Budget::new(usize::MAX))
    }

    /// A claim, empty yet, for what the client sends.
    pub fn incoming(self: &Arc<Self>) -> Claim {
        Claim { account: self.clone(), bytes: 0, side: Side::In }
    }

    /// A claim, empty yet, for what is to be sent to the client.
    pub fn outgoing(self: &Arc<Self>) -> Claim {
        Claim { account: self.clone(), bytes: 0, side: Side::Out }
    }

    /// Changes what is in use from `before` to `after` bytes.
    fn change(&self, before: usize, after: usize, side: Option<Side>) -> Result<(), Full> {
        let mut used = self.lock();
        let now = *used - before + after;
        let (taken, price) = (price(*used), price(now));
        match side {
            Some(side) if price > taken => self.budget.take(price - taken, side)?,
            None if price > taken => _ = self.budget.held.fetch_add(price - taken, Relaxed),
            _ if price < taken => _ = self.budget.held.fetch_sub(taken - price, Relaxed),
            _ => {}
        }
        *used = now;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        // It is one number, so a panic elsewhere cannot have spoilt it.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of an account. It gives its bytes back when it is dropped.
#[derive(Debug)]
pub struct Claim {
    account: Arc<Account>,
    bytes: usize,
    side: Side,
}

impl Claim {
    /// A claim of the same kind on an account of its own, empty yet, for what outlives this one's connection.
    pub fn beside(&self) -> Self {
        Self { account: Account::open(&self.account.budget), bytes: 0, side: self.side }
    }

    /// Makes it `bytes` large. It can always become smaller.
    ///
    /// # Errors
    /// When there is no room for more; it stays as large as it was.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Full> {
        if bytes != self.bytes {
            self.account.change(self.bytes, bytes, Some(self.side))?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Makes it `bytes` large, also beyond the limit: for what is there already.
    pub fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            // Without a side nothing is refused.
            let _ = self.account.change(self.bytes, bytes, None);
            self.bytes = bytes;
        }
    }

    /// How large it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whose it is.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_gives_all_of_its_bytes_back() {
        let budget = Budget::new(1 << 20);
        let account = Account::open(&budget);
        {
            let (mut one, mut other) = (account.incoming(), account.outgoing());
            one.resize(100_000).unwrap();
            other.resize(50_000).unwrap();
            assert!((150_000 - FREE..150_000 + STEP).contains(&budget.held()), "{}", budget.held());
            one.resize(10).unwrap();
            assert!(budget.held() < 50_000 + STEP, "{}", budget.held());
            other.set(3 << 20);
            assert!(budget.held() > 2 << 20, "what is there already is counted, be it too much");
        }
        assert_eq!((budget.held(), budget.refused()), (0, 0));
    }

    #[test]
    fn small_calls_never_touch_the_sum() {
        let budget = Budget::new(0);
        let account = Account::open(&budget);
        let mut claim = account.incoming();
        assert_eq!((claim.resize(FREE), budget.held()), (Ok(()), 0));
        assert_eq!(claim.resize(FREE + 1), Err(Full(0)));
        assert_eq!((claim.bytes(), budget.refused()), (FREE, 1));
    }

    #[test]
    fn clients_leave_a_quarter_of_the_room_to_answers() {
        let budget = Budget::new(64 * STEP);
        let accounts = [(); 100].map(|()| Account::open(&budget));
        let of_clients = accounts.each_ref().map(|account| {
            let mut claim = account.incoming();
            claim.resize(FREE + STEP).map(|()| claim)
        });
        assert_eq!(of_clients.iter().filter(|taken| taken.is_ok()).count(), 48);
        assert_eq!(budget.held(), 48 * STEP);
        let mut answer = accounts[99].outgoing();
        assert_eq!(answer.resize(FREE + 16 * STEP), Ok(()));
        assert_eq!(answer.resize(FREE + 17 * STEP), Err(Full(64 * STEP)));
        drop((of_clients, answer));
        assert_eq!(budget.held(), 0);
    }
}
