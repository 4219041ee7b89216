//! A client's part of the sum, in claims that give their bytes back.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use super::{
    Budget, FREE, Full,
    budget::{STEP, Side},
};
use crate::domain::client::Peer;

/// How many bytes a claim grows ahead of what has come, at most.
const AHEAD: usize = 64 * 1024;

/// The bytes of one connection. An account is its worker's, so its lock is never waited for.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    pub(super) number: u64,
    /// Where the client is, where that is known.
    client: Option<Peer>,
    /// Whether a connection stands behind the account, and hears that the bytes must be given up.
    is_driven: bool,
    /// Bytes in use, which decide the part of the sum.
    used: Mutex<usize>,
    duty: AtomicU8,
    /// Whether the connection has to end, and has not heard of that.
    ends: AtomicBool,
    /// Bytes that are counted as good as given back.
    pub(super) promised: AtomicUsize,
    waker: AtomicWaker,
}

/// Whether an account has to give up its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    None = 0,
    /// The client has to give up its part, and has not heard of that.
    Told = 1,
    /// The client has heard, and gives up its part.
    Heard = 2,
}

/// Why a connection has to give up its bytes or its place at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its part, for clients that hold less.
    Full(Full),
    /// Its place, for a client that has fewer.
    Crowded,
}

/// The bytes that `used` bytes of one connection take from the sum.
fn price(used: usize) -> usize {
    used.saturating_sub(FREE).div_ceil(STEP) * STEP
}

impl Account {
    /// An account of no connection, whose bytes are never taken back.
    pub fn open(budget: &Arc<Budget>) -> Arc<Self> {
        Self::new(budget, None, false)
    }

    /// An account of a new connection of this client, whose task polls [`Account::poll_cut`].
    pub fn of(budget: &Arc<Budget>, client: Option<Peer>) -> Arc<Self> {
        Self::new(budget, client, true)
    }

    fn new(budget: &Arc<Budget>, client: Option<Peer>, is_driven: bool) -> Arc<Self> {
        Arc::new(Self {
            budget: budget.clone(),
            number: budget.next_number(),
            client,
            is_driven,
            used: Mutex::new(0),
            duty: AtomicU8::new(Duty::None as u8),
            ends: AtomicBool::new(false),
            promised: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
        })
    }

    /// Where the client is, if that is known.
    pub fn client(&self) -> Option<Peer> {
        self.client
    }

    /// An account without a limit, for the proxy's own bytes.
    pub fn unlimited() -> Arc<Self> {
        Self::open(&Budget::new(usize::MAX))
    }

    /// An account of its own, for bytes that outlive this connection.
    pub fn beside(&self) -> Arc<Self> {
        Self::open(&self.budget)
    }

    /// A claim, empty yet, for bytes from the client.
    pub fn incoming(self: &Arc<Self>) -> Claim {
        Claim { account: self.clone(), bytes: 0, side: Side::In }
    }

    /// A claim, empty yet, for bytes to the client.
    pub fn outgoing(self: &Arc<Self>) -> Claim {
        Claim { account: self.clone(), bytes: 0, side: Side::Out }
    }

    /// A claim, empty yet, for things that outlive their client.
    pub fn standing(self: &Arc<Self>) -> Claim {
        Claim { account: self.clone(), bytes: 0, side: Side::Standing }
    }

    /// A claim, empty yet, for what is kept until clients ask for it.
    pub fn records(self: &Arc<Self>) -> Claim {
        Claim { account: self.clone(), bytes: 0, side: Side::Records }
    }

    /// Bytes that all clients together may make the proxy hold.
    pub fn limit(&self) -> usize {
        self.budget.limit()
    }

    /// Ready, once, when all that is held has to be given up at once for clients that hold less, or
    /// the connection for a client that has fewer. To be polled by the connection's own task, which
    /// is the one that is woken.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<Cut> {
        if self.duty.load(Acquire) != Duty::Told as u8 {
            self.waker.register(context.waker());
        }
        let heard = self.duty.compare_exchange(Duty::Told as u8, Duty::Heard as u8, AcqRel, Acquire);
        if heard.is_ok() {
            return Poll::Ready(Cut::Full(Full(self.budget.limit())));
        }
        if self.ends.load(Acquire) && self.ends.swap(false, AcqRel) { Poll::Ready(Cut::Crowded) } else { Poll::Pending }
    }

    /// Has the connection end for another.
    pub fn end(&self) {
        self.ends.store(true, Release);
        self.waker.wake();
    }

    pub(super) fn duty(&self) -> Duty {
        match self.duty.load(Acquire) {
            0 => Duty::None,
            1 => Duty::Told,
            _ => Duty::Heard,
        }
    }

    pub(super) fn set_duty(&self, duty: Duty) {
        self.duty.store(duty as u8, Release);
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Keeps so many of the promised bytes; returns how many there were.
    pub(super) fn keep(&self, bytes: usize) -> usize {
        let kept = self.promised.load(Relaxed).min(bytes);
        self.promised.fetch_sub(kept, Relaxed);
        kept
    }

    /// Changes the bytes in use from `before` to `after`; without a side nothing is refused.
    fn change(self: &Arc<Self>, before: usize, after: usize, side: Option<Side>) -> Result<(), Full> {
        let mut used = self.lock();
        let now = *used - before + after;
        let (taken, price) = (price(*used), price(now));
        if price != taken {
            match side {
                Some(side) if price > taken => self.budget.take(price - taken, price, side)?,
                _ => self.budget.adjust(taken, price),
            }
            if self.is_driven {
                self.budget.holders.change(self, taken, price);
            }
        }
        *used = now;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        // The lock guards one number, so a panic elsewhere cannot have spoilt it.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of an account, which gives its bytes back when dropped.
#[derive(Debug)]
pub struct Claim {
    account: Arc<Account>,
    bytes: usize,
    side: Side,
}

impl Claim {
    /// A claim on an account of its own, empty yet, for records that outlive this connection.
    pub fn beside(&self) -> Self {
        self.account.beside().records()
    }

    /// Makes the claim `bytes` large. A claim can always become smaller.
    ///
    /// # Errors
    /// When there is no room for more; the claim stays as large as before.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Full> {
        if bytes != self.bytes {
            let standing = (self.side == Side::Standing).then_some(&self.account.budget);
            standing.map_or(Ok(()), |budget| budget.stand(self.bytes, bytes))?;
            if let Err(full) = self.account.change(self.bytes, bytes, Some(self.side)) {
                standing.iter().for_each(|budget| _ = budget.stand(bytes, self.bytes));
                return Err(full);
            }
            self.note(bytes);
        }
        Ok(())
    }

    /// Makes the claim at least `bytes` large, for bytes that come in many pieces. While half of
    /// the sum is free, the claim becomes twice as large, by [`AHEAD`] bytes at most, so that the
    /// sum changes seldom.
    ///
    /// # Errors
    /// As [`Claim::resize`].
    pub fn grow(&mut self, bytes: usize) -> Result<(), Full> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let is_roomy = self.account.budget.held() + bytes + AHEAD < self.account.budget.limit() / 2;
        let ahead = if is_roomy { self.bytes.min(AHEAD) } else { 0 };
        self.resize(bytes.max(self.bytes + ahead))
    }

    /// Makes the claim `bytes` large, also beyond the limit: for bytes that are there already.
    pub fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            if self.side == Side::Standing {
                // A claim of this kind is only ever made smaller so, which is not refused.
                let _ = self.account.budget.stand(self.bytes, bytes);
            }
            // Without a side nothing is refused.
            let _ = self.account.change(self.bytes, bytes, None);
            self.note(bytes);
        }
    }

    fn note(&mut self, bytes: usize) {
        if self.side == Side::Records {
            self.account.budget.record(self.bytes, bytes);
        }
        self.bytes = bytes;
    }

    /// The claim's bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The claim's account.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.set(0);
    }
}
