//! The socket of the API: open to all users of this host, each known by its uid, none able to crowd out the others.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

use super::Caller;

/// Most connections of one user at a time. The operator has no bound of its own.
const CONNECTIONS_PER_USER: u32 = 64;
/// Most connections of all users but the operator at a time.
const CONNECTIONS: u32 = 1024;
/// Pause after a failure to accept, such as too many open files.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Opens the socket, replacing one that a controller left behind when it died. The caller holds the lock that says
/// that no other controller is running.
///
/// # Errors
/// The socket cannot be made.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// How many connections each user has.
#[derive(Default)]
struct Counts(Mutex<HashMap<u32, u32>>);

impl Counts {
    /// Counts one more connection of a user, unless that is too many.
    fn enter(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut counts = self.0.lock();
        let all: u32 = counts.iter().filter(|(user, _)| **user != 0).map(|(_, count)| count).sum();
        let own = counts.get(&uid).copied().unwrap_or(0);
        if uid != 0 && (own >= CONNECTIONS_PER_USER || all >= CONNECTIONS) {
            return None;
        }
        counts.insert(uid, own + 1);
        Some(Place { counts: Arc::clone(self), uid })
    }
}

/// One connection's place; free again when dropped.
struct Place {
    counts: Arc<Counts>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// A listener that knows who calls.
pub struct PeerListener {
    listener: UnixListener,
    counts: Arc<Counts>,
}

impl PeerListener {
    /// A listener on an open socket.
    pub fn new(listener: UnixListener) -> Self {
        Self { listener, counts: Arc::default() }
    }
}

impl Listener for PeerListener {
    type Io = PeerStream;
    type Addr = Caller;

    async fn accept(&mut self) -> (PeerStream, Caller) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the API was not accepted");
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                    continue;
                }
            };
            let Ok(credentials) = stream.peer_cred() else { continue };
            let uid = credentials.uid();
            match self.counts.enter(uid) {
                Some(place) => return (PeerStream { stream, _place: place }, Caller { uid }),
                None => tracing::warn!(uid, "a user has too many connections to the API; one was closed"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(Caller { uid: rustix::process::geteuid().as_raw() })
    }
}

impl Connected<IncomingStream<'_, PeerListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, PeerListener>) -> Self {
        *stream.remote_addr()
    }
}

/// A connection.
pub struct PeerStream {
    stream: UnixStream,
    _place: Place,
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_can_take_all_places() {
        let counts = Arc::new(Counts::default());
        let mut places: Vec<_> = (0..CONNECTIONS_PER_USER).filter_map(|_| counts.enter(1000)).collect();
        assert_eq!(places.len(), CONNECTIONS_PER_USER as usize);
        assert!(counts.enter(1000).is_none());
        assert!(counts.enter(0).is_some() && counts.enter(2000).is_some());
        places.pop();
        assert!(counts.enter(1000).is_some());
        drop(places);
        assert!(counts.0.lock().is_empty());
    }

    #[test]
    fn all_users_together_cannot_crowd_out_the_operator() {
        let counts = Arc::new(Counts::default());
        let users = 1000..1000 + CONNECTIONS / CONNECTIONS_PER_USER;
        let places: Vec<_> = users
            .flat_map(|uid| std::iter::repeat_n(uid, CONNECTIONS_PER_USER as usize))
            .map(|u| counts.enter(u))
            .collect();
        assert!(places.iter().all(Option::is_some));
        assert!(counts.enter(5000).is_none() && counts.enter(0).is_some());
    }
}
