//! Two threads must not miss each other, so each first announces itself and then looks for the
//! other: a connection is counted as idle before the check for waiters, and a waiter is counted
//! before it looks for idle connections.

use super::*;

/// Connections that all are in use, one of them by the client.
#[expect(clippy::vec_box, reason = "a connection is handed on in its box")]
struct Used {
    connections: Arc<NodeConnections>,
    caller: Arc<Caller>,
    _own: Box<Conn>,
    others: Vec<Box<Conn>>,
}

impl Used {
    fn new() -> Self {
        let connections = NodeConnections::new(Some(42), 1);
        let caller = Arc::<Caller>::default();
        let own = conn(connections.free(Rank::Call, Some(&caller)).unwrap());
        let others = std::iter::from_fn(|| connections.free(Rank::Call, None)).map(conn).collect();
        Self { connections, caller, _own: own, others }
    }

    /// Whether the client may have one more.
    fn may(&self) -> bool {
        self.connections.may_have_more(Some(&self.caller))
    }

    /// Gives a connection back; returns whether the client could have had one more at the moment of
    /// the check for waiters.
    fn lay_by(&mut self) -> bool {
        let conn = self.others.pop().unwrap();
        let mut might = false;
        let wanted = || {
            might = self.connections.may_have_more(Some(&self.caller));
            false
        };
        assert!(self.connections.idle.put(conn, wanted).is_none());
        might
    }
}

#[test]
fn an_idle_connection_is_counted_before_it_is_asked_who_waits() {
    let mut used = Used::new();
    assert!(!used.may());
    while !used.may() {
        assert_eq!(used.lay_by(), used.may());
    }
}

#[test]
fn waiter_is_counted_before_it_counts_idle_connections() {
    let (mut used, mut needed) = (Used::new(), 0);
    while !used.may() {
        used.lay_by();
        needed += 1;
    }
    let mut used = Used::new();
    for _ in 1..needed {
        used.lay_by();
    }
    let last = used.others.pop().unwrap();
    let Used { connections, caller, .. } = &used;
    let is_served = thread::scope(|scope| {
        // A request that begins to wait stops at this lock: anything that it had read before would
        // be out of date after the lock.
        let state = connections.state.lock().unwrap();
        let waiter = scope.spawn(|| {
            set_worker(1);
            let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime
                .block_on(async { timeout(FOR_EVER, connections.wait(Rank::Call, false, Some(caller))).await.is_ok() })
        });
        (0..10_000).for_each(|_| thread::yield_now());
        connections.give_back(last);
        drop(state);
        waiter.join().unwrap()
    });
    assert!(is_served, "it waits for ever beside {:?}", connections.occupancy());
}
