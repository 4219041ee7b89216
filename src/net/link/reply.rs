//! The answer that is owed to a caller: exactly one, by `Drop`.

use tokio::sync::oneshot;

use super::Error;

/// Sends the answer to the caller. A reply that is dropped without an answer reports `NotSent`, or
/// `Lost` if the call was written.
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

    /// Notes that the node may have the call from now on.
    pub(super) fn written(&mut self) {
        self.written = true;
    }

    pub(super) fn answer(mut self, answer: T) {
        self.send(Ok(answer));
    }

    pub(super) fn fail(mut self, error: Error) {
        self.send(Err(error));
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
