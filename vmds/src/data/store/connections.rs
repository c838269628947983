//! Connections to one object store: made by the controller, used again as long as they stand.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use address_map::ids::NodeId;
use address_map::wire::{Answer, Call};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::fetch::FetchError;
use crate::link::Link;

/// Most connections to one object store.
const CONNECTIONS_MAX: usize = 16;

type Sender = SendRequest<Empty<Bytes>>;

/// See the module.
pub(super) struct Connections {
    link: Arc<Link>,
    idle: Mutex<Vec<Sender>>,
    room: Arc<Semaphore>,
}

/// A connection that nobody else uses now.
pub(super) struct Connection {
    pub(super) sender: Sender,
    of: Arc<Connections>,
    _room: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, idle: Mutex::default(), room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// A connection to the store that has the bytes of `node`; waits while all are in use.
    pub(super) async fn get(self: &Arc<Self>, node: NodeId) -> Result<Connection, FetchError> {
        let lost = |_| FetchError::Connection("the process ends".into());
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(lost)?;
        let sender = match self.take_idle() {
            Some(sender) => sender,
            None => self.connect(node).await?,
        };
        Ok(Connection { sender, of: Arc::clone(self), _room: room })
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock();
        // The youngest is the likeliest to stand.
        std::iter::from_fn(|| idle.pop()).find(|sender| !sender.is_closed())
    }

    async fn connect(&self, node: NodeId) -> Result<Sender, FetchError> {
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
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| FetchError::Connection(error);
        let stream = TcpStream::from_std(socket.into()).map_err(|error| failed(error.into()))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.into()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
            }
        });
        Ok(sender)
    }
}

impl Connection {
    /// The answer was read to its end: somebody else can use the connection.
    pub(super) fn give_back(self) {
        if !self.sender.is_closed() {
            self.of.idle.lock().push(self.sender);
        }
    }
}
