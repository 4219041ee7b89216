//! That turns stay fair while connections go back on other workers than that of the first in line.

use std::pin::Pin;

use super::*;

/// A client's connection, whose calls wait again as soon as one is served.
struct Client {
    worker: usize,
    caller: Arc<Caller>,
    waits: Vec<Pin<Box<dyn Future<Output = Grant>>>>,
    turns: usize,
}

impl Client {
    fn new(worker: usize, caller: Arc<Caller>) -> Self {
        Self { worker, caller, waits: Vec::new(), turns: 0 }
    }

    async fn wait(&mut self, connections: &Arc<NodeConnections>) {
        set_worker(self.worker);
        let (connections, caller) = (connections.clone(), self.caller.clone());
        let mut wait: Pin<Box<dyn Future<Output = Grant>>> =
            Box::pin(async move { connections.wait(Rank::Call, false, Some(&caller)).await });
        assert!(granted(&mut wait).await.is_none());
        self.waits.push(wait);
    }

    async fn granted(&mut self) -> Option<Box<Conn>> {
        for at in 0..self.waits.len() {
            if let Some(conn) = granted(&mut self.waits[at]).await {
                drop(self.waits.remove(at));
                return Some(conn);
            }
        }
        None
    }
}

/// Has the clients wait with so many calls each, and serves `times` of them over one connection,
/// which each gives back on its own worker. Returns the turns of each client.
async fn turns(mut clients: Vec<(Client, usize)>, times: usize) -> Vec<usize> {
    let connections = NodeConnections::new(Some(1), 8);
    let (mut worker, mut held) = (0, conn(connections.free(Rank::Call, None).unwrap()));
    for (client, calls) in &mut clients {
        for _ in 0..*calls {
            client.wait(&connections).await;
        }
    }
    for _ in 0..times {
        set_worker(worker);
        connections.give_back(held);
        let mut next = None;
        for (client, _) in &mut clients {
            if let Some(conn) = client.granted().await {
                client.turns += 1;
                client.wait(&connections).await;
                next = Some((client.worker, conn));
                break;
            }
        }
        (worker, held) = next.expect("a turn");
    }
    clients.iter().map(|(client, _)| client.turns).collect()
}

#[tokio::test(start_paused = true)]
async fn an_address_on_all_workers_has_its_turns_and_no_more() {
    const OTHERS: u8 = 10;
    const ROUNDS: usize = 20;
    // The greedy one has two calls on each of its connections, or two calls on one connection.
    for greedy in [8, 1] {
        let peers = Peers::default();
        let caller = |last| peers.caller(IpAddr::from([10, 0, 0, last]).into());
        let mut clients: Vec<_> = (0..greedy).map(|worker| (Client::new(worker, caller(1)), 2)).collect();
        clients.extend((0..OTHERS).map(|at| (Client::new(1 + usize::from(at % 7), caller(2 + at)), 1)));
        let turns = turns(clients, ROUNDS * (1 + usize::from(OTHERS))).await;
        let (of_greedy, of_others) = turns.split_at(greedy);
        let most = ROUNDS + ROUNDS / 4;
        assert!(of_greedy.iter().sum::<usize>() <= most, "{turns:?}");
        assert!(of_others.iter().all(|turns| (ROUNDS - ROUNDS / 4..=most).contains(turns)), "{turns:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_many_calls_has_its_turns_and_no_more() {
    const ROUNDS: usize = 20;
    let peers = Peers::default();
    let caller = || peers.caller(IpAddr::from([10, 0, 0, 1]).into());
    let mut clients = vec![(Client::new(1, caller()), 20)];
    clients.extend((0..5).map(|_| (Client::new(2, caller()), 1)));
    let turns = turns(clients, ROUNDS * 6).await;
    assert!(turns.iter().all(|turns| (ROUNDS - ROUNDS / 4..=ROUNDS + ROUNDS / 4).contains(turns)), "{turns:?}");
}
