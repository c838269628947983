//! Telling the kernel what to forget, without ever standing in its way.
//!
//! Forgetting a name needs the lock of its directory, and the kernel holds that lock while it waits for us to
//! answer a change in the same directory. So notices about names have a thread of their own, which may get stuck,
//! and everything else has another, which does not. Should the first be stuck for long (two mounts that change the
//! same directory can wait for each other through the controller), the second makes the kernel ask for *all* names
//! anew, which takes no lock, and the stuck notices are done with.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use address_map::ids::NodeId;
use address_map::name::Name;
use parking_lot::{Condvar, Mutex};
use tracing::{error, warn};

use crate::link::Link;

/// Most notices of a kind that wait for their thread.
const NOTICES_MAX: usize = 4096;
/// How long a notice about a name may be stuck before the kernel is made to ask for all names.
const STUCK: Duration = Duration::from_millis(500);
/// How often that is looked at while one is being worked on.
const LOOK: Duration = Duration::from_millis(100);
/// Longest time the receiver of notices waits for room. A kernel that takes none for so long is of no use.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// An invalidation of the controller. It is answered when the last notice about it is done with.
pub(crate) struct Fence {
    /// Runs when the last notice that holds the fence is done with.
    then: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Fence {
    /// The invalidation `number`, to be answered through `link`.
    pub(crate) fn new(link: Arc<Link>, number: u64) -> Arc<Self> {
        Self::before(move || link.forgotten(number))
    }

    /// What is to happen once the kernel has forgotten.
    pub(crate) fn before(then: impl FnOnce() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { then: Some(Box::new(then)) })
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            then();
        }
    }
}

/// Something the kernel shall forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Where a name leads, and the attributes and the listing of its directory.
    Entry {
        /// The directory.
        parent: NodeId,
        /// The name.
        name: Name,
    },
    /// Attributes of an inode.
    Inode {
        /// The inode.
        node: NodeId,
        /// Its contents as well.
        data: bool,
    },
    /// Where all names lead.
    AllEntries,
}

/// The kernel, as far as it takes notices.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// Forget a name. May wait for requests about its directory.
    fn forget_entry(&self, parent: NodeId, name: &Name);
    /// Forget attributes, and contents.
    fn forget_inode(&self, node: NodeId, data: bool);
    /// Ask for all names anew, and say whether this kernel can.
    fn forget_all_entries(&self) -> bool;
}

/// A notice about a name that the kernel is being told.
struct AtWork {
    /// Since when, or since when it has last been relieved.
    since: Instant,
    parent: NodeId,
    /// Gone once it has been relieved.
    fence: Option<Arc<Fence>>,
}

#[derive(Default)]
struct Lanes {
    entries: VecDeque<(NodeId, Name, Arc<Fence>)>,
    at_work: Option<AtWork>,
    inodes: VecDeque<(Notice, Arc<Fence>)>,
    /// Notices about names that were too many: their directories.
    relief: Vec<(NodeId, Arc<Fence>)>,
    /// The kernel cannot be made to ask for all names.
    no_relief: bool,
}

impl Lanes {
    /// Notices about names wait for the kernel.
    fn has_names(&self) -> bool {
        !self.entries.is_empty() || self.at_work.as_ref().is_some_and(|at_work| at_work.fence.is_some())
    }

    /// They have waited for too long.
    fn is_stuck(&self) -> bool {
        let long = self.at_work.as_ref().is_some_and(|at_work| at_work.since.elapsed() >= STUCK);
        long && self.has_names() && !self.no_relief
    }
}

/// The notices that wait for their threads.
#[derive(Default)]
pub(crate) struct Notices {
    lanes: Mutex<Lanes>,
    work: Condvar,
    room: Condvar,
}

impl Notices {
    /// Has the kernel forget something; `fence` is held until it has.
    pub(crate) fn push(&self, notice: Notice, fence: &Arc<Fence>) {
        let mut lanes = self.lanes.lock();
        match notice {
            Notice::Entry { parent, name } => {
                if lanes.entries.len() >= NOTICES_MAX {
                    self.wait_for_room(&mut lanes, |lanes| lanes.relief.is_empty());
                    let Lanes { entries, relief, .. } = &mut *lanes;
                    relief.extend(entries.drain(..).map(|(parent, _, fence)| (parent, fence)));
                }
                lanes.entries.push_back((parent, name, Arc::clone(fence)));
            }
            other => {
                self.wait_for_room(&mut lanes, |lanes| lanes.inodes.len() < NOTICES_MAX);
                lanes.inodes.push_back((other, Arc::clone(fence)));
            }
        }
        drop(lanes);
        self.work.notify_all();
    }

    fn wait_for_room(
        &self,
        lanes: &mut parking_lot::MutexGuard<'_, Lanes>,
        has_room: impl Fn(&Lanes) -> bool,
    ) {
        self.room.wait_while_for(lanes, |lanes| !has_room(lanes), ROOM_WAIT);
        if !has_room(lanes) {
            error!("the kernel takes no more invalidations");
            std::process::exit(1);
        }
    }

    /// Starts the threads that tell `kernel`.
    pub(crate) fn start(self: &Arc<Self>, kernel: Arc<impl Kernel>) -> std::io::Result<()> {
        let (notices, told) = (Arc::clone(self), Arc::clone(&kernel));
        std::thread::Builder::new().name("vmds-names".into()).spawn(move || notices.tell_entries(&*told))?;
        let notices = Arc::clone(self);
        std::thread::Builder::new()
            .name("vmds-inodes".into())
            .spawn(move || notices.tell_inodes(&*kernel))?;
        Ok(())
    }

    fn tell_entries(&self, kernel: &impl Kernel) {
        loop {
            let (parent, name) = {
                let mut lanes = self.lanes.lock();
                self.work.wait_while(&mut lanes, |lanes| lanes.entries.is_empty());
                let Some((parent, name, fence)) = lanes.entries.pop_front() else { continue };
                lanes.at_work = Some(AtWork { since: Instant::now(), parent, fence: Some(fence) });
                (parent, name)
            };
            kernel.forget_entry(parent, &name);
            // A name the kernel does not have leaves the directory as it was.
            kernel.forget_inode(parent, true);
            let done = self.lanes.lock().at_work.take();
            drop(done);
        }
    }

    fn tell_inodes(&self, kernel: &impl Kernel) {
        loop {
            let mut lanes = self.lanes.lock();
            let idle =
                |lanes: &Lanes| lanes.inodes.is_empty() && lanes.relief.is_empty() && !lanes.is_stuck();
            while idle(&lanes) {
                if lanes.has_names() {
                    self.work.wait_for(&mut lanes, LOOK);
                } else {
                    self.work.wait(&mut lanes);
                }
            }
            if lanes.is_stuck() || !lanes.relief.is_empty() {
                drop(lanes);
                self.relieve(kernel);
                continue;
            }
            let Some((notice, fence)) = lanes.inodes.pop_front() else { continue };
            drop(lanes);
            self.room.notify_all();
            match notice {
                Notice::Inode { node, data } => kernel.forget_inode(node, data),
                Notice::Entry { .. } => unreachable!("names have a lane of their own"),
                Notice::AllEntries => {
                    if !kernel.forget_all_entries() {
                        warn!("this kernel cannot be told to forget all names; they expire");
                    }
                }
            }
            drop(fence);
        }
    }

    /// Does all notices about names at once.
    fn relieve(&self, kernel: &impl Kernel) {
        // First only to see whether the kernel can: what is taken away below must be done.
        if !kernel.forget_all_entries() {
            let mut lanes = self.lanes.lock();
            if !lanes.relief.is_empty() {
                error!("more names are stale than this kernel can be told");
                std::process::exit(1);
            }
            lanes.no_relief = true;
            return;
        }
        let mut stale: Vec<(NodeId, Arc<Fence>)> = Vec::new();
        {
            let mut lanes = self.lanes.lock();
            stale.append(&mut lanes.relief);
            stale.extend(lanes.entries.drain(..).map(|(parent, _, fence)| (parent, fence)));
            if let Some(at_work) = &mut lanes.at_work {
                at_work.since = Instant::now();
                stale.extend(at_work.fence.take().map(|fence| (at_work.parent, fence)));
            }
        }
        self.room.notify_all();
        warn!(notices = stale.len(), "the kernel is made to ask for all names anew");
        kernel.forget_all_entries();
        for (parent, _) in &stale {
            kernel.forget_inode(*parent, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use address_map::wire::{FrameSocket, ToController};

    use super::*;
    use crate::testing::{FakeController, name};

    /// A kernel that notes what it is told, and gets stuck on one name until it is let go.
    struct FakeKernel {
        told: Mutex<mpsc::Sender<String>>,
        gate: Mutex<mpsc::Receiver<()>>,
        has_epochs: bool,
    }

    impl Kernel for FakeKernel {
        fn forget_entry(&self, parent: NodeId, name: &Name) {
            if name.as_bytes() == b"stuck" {
                self.gate.lock().recv().unwrap();
            }
            self.told.lock().send(format!("entry {parent} {name}")).unwrap();
        }

        fn forget_inode(&self, node: NodeId, data: bool) {
            self.told.lock().send(format!("inode {node} {data}")).unwrap();
        }

        fn forget_all_entries(&self) -> bool {
            self.has_epochs && self.told.lock().send("all".into()).is_ok()
        }
    }

    struct Setup {
        notices: Arc<Notices>,
        link: Arc<Link>,
        controller: FrameSocket,
        told: mpsc::Receiver<String>,
        release: mpsc::Sender<()>,
    }

    fn setup(has_epochs: bool) -> Setup {
        let (link, controller) = FakeController::open_link();
        let (tell, told) = mpsc::channel();
        let (release, gate) = mpsc::channel();
        let notices = Arc::new(Notices::default());
        let kernel = FakeKernel { told: Mutex::new(tell), gate: Mutex::new(gate), has_epochs };
        notices.start(Arc::new(kernel)).unwrap();
        Setup { notices, link, controller, told, release }
    }

    impl Setup {
        fn push(&self, number: u64, notices: &[Notice]) {
            let fence = Fence::new(Arc::clone(&self.link), number);
            for notice in notices {
                self.notices.push(notice.clone(), &fence);
            }
        }

        fn forgotten(&self) -> u64 {
            match self.controller.receive::<ToController>(&mut Vec::new()).unwrap().unwrap().0 {
                ToController::Forgotten { fence } => fence,
                other => panic!("{other:?}"),
            }
        }
    }

    fn entry(text: &str) -> Notice {
        Notice::Entry { parent: NodeId::ROOT, name: name(text) }
    }

    #[test]
    fn a_fence_is_answered_when_all_of_it_is_forgotten() {
        let setup = setup(true);
        setup.push(7, &[entry("a"), Notice::Inode { node: NodeId(9), data: true }]);
        assert_eq!(setup.forgotten(), 7);
        let mut told: Vec<_> = setup.told.try_iter().collect();
        told.sort();
        assert_eq!(told, ["entry 0:1 a", "inode 0:1 true", "inode 0:9 true"]);
        setup.push(8, &[]);
        assert_eq!(setup.forgotten(), 8);
    }

    #[test]
    fn a_stuck_name_holds_nobody_else_up_and_is_relieved() {
        let setup = setup(true);
        setup.push(1, &[entry("stuck")]);
        setup.push(2, &[entry("behind")]);
        setup.push(3, &[Notice::Inode { node: NodeId(9), data: false }]);
        assert_eq!(setup.forgotten(), 3);
        let mut relieved = [setup.forgotten(), setup.forgotten()];
        relieved.sort();
        assert_eq!(relieved, [1, 2]);
        assert!(setup.told.try_iter().any(|told| told == "all"));
        setup.release.send(()).unwrap();
        setup.push(4, &[entry("later")]);
        assert_eq!(setup.forgotten(), 4);
    }

    #[test]
    fn too_many_names_become_all_names() {
        let setup = setup(true);
        setup.push(1, &[entry("stuck")]);
        let fence = Fence::new(Arc::clone(&setup.link), 2);
        for number in 0..2 * NOTICES_MAX {
            setup.notices.push(entry(&number.to_string()), &fence);
        }
        drop(fence);
        let mut answered = [setup.forgotten(), setup.forgotten()];
        answered.sort();
        assert_eq!(answered, [1, 2]);
        setup.release.send(()).unwrap();
    }

    #[test]
    fn without_relief_the_kernel_is_waited_for() {
        let setup = setup(false);
        setup.push(1, &[entry("stuck")]);
        setup.push(2, &[Notice::AllEntries]);
        assert_eq!(setup.forgotten(), 2);
        setup.release.send(()).unwrap();
        assert_eq!(setup.forgotten(), 1);
    }
}
