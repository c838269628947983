//! The server: its thread, its port and its connections.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::service::S3ServiceBuilder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::access::Users;
use super::bucket::S3Bucket;
use super::faults::Faults;
use super::front::Front;
use super::options::{S3Options, User};
use super::record::{Log, Recorded, RequestKind};
use super::service::Service;
use super::store::Store;
use super::wire::{Cut, Wire};

/// The region that signatures must name; the server takes any.
const REGION: &str = "us-east-1";
/// How long the server waits, at its end, for what still runs.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// How long the server waits after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// A running server on a port of its own on 127.0.0.1. Dropping it ends all connections and its threads.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    scheme: &'static str,
    state: State,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the server and the test share.
struct State {
    store: Arc<Store>,
    users: Users,
    faults: Faults,
    log: Log,
}

impl S3Server {
    /// Starts a server, which accepts connections when this returns.
    ///
    /// # Panics
    /// If no thread or no port is to be had.
    #[must_use]
    pub fn start(options: S3Options) -> Self {
        let store = Arc::new(Store::new(options.buckets, options.min_part_size, options.md5_etags));
        let users = Users::new(options.users);
        let state = State { store, users, faults: Faults::default(), log: Log::default() };
        let front = Arc::new(state.front());
        let tls = options.tls.map(|tls| TlsAcceptor::from(tls.0));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.threads)
            .thread_name("s3-server")
            .enable_all()
            .build()
            .expect("start the threads of the S3 server");
        // Bound without the runtime, as a caller may be on one of its own.
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.expect("bind the port of the S3 server");
        let address = listener.local_addr().expect("the port of the S3 server");
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || run(runtime, listener, front, tls, stopped));
        Self { address, scheme, state, stop: Some(stop), thread: Some(thread) }
    }

    /// Starts a server with one bucket and one user, `root` with the secret `root-secret`, who may do everything.
    #[must_use]
    pub fn with_bucket(name: &str) -> Self {
        Self::start(S3Options::new().bucket(name).user(User::new("root", "root-secret").may_do_all()))
    }

    /// Where clients find it: `http://127.0.0.1:PORT`, or `https` with TLS. Requests must be in path style.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A region to sign for; every other would do as well.
    #[must_use]
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// A bucket, for the test to look into.
    ///
    /// # Panics
    /// If the server was started without it.
    #[must_use]
    #[track_caller]
    pub fn bucket(&self, name: &str) -> S3Bucket {
        S3Bucket::of(&self.state.store, name).unwrap_or_else(|| panic!("no bucket {name}"))
    }

    /// The faults of this server.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.state.faults
    }

    /// Adds a user, or replaces who has the same access key, for requests that arrive from now on.
    pub fn set_user(&self, user: User) {
        self.state.users.set(user);
    }

    /// Removes a user: what they signed, URLs too, is refused from now on.
    pub fn remove_user(&self, access_key: &str) {
        self.state.users.remove(access_key);
    }

    /// All requests so far in the order of their arrival; the latest 100,000 if there were more.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.log.requests()
    }

    /// The requests of one kind, in the order of their arrival.
    #[must_use]
    pub fn requests_of(&self, kind: RequestKind) -> Vec<Recorded> {
        self.requests().into_iter().filter(|request| request.kind == kind).collect()
    }

    /// How many requests of a kind arrived, also such that were refused or met a fault.
    #[must_use]
    pub fn count(&self, kind: RequestKind) -> u64 {
        self.state.log.count(kind)
    }

    /// Forgets all requests so far, and counts from zero again.
    pub fn forget_requests(&self) {
        self.state.log.forget();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the S3 server panicked");
        }
    }
}

impl State {
    /// The layers of the server, from the signature inwards.
    fn front(&self) -> Front {
        let service = Service { store: Arc::clone(&self.store), users: self.users.clone() };
        let mut builder = S3ServiceBuilder::new(service);
        builder.set_auth(self.users.clone());
        builder.set_access(self.users.clone());
        Front { service: builder.build(), faults: self.faults.clone(), log: self.log.clone() }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("faults", &self.faults).finish_non_exhaustive()
    }
}

/// Accepts connections until the test drops its end of `stopped`, then ends them all.
fn run(
    runtime: Runtime,
    listener: std::net::TcpListener,
    front: Arc<Front>,
    tls: Option<TlsAcceptor>,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a socket of the runtime");
        let listener = TcpListener::from_std(listener).expect("a socket of the runtime");
        tokio::select! {
            never = accept(listener, front, tls) => match never {},
            _ = stopped => {}
        }
    });
    runtime.shutdown_timeout(STOP_WITHIN);
}

async fn accept(listener: TcpListener, front: Arc<Front>, tls: Option<TlsAcceptor>) -> Infallible {
    let mut connection = 0;
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                connection += 1;
                tokio::spawn(serve(socket, connection, Arc::clone(&front), tls.clone()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
        }
    }
}

/// Serves a connection to its end. How it ends is the client's affair, or a fault's.
async fn serve(socket: TcpStream, connection: u64, front: Arc<Front>, tls: Option<TlsAcceptor>) {
    // Without this, every answer in two writes would wait for the client's delayed acknowledgement.
    let _ = socket.set_nodelay(true);
    let cut = Arc::new(Cut::default());
    let wire = Wire::new(socket, Arc::clone(&cut));
    match tls {
        None => serve_http(wire, connection, front, cut).await,
        Some(tls) => {
            if let Ok(wire) = tls.accept(wire).await {
                serve_http(wire, connection, front, cut).await;
            }
        }
    }
}

async fn serve_http(
    wire: impl AsyncRead + AsyncWrite + Unpin,
    connection: u64,
    front: Arc<Front>,
    cut: Arc<Cut>,
) {
    let service = service_fn(|request| front.serve(request, connection, Arc::clone(&cut)));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(wire), service).await;
}
