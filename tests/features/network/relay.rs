//! A port that lasts before one that does not: a container that starts again listens elsewhere.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Hands connections on. All of them end with this, and the port refuses further ones.
pub struct Relay {
    _task: JoinSet<()>,
}

impl Relay {
    pub async fn open(at: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                // Both arms are cancel-safe.
                tokio::select! {
                    accepted = listener.accept() => {
                        let (mut client, _) = accepted.unwrap();
                        connections.spawn(async move {
                            if let Ok(mut node) = TcpStream::connect(target).await {
                                // Either end may break off.
                                let _ = copy_bidirectional(&mut client, &mut node).await;
                            }
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { _task: task }
    }
}
