//! What unit tests of this crate share: small values, and a controller that answers as a test tells it to.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use address_map::attr::{Attr, FileKind, Timestamp};
use address_map::error::Refusal;
use address_map::ids::NodeId;
use address_map::name::Name;
use address_map::wire::{
    Answer, Call, FrameSocket, Lease, PROTOCOL_MAX, SessionOptions, ToController, ToVmds, Welcome,
};

use crate::data::fd::Held;
use crate::fs::Fs;
use crate::link::{Link, LinkLimits};
use crate::notices::Notices;

/// A name.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// Attributes of a file of `size` bytes.
pub(crate) fn file_attr(size: u64) -> Attr {
    let time = Timestamp::new(1_000, 0);
    Attr {
        kind: FileKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size,
        blocks: size.div_ceil(512),
        rdev: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        has_xattrs: false,
        volatile: false,
    }
}

/// A file with these bytes.
pub(crate) fn file(bytes: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.into()
}

/// A leased descriptor of a file with these bytes.
pub(crate) fn held(bytes: &[u8], write: bool) -> Held {
    Held::new(
        file(bytes),
        Lease { write, backing: None, floating: false, remote: false, alone: true, near: None },
    )
}

/// A leased descriptor of an empty file.
pub(crate) fn held_as(write: bool, backing: Option<u32>) -> Held {
    Held::new(file(b""), Lease { write, backing, floating: false, remote: false, alone: true, near: None })
}

/// The controller's end of a connection.
pub(crate) struct FakeController {
    socket: FrameSocket,
}

impl FakeController {
    /// An open session, without anybody receiving on it.
    pub(crate) fn open_link() -> (Arc<Link>, FrameSocket) {
        let (link, _, socket) = Self::greet(LinkLimits::default(), Self::options());
        (Arc::new(link), socket)
    }

    /// How tests want their mounts.
    pub(crate) fn options() -> SessionOptions {
        SessionOptions {
            ttl_ms: 60_000,
            cache_entries: 1024,
            buffer_bytes: 1 << 24,
            leases_max: 16,
            metered: false,
            pool_timeout_ms: 60_000,
        }
    }

    /// Opens a session over a new pair of sockets.
    pub(crate) fn greet(limits: LinkLimits, options: SessionOptions) -> (Link, Welcome, FrameSocket) {
        let (near, far) = FrameSocket::pair().unwrap();
        // Both fit into the socket's buffer, so one thread can play both sides.
        far.send(
            &ToVmds::Welcome(Welcome {
                protocol: PROTOCOL_MAX,
                tenant: "test".into(),
                generation: 1,
                options,
            }),
            None,
        )
        .unwrap();
        let (link, welcome) = Link::open(near, None, limits).unwrap();
        let (hello, _) = far.receive::<ToController>(&mut Vec::new()).unwrap().unwrap();
        assert!(matches!(hello, ToController::Hello(_)));
        (link, welcome, far)
    }

    /// A file system and the controller it asks. The thread that receives ends with the controller.
    pub(crate) fn with_fs(limits: LinkLimits, options: SessionOptions) -> (Arc<Fs>, Self) {
        let (link, welcome, socket) = Self::greet(limits, options);
        let link = Arc::new(link);
        // Nobody tells a kernel anything: fences with notices stay open, those without are answered.
        let fs = Fs::new(Arc::clone(&link), Arc::new(Notices::default()), &welcome, 1024);
        let events = Arc::clone(&fs);
        std::thread::spawn(move || link.receive(|event| events.on_event(event), Vec::new));
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(Duration::from_secs(10)),
        )
        .unwrap();
        (fs, Self { socket })
    }

    /// The next message.
    pub(crate) fn next(&self) -> ToController {
        self.socket.receive(&mut Vec::new()).unwrap().expect("the VMDS is there").0
    }

    /// The next message, which is a request.
    pub(crate) fn next_call(&self) -> (u64, Call) {
        match self.next() {
            ToController::Request { id, call } | ToController::Change { id, call, .. } => (id, call),
            other => panic!("not a request: {other:?}"),
        }
    }

    /// Whether a message has come that nobody has looked at.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut buffer = [0; 1];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        rustix::net::recv(&self.socket, &mut buffer, flags).is_err()
    }

    /// Sends a message.
    pub(crate) fn say(&self, message: &ToVmds) {
        self.socket.send(message, None).unwrap();
    }

    /// Answers a request.
    pub(crate) fn answer(&self, id: u64, answer: Answer) {
        self.say(&ToVmds::Reply { id, result: Ok(answer) });
    }

    /// Refuses a request.
    pub(crate) fn refuse(&self, id: u64, refusal: Refusal) {
        self.say(&ToVmds::Reply { id, result: Err(refusal) });
    }

    /// Answers a request and passes a descriptor along.
    pub(crate) fn answer_with(&self, id: u64, answer: Answer, file: &OwnedFd) {
        self.socket.send(&ToVmds::Reply { id, result: Ok(answer) }, Some(file.as_fd())).unwrap();
    }

    /// Answers a request for a lease.
    pub(crate) fn lease(&self, id: u64, attr: Attr, lease: Lease, file: &OwnedFd) {
        self.answer_with(id, Answer::Leased { attr, lease }, file);
    }

    /// Waits until everything said so far has been heard: a request is sent and answered.
    pub(crate) fn settle(&self, fs: &Arc<Fs>) {
        let (done, heard) = std::sync::mpsc::channel();
        fs.statfs(NodeId::ROOT, move |_| done.send(()).unwrap());
        let (id, call) = self.next_call();
        assert!(matches!(call, Call::Statfs { .. }), "{call:?}");
        self.refuse(id, Refusal::Io);
        heard.recv().unwrap();
    }
}
