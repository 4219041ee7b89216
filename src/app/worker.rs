//! The threads that serve clients: one runtime each, so that a call's two connections live on one
//! core and no task moves.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::{debug, error};

use crate::{
    domain::client::Peer,
    door::{crowd::Place, http::Service},
    net::{Incoming, node_connections::Caller, worker::set_worker},
    view::Job,
};

/// Connections that may wait for a worker to take them up.
const BACKLOG: usize = 1024;

/// A client's connection that was accepted.
pub(super) struct Accepted {
    pub(super) incoming: Incoming,
    /// Where the client is, and the share that all connections from there have in common.
    pub(super) peer: Peer,
    pub(super) caller: Arc<Caller>,
    /// The place among all connections.
    pub(super) place: Place,
}

/// All workers. Dropping `Workers` ends all and cuts their connections.
pub(super) struct Workers {
    handles: Vec<WorkerHandle>,
    done: Vec<oneshot::Receiver<()>>,
    /// Each worker ends at once when its sender is gone.
    stops: Vec<oneshot::Sender<()>>,
}

/// Gives accepted connections to the workers.
pub(super) struct Dispatcher(Vec<WorkerHandle>);

#[derive(Clone)]
struct WorkerHandle {
    connections: mpsc::Sender<Accepted>,
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts a worker for each of `jobs`. With `threads`, each worker has a thread of its own.
    pub(super) fn start(threads: bool, jobs: Vec<mpsc::Receiver<Job>>, service: &Service) -> io::Result<Self> {
        let mut workers = Self { handles: Vec::new(), done: Vec::new(), stops: Vec::new() };
        for (index, jobs) in (1..).zip(jobs) {
            let (connections, accepted) = mpsc::channel(BACKLOG);
            let (finished, done) = oneshot::channel();
            let (stop, stopped) = oneshot::channel();
            let open = Arc::new(AtomicUsize::new(0));
            let work = work(accepted, jobs, stopped, open.clone(), service.clone());
            let work = async move {
                work.await;
                // There may be no receiver any more.
                let _ = finished.send(());
            };
            if threads {
                let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
                thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                    set_worker(index);
                    runtime.block_on(work);
                })?;
            } else {
                tokio::spawn(work);
            }
            workers.handles.push(WorkerHandle { connections, open });
            workers.done.push(done);
            workers.stops.push(stop);
        }
        Ok(workers)
    }

    /// The handle through which the acceptor gives connections to the workers.
    pub(super) fn dispatcher(&self) -> Dispatcher {
        Dispatcher(self.handles.clone())
    }

    /// Waits until every connection has ended. No further ones are taken once the acceptor's
    /// dispatcher is gone too.
    pub(super) async fn finish(&mut self) {
        self.handles.clear();
        for done in &mut self.done {
            // A worker that is gone has no connections either.
            let _ = done.await;
        }
    }
}

impl Dispatcher {
    /// Gives a connection to the worker that has the fewest.
    pub(super) async fn give(&self, accepted: Accepted) {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.open.load(Relaxed)) else { return };
        worker.open.fetch_add(1, Relaxed);
        if worker.connections.send(accepted).await.is_err() {
            error!("a worker is gone");
        }
    }
}

async fn work(
    mut accepted: mpsc::Receiver<Accepted>,
    mut jobs: mpsc::Receiver<Job>,
    mut stopped: oneshot::Receiver<()>,
    open: Arc<AtomicUsize>,
    service: Service,
) {
    let mut connections = JoinSet::new();
    let mut accepting = true;
    while accepting || !connections.is_empty() {
        // All arms are cancel-safe. A connection that has ended is dealt with before another is
        // taken.
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                open.fetch_sub(1, Relaxed);
                // A connection that had to make room for another was cancelled.
                if let Some(error) = ended.err().filter(|error| !error.is_cancelled()) {
                    error!(%error, "a connection's task panicked");
                }
            }
            // A closed job channel brings no more jobs, and none is missed.
            Some(job) = jobs.recv() => job(),
            given = accepted.recv(), if accepting => match given {
                None => accepting = false,
                Some(Accepted { incoming, peer, caller, place }) => match incoming.open() {
                    Ok(io) => {
                        let seated = place.seated();
                        seated.ends_with(connections.spawn(service.clone().serve(io, peer, caller, place)));
                    }
                    Err(error) => {
                        open.fetch_sub(1, Relaxed);
                        debug!(%error, "a connection was lost before it was served");
                    }
                },
            },
        }
    }
}
