//! A TCP relay between a client and a NATS server, which can hold each direction back.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// The directions that are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Nothing from the client.
    pub(super) calls: bool,
    /// Nothing from the server.
    pub(super) answers: bool,
    /// The number of the relay's life: connections of an earlier one end.
    life: usize,
}

/// A running relay, which ends when this is dropped.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    held: watch::Sender<Held>,
    accepted: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (held, receiver) = watch::channel(Held::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        task.spawn(accept(listener, server, receiver, accepted.clone()));
        Self { address, held, accepted, _task: task }
    }

    pub(super) fn hold(&self, calls: bool, answers: bool) {
        self.held.send_modify(|held| *held = Held { calls, answers, ..*held });
    }

    /// Lets all pass again through the connections that stand: what was held arrives late.
    pub(super) fn release(&self) {
        self.hold(false, false);
    }

    /// Ends all connections with what is held, and lets all pass in new ones.
    pub(super) fn restart(&self) {
        self.held.send_modify(|held| *held = Held { life: held.life + 1, ..Held::default() });
    }

    /// Connections that were accepted.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, held: watch::Receiver<Held>, accepted: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        connections.spawn(relay(client, server, held.clone()));
    }
}

async fn relay(client: TcpStream, server: SocketAddr, held: watch::Receiver<Held>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let life = held.borrow().life;
    let mut ended = held.clone();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = ended.wait_for(|held| held.life != life) => {}
        () = pass(from_client, to_server, life, held.clone(), |held| held.calls) => {}
        () = pass(from_server, to_client, life, held, |held| held.answers) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    life: usize,
    mut held: watch::Receiver<Held>,
    is_held: fn(&Held) -> bool,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        // Both at once: what is held does not pass when the life ends.
        match held.wait_for(|held| !is_held(held)).await {
            Ok(held) if held.life == life => {}
            _ => return,
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
