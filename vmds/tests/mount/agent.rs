//! The agent's part: owns the FUSE device, starts VMDSes, and cleans up whatever happens.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use address_map::wire::{
    AtDoor, FrameSocket, PROTOCOL_MAX, SessionOptions, Stale, ToController, ToVmds, Welcome,
};
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::tree::{Register, Tree};

/// Longest time a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The user as which VMDSes run here: nobody else's.
const VMDS_UID: &str = "1900000000";

/// A mount with its VMDS and the tree behind it.
pub(crate) struct Mounted {
    pub(crate) tree: Arc<Mutex<Tree>>,
    dir: tempfile::TempDir,
    _pool: tempfile::TempDir,
    device: Arc<OwnedFd>,
    init: Vec<u8>,
    init_reply: Option<Vec<u8>>,
    options: SessionOptions,
    generation: u32,
    vmds: Option<Child>,
    control: Option<Arc<FrameSocket>>,
    door: Option<FrameSocket>,
    forgotten: Option<mpsc::Receiver<u64>>,
    /// Dropped when the test is over, which ends the watchdog.
    over: Option<mpsc::Sender<()>>,
}

/// Whether this machine lets tests mount; says why not otherwise.
pub(crate) fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("skipped: mounting needs root and /dev/fuse");
    }
    can
}

impl Mounted {
    pub(crate) fn new(passthrough: bool, options: SessionOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pool = tempfile::tempdir().unwrap();
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&device);
        let data = format!("fd={fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other");
        let data = std::ffi::CString::new(data).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(c"vmds#test", dir.path(), c"fuse.vmds", flags, Some(&*data)).unwrap();
        let over = watch(dir.path());
        let device = Arc::new(device);
        let kernel = Arc::clone(&device);
        let register = move |file: &std::fs::File| fuser::BackingId::create_raw(&*kernel, file).ok();
        let register = passthrough.then(|| Box::new(register) as Register);
        let tree = Arc::new(Mutex::new(Tree::new(pool.path().into(), register)));
        let mut init = vec![0; 2 << 20];
        let length = rustix::io::read(&device, &mut init).unwrap();
        init.truncate(length);
        let mut mounted = Self {
            tree,
            dir,
            _pool: pool,
            device,
            init,
            init_reply: None,
            options,
            generation: 0,
            vmds: None,
            control: None,
            door: None,
            forgotten: None,
            over: Some(over),
        };
        mounted.start();
        mounted
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the next generation.
    fn start(&mut self) {
        self.generation += 1;
        let pair =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (handshake, inherited) = pair.unwrap();
        rustix::net::send(&handshake, &self.init, SendFlags::empty()).unwrap();
        let (control, inherited_control) = FrameSocket::pair().unwrap();
        let (outside, door) = FrameSocket::pair().unwrap();
        let device = self.device.as_fd().try_clone_to_owned().unwrap();
        let kept = outside.as_fd().try_clone_to_owned().unwrap();
        let mappings = [device, inherited, inherited_control.into(), door.into(), kept]
            .into_iter()
            .zip(3..)
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
            .collect();
        self.door = Some(outside);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmds"));
        command.args(["--log", &std::env::var("VMDS_TEST_LOG").unwrap_or("warn".into())]);
        command.args(["--uid", VMDS_UID]);
        command.env_clear().fd_mappings(mappings).unwrap();
        self.vmds = Some(command.spawn().unwrap());
        drop(command);

        self.talk(control);
        let mut reply = vec![0; 4096];
        let (length, _) = rustix::net::recv(&handshake, &mut reply, RecvFlags::empty()).unwrap();
        reply.truncate(length);
        match &self.init_reply {
            None => {
                rustix::io::write(&*self.device, &reply).unwrap();
                self.init_reply = Some(reply);
            }
            Some(first) => assert_eq!(first, &reply, "every generation answers INIT alike"),
        }
        rustix::net::send(&handshake, &[1], SendFlags::empty()).unwrap();
    }

    /// Answers on a link, until it is closed.
    fn talk(&mut self, control: FrameSocket) {
        let control = Arc::new(control);
        let (forgot, forgotten) = mpsc::channel();
        let (tree, socket) = (Arc::clone(&self.tree), Arc::clone(&control));
        let welcome = Welcome {
            protocol: PROTOCOL_MAX,
            tenant: "test".into(),
            generation: self.generation,
            options: self.options.clone(),
        };
        thread::spawn(move || serve(&socket, &tree, welcome, &forgot));
        self.control = Some(control);
        self.forgotten = Some(forgotten);
    }

    /// The controller goes away.
    pub(crate) fn lose_controller(&mut self) {
        self.control.take().unwrap().shutdown();
    }

    /// Another controller comes to the door.
    pub(crate) fn find_controller(&mut self) {
        let (control, theirs) = FrameSocket::pair().unwrap();
        self.talk(control);
        self.door.as_ref().unwrap().send(&AtDoor::Controller, Some(theirs.as_fd())).unwrap();
    }

    /// Kills the VMDS at once and starts the next.
    pub(crate) fn crash_and_restart(&mut self) {
        let mut vmds = self.vmds.take().unwrap();
        vmds.kill().unwrap();
        vmds.wait().unwrap();
        self.start();
    }

    /// Pushes an invalidation and waits until it is answered.
    pub(crate) fn push(&self, fence: u64, items: Vec<Stale>) {
        self.control.as_ref().unwrap().send(&ToVmds::Stale { fence, items }, None).unwrap();
        assert_eq!(self.forgotten.as_ref().unwrap().recv_timeout(PATIENCE), Ok(fence));
    }

    /// How often the VMDS has asked for `kind`.
    pub(crate) fn calls(&self, kind: &str) -> usize {
        self.tree.lock().unwrap().calls.get(kind).copied().unwrap_or(0)
    }

    /// Unmounts; the VMDS ends by itself.
    pub(crate) fn unmount(mut self) {
        rustix::mount::unmount(self.dir.path(), UnmountFlags::empty()).unwrap();
        let mut vmds = self.vmds.take().unwrap();
        let status = wait_for(|| vmds.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

/// Waits until `condition` gives something.
pub(crate) fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "waited too long");
        thread::yield_now();
    }
}

fn serve(socket: &FrameSocket, tree: &Mutex<Tree>, welcome: Welcome, forgotten: &mpsc::Sender<u64>) {
    let mut buffer = Vec::new();
    while let Ok(Some((message, _))) = socket.receive::<ToController>(&mut buffer) {
        match message {
            ToController::Hello(_) => {
                let _ = socket.send(&ToVmds::Welcome(welcome.clone()), None);
            }
            ToController::Request { id, call } | ToController::Change { id, call, .. } => {
                let (result, descriptor) = match tree.lock().unwrap().answer(call) {
                    Ok((answer, descriptor)) => (Ok(answer), descriptor),
                    Err(refusal) => (Err(refusal), None),
                };
                // The VMDS may have been killed meanwhile.
                let _ = socket.send(&ToVmds::Reply { id, result }, descriptor.as_ref().map(AsFd::as_fd));
            }
            ToController::Forgotten { fence } => {
                let _ = forgotten.send(fence);
            }
            ToController::LeaseDropped { .. } => {
                *tree.lock().unwrap().calls.entry("LeaseDropped".into()).or_default() += 1;
            }
            ToController::Held { .. } => *tree.lock().unwrap().calls.entry("Held".into()).or_default() += 1,
            // Nothing is kept here that these would change.
            ToController::Resumed | ToController::KernelForgot { .. } => {}
        }
    }
}

/// Aborts the connection of a mount whose test takes too long, so that nothing hangs in the kernel for ever.
fn watch(dir: &Path) -> mpsc::Sender<()> {
    let (over, wait) = mpsc::channel::<()>();
    let dir = dir.to_owned();
    thread::spawn(move || {
        if wait.recv_timeout(2 * PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("the test hangs: aborting the mount");
            let _ = rustix::mount::unmount(&dir, UnmountFlags::FORCE | UnmountFlags::DETACH);
        }
    });
    over
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // After `unmount` both have been done already.
        let _ = rustix::mount::unmount(self.dir.path(), UnmountFlags::FORCE | UnmountFlags::DETACH);
        if let Some(mut vmds) = self.vmds.take() {
            let _ = vmds.kill();
            let _ = vmds.wait();
        }
        if let Some(control) = self.control.take() {
            control.shutdown();
        }
        self.over.take();
    }
}
