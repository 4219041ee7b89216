//! A connection that falls silent while its node hangs.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

use super::{fault::Faults, node::Node};
use crate::net::{BoxFuture, BoxIo};

/// Reads go through; writes wait while the node hangs. A write that waited fails when the hang
/// ends, so that a connection that was owed an answer is dropped.
pub(super) struct HangingIo {
    io: BoxIo,
    faults: watch::Receiver<Arc<Faults>>,
    thaw: Option<BoxFuture<'static, ()>>,
    broken: bool,
}

impl HangingIo {
    pub(super) fn new(io: BoxIo, node: &Node) -> Self {
        Self { io, faults: node.watch_faults(), thaw: None, broken: false }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.thaw.is_none() && self.faults.borrow().hang() {
            let mut faults = self.faults.clone();
            self.thaw = Some(Box::pin(async move {
                // An error means that the node is gone: the connection is, too.
                let _ = faults.wait_for(|faults| !faults.hang()).await;
            }));
        }
        if let Some(thaw) = &mut self.thaw {
            ready!(thaw.as_mut().poll(cx));
            self.thaw = None;
            self.broken = true;
        }
        let result = if self.broken { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) };
        Poll::Ready(result)
    }
}

impl AsyncRead for HangingIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for HangingIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
