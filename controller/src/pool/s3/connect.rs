//! Connections to the endpoint, for VMDSes: they have no network of their own.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::{Relays, S3Error, S3Pool, relay};

/// Longest wait for one, looking up the name and greeting included.
const WITHIN: Duration = Duration::from_secs(5);
/// A connection that is silent for this long is asked whether it still lives.
const SILENT: Duration = Duration::from_secs(30);

/// What HTTP is spoken on.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl S3Pool {
    /// A new connection to the endpoint for a VMDS: a stream socket on which plain HTTP is spoken, non-blocking. It is
    /// TCP's own, without delay and kept alive, or where the endpoint speaks TLS, one end of a relay of `relays`.
    ///
    /// # Errors
    /// The endpoint's name cannot be resolved, nobody answers there in time, it is not who it should be, or the session
    /// has too many relays. Must be called on a runtime.
    pub async fn connect(&self, relays: &Relays) -> Result<OwnedFd, S3Error> {
        let Some(tls) = &self.tls else {
            return Ok(self.in_time(self.dial()).await?.into_std().map_err(unavailable)?.into());
        };
        let place = relays.place()?;
        let endpoint = self.in_time(async { tls.greet(self.dial().await?).await }).await?;
        relay::start(endpoint, place).map_err(unavailable)
    }

    /// A new connection to be used here.
    pub(super) async fn connect_here(&self) -> Result<Box<dyn Stream>, S3Error> {
        self.in_time(async {
            let stream = self.dial().await?;
            Ok(match &self.tls {
                Some(tls) => Box::new(tls.greet(stream).await?) as Box<dyn Stream>,
                None => Box::new(stream),
            })
        })
        .await
    }

    async fn in_time<T>(&self, connecting: impl Future<Output = Result<T, S3Error>>) -> Result<T, S3Error> {
        let within = WITHIN.min(self.settings.patience);
        tokio::time::timeout(within, connecting).await.unwrap_or(Err(S3Error::Timeout))
    }

    async fn dial(&self) -> Result<TcpStream, S3Error> {
        let endpoint = &self.settings.endpoint;
        let connected = TcpStream::connect((endpoint.name.as_str(), endpoint.port)).await;
        let stream = connected.and_then(|stream| {
            stream.set_nodelay(true)?;
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, SILENT)?;
            Ok(stream)
        });
        stream.map_err(unavailable)
    }
}

fn unavailable(error: io::Error) -> S3Error {
    match error.kind() {
        io::ErrorKind::TimedOut => S3Error::Timeout,
        kind => S3Error::Unavailable(kind.to_string()),
    }
}
