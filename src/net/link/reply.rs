//! The answer that is owed to a caller: exactly one, by `Drop`.

use tokio::sync::oneshot;

use super::Error;

/// Where the answer goes. Dropped without one, it tells that the call was not sent, or that it is
/// lost.
pub(super) struct Reply<T> {
    to: Option<oneshot::Sender<Result<T, Error>>>,
    written: bool,
}

impl<T> Reply<T> {
    pub(super) fn new() -> (Self, oneshot::Receiver<Result<T, Error>>) {
        let (to, answer) = oneshot::channel();
        (Self { to: Some(to), written: false }, answer)
    }

    /// Whether the caller is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.to.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// From now on the node may have it.
    pub(super) fn written(&mut self) {
        self.written = true;
    }

    pub(super) fn answer(mut self, answer: T) {
        self.send(Ok(answer));
    }

    fn send(&mut self, answer: Result<T, Error>) {
        if let Some(to) = self.to.take() {
            // The caller may have left.
            let _ = to.send(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let error = if self.written { Error::Lost } else { Error::NotSent };
        self.send(Err(error));
    }
}
