//! That whoever waits for a connection is not forgotten, whatever others do at the same moment.

mod counts;
mod kept;
mod next_waiter;

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{TryLockError, atomic::AtomicUsize},
    thread,
};

use tokio::{io::duplex, runtime, time::timeout};

use super::*;
use crate::net::{
    node_connections::{fair_queue::SEARCHED, next_waiter::PASSED},
    worker::set_worker,
};

/// Far longer than anything here takes.
const FOR_EVER: Duration = Duration::from_secs(20);

fn conn(permit: Permit) -> Box<Conn> {
    let (near, far) = duplex(1);
    // Keeps the node's end open.
    std::mem::forget(far);
    Conn::new(Box::new(near), permit)
}

fn conn_of(grant: Grant) -> Box<Conn> {
    match grant {
        Grant::Conn(conn) => conn,
        Grant::Permit(permit) => conn(permit),
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_that_becomes_free_before_one_waits_for_it_is_given() {
    let connections = NodeConnections::new(Some(1), 0);
    let only = connections.free(Rank::Call, None).unwrap();
    assert!(connections.free(Rank::Call, None).is_none());
    drop(only);
    assert!(timeout(FOR_EVER, connections.wait(Rank::Call, false, None)).await.is_ok());
}

/// Where threads meet before each step.
#[derive(Default)]
struct Meeting(AtomicUsize);

impl Meeting {
    fn meet(&self, threads: usize, step: usize) {
        self.0.fetch_add(1, SeqCst);
        while self.0.load(SeqCst) < threads * (step + 1) {
            thread::yield_now();
        }
    }
}

fn spin(turns: u32) {
    (0..turns).for_each(|_| std::hint::spin_loop());
}

#[test]
fn handing_over_a_connection_locks_out_new_waiters() {
    let connections = NodeConnections::new(Some(1), 0);
    let held = conn(connections.free(Rank::Call, None).unwrap());
    let is_locked = || matches!(connections.state.try_lock(), Err(TryLockError::WouldBlock));
    thread::scope(|scope| {
        // Whoever lays a connection by waits here; whoever began to wait meanwhile would have
        // looked for an idle one in vain.
        let idle = connections.idle.locked();
        scope.spawn(|| connections.hand_over(held));
        let looks = (0..5_000_000).take_while(|_| !is_locked()).inspect(|_| thread::yield_now()).count();
        (0..10_000).for_each(|_| thread::yield_now());
        assert!(is_locked(), "{looks} looks");
        drop(idle);
    });
    assert!(connections.idle.oldest().is_some());
}

/// In each round one worker gives the only connection back, one begins to wait, and a waiter
/// leaves.
#[test]
fn new_waiter_gets_a_connection_given_back_meanwhile() {
    const ROUNDS: usize = 3_000;
    let connections = NodeConnections::new(Some(1), 3);
    let (meeting, holding, forgotten) = (Meeting::default(), Mutex::new(None), AtomicBool::new(false));
    let run = |worker: usize, act: &(dyn Fn(&mut fastrand::Rng, &runtime::Runtime) + Sync)| {
        set_worker(worker);
        let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut rng = fastrand::Rng::with_seed(worker as u64);
        for round in 0..ROUNDS {
            meeting.meet(3, 2 * round);
            if !forgotten.load(SeqCst) {
                act(&mut rng, &runtime);
            }
            meeting.meet(3, 2 * round + 1);
        }
    };
    *holding.lock().unwrap() = Some(conn(connections.free(Rank::Call, None).unwrap()));
    thread::scope(|scope| {
        scope.spawn(|| {
            run(1, &|rng, _| {
                let held = holding.lock().unwrap().take().unwrap();
                spin(rng.u32(..200));
                connections.give_back(held);
            });
        });
        scope.spawn(|| {
            run(2, &|rng, runtime| {
                runtime.block_on(async {
                    let mut waits = Box::pin(connections.wait(Rank::Call, false, None));
                    if let Ok(grant) = timeout(Duration::ZERO, &mut waits).await {
                        connections.give_back(conn_of(grant));
                    }
                    spin(rng.u32(..200));
                });
            });
        });
        scope.spawn(|| {
            run(3, &|rng, runtime| {
                spin(rng.u32(..200));
                match runtime.block_on(async { timeout(FOR_EVER, connections.wait(Rank::Call, false, None)).await }) {
                    Ok(grant) => *holding.lock().unwrap() = Some(conn_of(grant)),
                    Err(_) => forgotten.store(true, SeqCst),
                }
            });
        });
    });
    assert!(!forgotten.into_inner(), "one waits for ever: {:?}", connections.occupancy());
    assert_eq!((connections.occupancy().open, connections.occupancy().waiting), (1, 0));
}

/// The connection of a wait that can be granted at once.
async fn granted<'p>(waits: &mut (impl Future<Output = Grant> + Unpin + 'p)) -> Option<Box<Conn>> {
    timeout(Duration::ZERO, waits).await.ok().map(conn_of)
}

#[tokio::test(start_paused = true)]
async fn clients_that_wait_take_turns() {
    let connections = NodeConnections::new(Some(1), 0);
    let [many, few] = [(); 2].map(|()| Arc::<Caller>::default());
    let mut held = Some(conn(connections.free(Rank::Call, Some(&many)).unwrap()));
    let mut waits = Vec::new();
    for caller in [Some(&many), Some(&many), Some(&many), Some(&few), Some(&few), None] {
        let mut wait = Box::pin(connections.wait(Rank::Call, false, caller));
        assert!(granted(&mut wait).await.is_none());
        waits.push(wait);
    }
    for expected in [0, 3, 5, 1, 4, 2] {
        connections.give_back(held.take().unwrap());
        held = granted(&mut waits[expected]).await;
        assert!(held.is_some(), "{expected}");
    }
    assert_eq!(connections.waiting_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_client_leaves_connections_to_others() {
    let connections = NodeConnections::new(Some(42), 0);
    let [many, few, another] = [(); 3].map(|()| Arc::<Caller>::default());
    let take = |caller| {
        connections.idle(Rank::Call, Some(caller)).or_else(|| connections.free(Rank::Call, Some(caller)).map(conn))
    };
    // Whether connections are opened or lie idle.
    for _ in 0..2 {
        let mut held: Vec<_> = std::iter::from_fn(|| take(&many)).collect();
        assert_eq!(held.len(), 30);
        let mut more = Box::pin(connections.wait(Rank::Call, false, Some(&many)));
        assert!(granted(&mut more).await.is_none());
        // The others have theirs at once, also by waiting, though one waits before them.
        let mut others = Vec::new();
        for (is_fresh, caller) in [(false, &few), (true, &another)] {
            let mut wait = Box::pin(connections.wait(Rank::Call, is_fresh, Some(caller)));
            others.push(granted(&mut wait).await.expect("a connection"));
        }
        // When as many are free as before, the one that waits has another.
        others.into_iter().for_each(|conn| connections.give_back(conn));
        connections.give_back(held.pop().unwrap());
        let last = granted(&mut more).await;
        assert!(last.is_some());
        held.extend(last);
        drop(more);
        held.into_iter().for_each(|conn| connections.give_back(conn));
        assert_eq!((connections.occupancy().waiting, many.has(connections.number)), (0, Has::NONE));
    }
    // If the node takes any number of connections, no client is held back.
    let connections = NodeConnections::new(None, 0);
    assert_eq!((0..500).filter_map(|_| connections.free(Rank::Call, Some(&many))).map(std::mem::forget).count(), 500);
}

/// Connections of clients of these two addresses.
fn two_addresses() -> [impl Fn() -> Arc<Caller>; 2] {
    let peers = Peers::default();
    [1, 2].map(|last| {
        let peers = peers.clone();
        move || peers.caller(IpAddr::from([10, 0, 0, last]).into())
    })
}

#[tokio::test(start_paused = true)]
async fn an_address_with_many_connections_leaves_some_over() {
    let connections = NodeConnections::new(Some(112), 0);
    let [many, others] = two_addresses();
    let mut held = Vec::new();
    let mut waits = Vec::new();
    // Each connection has one call.
    for _ in 0..300 {
        let caller = many();
        match connections.free(Rank::Call, Some(&caller)) {
            Some(permit) => held.push((conn(permit), caller)),
            None => waits.push(Box::pin({
                let connections = connections.clone();
                async move { connections.wait(Rank::Call, false, Some(&caller)).await }
            })),
        }
    }
    // Alone, the client has nearly all.
    assert_eq!((held.len(), waits.len()), (103, 197));
    for wait in &mut waits {
        assert!(granted(wait).await.is_none());
    }
    let (one, other) = (others(), others());
    let mut wait = Box::pin(connections.wait(Rank::Call, false, Some(&one)));
    let first = granted(&mut wait).await;
    assert!(first.is_some(), "the other address gets none");
    drop(wait);
    // Connections that become free go to the two in turns.
    let mut next = Box::pin(connections.wait(Rank::Call, false, Some(&other)));
    assert!(granted(&mut next).await.is_none());
    let mut given = 0;
    while granted(&mut next).await.is_none() {
        let (conn, _) = held.pop().unwrap();
        connections.give_back(conn);
        given += 1;
        assert!(given < 10, "its second call waits behind those of the first address");
    }
    drop((waits, held, first));
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_many_calls_leaves_some_to_its_neighbours() {
    let connections = NodeConnections::new(Some(82), 0);
    let [neighbours, others] = two_addresses();
    let greedy = neighbours();
    let held: Vec<_> = std::iter::from_fn(|| connections.free(Rank::Call, Some(&greedy))).collect();
    assert_eq!(held.len(), 60);
    let waits = |caller: Arc<Caller>| {
        let connections = connections.clone();
        Box::pin(async move { connections.wait(Rank::Call, false, Some(&caller)).await })
    };
    let mut own: Vec<_> = (0..2 * SEARCHED).map(|_| waits(greedy.clone())).collect();
    for wait in &mut own {
        assert!(granted(wait).await.is_none());
    }
    // Also to others of the same address, down to the part that is kept for other addresses.
    let mut rest = Vec::new();
    for _ in 0..15 {
        let mut wait = waits(neighbours());
        rest.push(granted(&mut wait).await.expect("a permit"));
    }
    let mut wait = waits(neighbours());
    assert!(granted(&mut wait).await.is_none());
    let mut of_others = waits(others());
    assert!(granted(&mut of_others).await.is_some());
    drop((held, own, rest));
    assert!(granted(&mut wait).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn waiter_of_another_worker_is_passed_over_a_few_times_only() {
    let connections = NodeConnections::new(Some(1), 3);
    set_worker(1);
    let mut held = Some(conn(connections.free(Rank::Call, None).unwrap()));
    set_worker(2);
    let caller = Arc::<Caller>::default();
    let mut first = Box::pin(connections.wait(Rank::Call, false, Some(&caller)));
    assert!(granted(&mut first).await.is_none());
    set_worker(1);
    for _ in 0..2 * PASSED {
        // Each is at another address, so none has had a turn.
        let caller = Arc::<Caller>::default();
        let mut wait = Box::pin(connections.wait(Rank::Call, false, Some(&caller)));
        assert!(granted(&mut wait).await.is_none());
        connections.give_back(held.take().unwrap());
        held = granted(&mut wait).await;
        if held.is_none() {
            assert!(granted(&mut first).await.is_some());
            return;
        }
    }
    panic!("it waits for ever");
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_has_what_is_kept_for_it_behind_whatever_queue() {
    let connections = NodeConnections::new(Some(42), 0);
    let greedy = [(); 2].map(|()| Arc::<Caller>::default());
    let mut held = Vec::new();
    for caller in greedy.iter().cycle() {
        let Some(permit) = connections.free(Rank::Call, Some(caller)) else { break };
        held.push(conn(permit));
    }
    let mut waits = Vec::new();
    for caller in greedy.iter().cycle().take(2 * SEARCHED) {
        let mut wait = Box::pin(connections.wait(Rank::Call, false, Some(caller)));
        assert!(granted(&mut wait).await.is_none());
        waits.push(wait);
    }
    for caller in [None, Some(&Arc::default())] {
        let mut wait = Box::pin(connections.wait(Rank::Call, false, caller));
        assert!(granted(&mut wait).await.is_some(), "connections are free, and kept from {caller:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn returning_clients_leave_another_its_second_call() {
    let connections = NodeConnections::new(Some(1), 0);
    let two: Arc<Caller> = Arc::default();
    let mut held = Some(conn(connections.free(Rank::Call, None).unwrap()));
    let mut own: Vec<_> = (0..2).map(|_| Box::pin(connections.wait(Rank::Call, false, Some(&two)))).collect();
    for wait in &mut own {
        assert!(granted(wait).await.is_none());
    }
    let mut others: VecDeque<_> = (0..3).map(|_| Box::pin(connections.wait(Rank::Call, false, None))).collect();
    for wait in &mut others {
        assert!(granted(wait).await.is_none());
    }
    for _ in 0..20 {
        connections.give_back(held.take().unwrap());
        for at in 0..own.len() {
            if let Some(conn) = granted(&mut own[at]).await {
                held = Some(conn);
                drop(own.remove(at));
                break;
            }
        }
        if held.is_none() {
            held = granted(others.front_mut().unwrap()).await;
            others.pop_front();
            let mut next = Box::pin(connections.wait(Rank::Call, false, None));
            assert!(granted(&mut next).await.is_none());
            others.push_back(next);
        }
        assert!(held.is_some());
        if own.is_empty() {
            return;
        }
    }
    panic!("{} calls of the client still wait", own.len());
}
