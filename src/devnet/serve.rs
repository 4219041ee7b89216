//! A node's listening socket and its connections. When the node goes down, both are dropped; when
//! the node is up again, a new socket listens at the same place.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::sleep};
use tracing::{debug, warn};

use super::{
    cl, el,
    fault::Faults,
    hanging_io::HangingIo,
    ipc,
    node::{Kind, Node},
};
use crate::net::{Accept, Held, Incoming, Listen};

/// Between two attempts to bind the node's port again.
const BIND_PAUSE: Duration = Duration::from_millis(20);

/// Serves `node` for ever, through its ups and downs. Connections end with this future.
pub(super) async fn run(node: Arc<Node>, listen: Arc<dyn Listen>, first: Box<dyn Accept>) {
    let mut faults = node.watch_faults();
    let address = first.local_addr();
    let has_port = address.ip().is_some();
    let mut socket = Some(first);
    let mut held = None;
    loop {
        if let Some(socket) = socket.take() {
            if has_port {
                node.set_listening(true);
            }
            held = accept_until_down(&node, &*listen, socket).await;
            if has_port {
                node.set_listening(false);
            }
        }
        if faults.wait_for(|faults| !faults.down()).await.is_err() {
            return;
        }
        drop(held.take());
        match listen.bind(address.clone()).await {
            Ok(bound) => socket = Some(bound),
            Err(error) => {
                warn!(node = node.name(), %error, "cannot listen again yet");
                sleep(BIND_PAUSE).await;
            }
        }
    }
}

/// Returns when the node is down, with the socket closed and all its connections dropped. The port
/// stays the node's: another socket that was given it would be taken for the node.
async fn accept_until_down(node: &Arc<Node>, listen: &dyn Listen, mut socket: Box<dyn Accept>) -> Option<Held> {
    let mut faults = node.watch_faults();
    let mut connections = JoinSet::new();
    let is_ipc = socket.local_addr().path().is_some();
    loop {
        // All arms are cancel-safe. The first ends the loop, so that arm cannot starve the others.
        tokio::select! {
            biased;
            () = went_down(&mut faults) => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(node = node.name(), %error, "a connection's task failed");
                }
            }
            accepted = socket.accept() => match accepted {
                Ok((incoming, _)) => _ = connections.spawn(connection(node.clone(), incoming, is_ipc)),
                Err(error) => {
                    debug!(node = node.name(), %error, "accept");
                    sleep(BIND_PAUSE).await;
                }
            },
        }
    }
    let address = socket.local_addr();
    drop(socket);
    let held = listen.hold(&address);
    connections.shutdown().await;
    held
}

async fn went_down(faults: &mut watch::Receiver<Arc<Faults>>) {
    // The node holds the sender: the wait cannot fail.
    let _ = faults.wait_for(|faults| faults.down()).await;
}

async fn connection(node: Arc<Node>, incoming: Incoming, is_ipc: bool) {
    let io = match incoming.open() {
        Ok(io) => io,
        Err(error) => return debug!(node = node.name(), %error, "open"),
    };
    let records = node.records.clone();
    if node.faults().max_connections().is_some_and(|most| records.connections().0 >= most) {
        return records.refuse();
    }
    let _counted = records.connection();
    let io = HangingIo::new(io, &node);
    match node.kind() {
        Kind::Execution if is_ipc => ipc::serve(node, io).await,
        Kind::Execution => el::serve(node, io).await,
        Kind::Consensus => cl::serve(node, io).await,
    }
}
