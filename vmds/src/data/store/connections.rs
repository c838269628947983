//! Connections to one object store: made by the controller, used again as long as they stand.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use address_map::ids::NodeId;
use address_map::wire::{Answer, Call};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::AbortHandle;

use super::fetch::FetchError;
use super::hedge::Hedge;
use crate::link::Link;

/// Most connections to one object store.
const CONNECTIONS_MAX: usize = 16;

/// What is taken from a socket at once, bytes. It is copied on at once, while a processor's cache still has it; larger
/// reads cost more there than they save in system calls.
const READ_AT_ONCE: usize = 128 * 1024;

/// A connection as it is kept.
struct Open {
    sender: SendRequest<Empty<Bytes>>,
    /// Ends it.
    driver: AbortHandle,
}

/// See the module.
pub(super) struct Connections {
    link: Arc<Link>,
    idle: Mutex<Vec<Open>>,
    room: Arc<Semaphore>,
    /// When to ask a second time.
    pub(super) hedge: Hedge,
}

/// A connection that nobody else uses now. It ends with this, unless it is given back.
pub(super) struct Connection {
    open: Option<Open>,
    of: Arc<Connections>,
    _room: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { link, idle: Mutex::default(), room, hedge: Hedge::default() }
    }

    /// Whether one more connection can be had without waiting for one to be given back.
    pub(super) fn has_room(&self) -> bool {
        self.room.available_permits() > 0
    }

    /// A connection to the store that has the bytes of `node`; waits while all are in use.
    pub(super) async fn get(self: &Arc<Self>, node: NodeId) -> Result<Connection, FetchError> {
        let lost = |_| FetchError::Connection("the process ends".into());
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(lost)?;
        let open = match self.take_idle() {
            Some(open) => open,
            None => self.connect(node).await?,
        };
        Ok(Connection { open: Some(open), of: Arc::clone(self), _room: room })
    }

    fn take_idle(&self) -> Option<Open> {
        let mut idle = self.idle.lock();
        // The youngest is the likeliest to stand.
        std::iter::from_fn(|| idle.pop()).find(|open| !open.sender.is_closed())
    }

    async fn connect(&self, node: NodeId) -> Result<Open, FetchError> {
        let (answer, answered) = oneshot::channel();
        self.link.call(Call::Connect { node }, |outcome| {
            // Whoever asked may have given up.
            let _ = answer.send(outcome);
        });
        let socket: OwnedFd = match answered.await {
            Ok(Ok((Answer::Connected, Some(socket)))) => socket,
            Ok(Err(refusal)) => return Err(FetchError::Refused(refusal)),
            Ok(Ok(_)) | Err(_) => return Err(FetchError::Connection("the controller gave none".into())),
        };
        let broken = |error: std::io::Error| FetchError::Connection(error.into());
        // TCP's own, or one end of a pair whose other end the controller encrypts.
        if socket_domain(&socket).map_err(|error| broken(error.into()))? == AddressFamily::UNIX {
            speak(UnixStream::from_std(StdUnixStream::from(socket)).map_err(broken)?).await
        } else {
            speak(TcpStream::from_std(socket.into()).map_err(broken)?).await
        }
    }
}

/// Begins to speak HTTP.
async fn speak<S>(stream: S) -> Result<Open, FetchError>
where
    TokioIo<S>: Read + Write + Unpin + Send + 'static,
{
    let begun = http1::Builder::new().max_buf_size(READ_AT_ONCE).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = begun.map_err(|error| FetchError::Connection(error.into()))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
        }
    });
    Ok(Open { sender, driver: driver.abort_handle() })
}

impl Connection {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn ask(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, FetchError> {
        let lost = || FetchError::Connection("the connection was given back".into());
        let sender = &mut self.open.as_mut().ok_or_else(lost)?.sender;
        let asked = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        asked.await.map_err(|error| FetchError::Connection(error.into()))
    }

    /// The answer was read to its end: somebody else can use the connection.
    pub(super) fn give_back(mut self) {
        if let Some(open) = self.open.take().filter(|open| !open.sender.is_closed()) {
            self.of.idle.lock().push(open);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.driver.abort();
        }
    }
}
