//! Connections to the endpoint, for VMDSes: they have no network of their own.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

use super::S3Pool;

/// Longest wait for one, looking up the name included.
const WITHIN: Duration = Duration::from_secs(5);
/// A connection that is silent for this long is asked whether it still lives.
const SILENT: Duration = Duration::from_secs(30);

impl S3Pool {
    /// A new connection to the endpoint, bare TCP: non-blocking, without delay, kept alive.
    ///
    /// # Errors
    /// The endpoint's name cannot be resolved, or nobody answers there in time.
    pub async fn connect(&self) -> io::Result<std::net::TcpStream> {
        let stream = self.connect_async().await?.into_std()?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, SILENT)?;
        Ok(stream)
    }

    /// The same, to be used here.
    pub(super) async fn connect_async(&self) -> io::Result<TcpStream> {
        let endpoint = &self.settings.endpoint;
        let connecting = TcpStream::connect((endpoint.name.as_str(), endpoint.port));
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "the endpoint does not answer"));
        let within = WITHIN.min(self.settings.patience);
        let stream = tokio::time::timeout(within, connecting).await.unwrap_or_else(late)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
