//! Connections of VMDSes to an endpoint that speaks TLS. A VMDS gets one end of a pair of sockets and speaks plain HTTP
//! on it; what it says is encrypted here, and what the endpoint answers is decrypted.
//!
//! Nothing of what passes is looked at or kept. A relay serves one VMDS and has a TLS connection of its own, so nobody's
//! words can run into another one's. It ends when either end closes, and when nothing has passed for a while.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::S3Error;

/// Most relays of one session: a VMDS uses 16 connections to a pool, and rarely more than one pool at a time.
const RELAYS_MAX: usize = 32;
/// Bytes on their way to the endpoint: requests without a body.
const TO_ENDPOINT: usize = 8 * 1024;
/// Bytes on their way to the VMDS.
const TO_VMDS: usize = 64 * 1024;
/// How long nothing may pass.
const IDLE: Duration = Duration::from_secs(60);

/// The relays of one session.
#[derive(Clone, Debug)]
pub struct Relays(Arc<Semaphore>);

impl Default for Relays {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(RELAYS_MAX)))
    }
}

impl Relays {
    /// A place for one more.
    ///
    /// # Errors
    /// [`S3Error::TooMany`]
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, S3Error> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| S3Error::TooMany)
    }
}

/// Starts a relay to `endpoint` and answers the VMDS's end: non-blocking. `place` is given back when it ends.
pub(super) fn start(
    endpoint: impl AsyncRead + AsyncWrite + Send + 'static,
    place: OwnedSemaphorePermit,
) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    tokio::spawn(async move {
        relay(ours, endpoint).await;
        drop(place);
    });
    Ok(theirs.into_std()?.into())
}

async fn relay(vmds: impl AsyncRead + AsyncWrite, endpoint: impl AsyncRead + AsyncWrite) {
    let (from_vmds, to_vmds) = split(vmds);
    let (from_endpoint, to_endpoint) = split(endpoint);
    let traffic = Traffic::default();
    // Whichever ends, all of it ends: whoever waits for the rest of an answer sees the connection close.
    let why = tokio::select! {
        ended = pump(from_vmds, to_endpoint, TO_ENDPOINT, &traffic) => ended,
        ended = pump(from_endpoint, to_vmds, TO_VMDS, &traffic) => ended,
        () = traffic.ceased() => Ok(()),
    };
    if let Err(error) = why {
        tracing::debug!(error = &error as &dyn std::error::Error, "a relay broke");
    }
}

/// Moves bytes until there are no more; each is on its way before more are taken.
async fn pump(
    from: impl AsyncRead,
    to: impl AsyncWrite,
    at_once: usize,
    traffic: &Traffic,
) -> io::Result<()> {
    let (mut from, mut to) = (std::pin::pin!(from), std::pin::pin!(to));
    let mut buffer = vec![0; at_once];
    loop {
        let bytes = match from.read(&mut buffer).await? {
            0 => return Ok(()),
            read => &buffer[..read],
        };
        traffic.passes();
        to.write_all(bytes).await?;
        // TLS keeps what does not fill a record.
        to.flush().await?;
        traffic.passes();
    }
}

/// When something passed last.
struct Traffic {
    begun: Instant,
    last_ms: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Traffic {
    fn passes(&self) {
        self.last_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until nothing has passed for a while.
    async fn ceased(&self) {
        loop {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let quiet = self.begun.elapsed().saturating_sub(last);
            match IDLE.checked_sub(quiet) {
                None | Some(Duration::ZERO) => return,
                Some(rest) => sleep(rest).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_said_on_one_side_is_heard_on_the_other_until_one_closes() {
        let ((mut vmds, near), (far, mut endpoint)) = (duplex(16), duplex(16));
        let relay = tokio::spawn(relay(near, far));
        let request = vec![b'q'; 100_000];
        let (sent, heard) = (request.clone(), request.len());
        let asking = tokio::spawn(async move {
            vmds.write_all(&sent).await.unwrap();
            let mut answer = Vec::new();
            vmds.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut asked = vec![0; heard];
        endpoint.read_exact(&mut asked).await.unwrap();
        assert!(asked == request);
        endpoint.write_all(b"half of an answer").await.unwrap();
        drop(endpoint);
        assert_eq!(asking.await.unwrap(), b"half of an answer");
        relay.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_on_which_nothing_passes_ends_and_gives_its_place_back() {
        let relays = Relays::default();
        let (far, mut endpoint) = duplex(16);
        let held: Vec<_> = (1..RELAYS_MAX).map(|_| relays.place().unwrap()).collect();
        let begun = Instant::now();
        let _vmds = start(far, relays.place().unwrap()).unwrap();
        assert!(matches!(relays.place(), Err(S3Error::TooMany)));
        sleep(IDLE / 2).await;
        endpoint.write_all(b"x").await.unwrap();
        let mut rest = Vec::new();
        endpoint.read_to_end(&mut rest).await.unwrap();
        assert!(begun.elapsed() >= IDLE * 3 / 2, "what passes keeps it going");
        tokio::task::yield_now().await;
        assert!(relays.place().is_ok());
        drop(held);
    }
}
