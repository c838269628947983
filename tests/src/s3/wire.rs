//! A connection that can be cut: closed or reset by the server, at the very byte a fault names.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How a connection is to end, said by who serves its requests.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// The connection ends as soon as everything that was to be written is with the kernel.
    after_flush: AtomicBool,
    /// It ends with a reset instead of a close.
    reset: AtomicBool,
}

impl Cut {
    /// Ends the connection once all that was written so far is sent. The caller must write nothing more.
    pub(super) fn after_flush(&self) {
        self.after_flush.store(true, Ordering::Relaxed);
    }

    /// Makes the end of the connection, whenever it comes, a reset.
    pub(super) fn with_reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

/// The socket of a connection, under HTTP.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    cut: Arc<Cut>,
}

impl Wire {
    pub(super) fn new(socket: TcpStream, cut: Arc<Cut>) -> Self {
        Self { socket, cut }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.cut.reset.load(Ordering::Relaxed) {
            // A socket that lingers for no time is reset when it is closed.
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// HTTP flushes when it has written all it had, and at no other time: the place to cut at an exact byte.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut.after_flush.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
