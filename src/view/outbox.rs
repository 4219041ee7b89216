//! Subscriptions to a transaction that the outbox keeps: its transitions, each once.

use std::sync::Arc;

use tokio::{sync::mpsc, task::JoinSet};

use super::mailbox::{Closing, Mailbox};

/// Puts the transitions into the mailbox, until the set is dropped. A client that misses some is
/// closed behind those that it got, so that no client believes to have them all.
pub(super) fn tell(mut transitions: mpsc::Receiver<Arc<str>>, head: Arc<str>, mailbox: Arc<Mailbox>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        while let Some(transition) = transitions.recv().await {
            if !mailbox.push_notifications(&head, &[transition]) {
                return;
            }
        }
        mailbox.close(Closing::Gap);
    });
    task
}
