//! A VMDS in the hands of somebody who means harm: its link to the controller, used by the test.

use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use address_map::error::Refusal;
use address_map::wire::{Answer, Call, FrameSocket, ToController, ToVmds};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};

use crate::process::{Process, status_field};
use crate::wait::wait_until;

/// Where a VMDS logs.
const LOG_FD: i32 = 2;
/// Where a VMDS has its link to the controller.
const LINK_FD: i32 = 5;
/// Numbers of requests that no VMDS comes to.
const FIRST_ID: u64 = 1 << 40;
/// How long a process may take to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A real VMDS, stopped, and what it could say if it wanted to. It goes on when this is dropped.
#[derive(Debug)]
pub struct Captured {
    vmds: Process,
    link: FrameSocket,
    asked: u64,
}

impl Captured {
    pub(crate) fn take(vmds: Process) -> Self {
        vmds.signal(Signal::STOP);
        wait_until("the VMDS stops", STOP_DEADLINE, || status_field(vmds, "State").starts_with('T'));
        let link = FrameSocket::from(descriptor_of(vmds, LINK_FD));
        Self { vmds, link, asked: 0 }
    }

    /// Asks the controller for something, as if the VMDS did, and does at once what it is told meanwhile.
    ///
    /// # Errors
    /// What the controller refuses with.
    #[track_caller]
    pub fn ask(&mut self, call: Call) -> Result<Answer, Refusal> {
        let id = self.next_id();
        self.say(&ToController::Request { id, call });
        self.answer_to(id)
    }

    /// Says something to the controller.
    #[track_caller]
    pub fn say(&self, message: &ToController) {
        self.link.send(message, None).expect("the controller listens");
    }

    /// Sends bytes, with descriptors, whatever they mean.
    ///
    /// # Errors
    /// The controller has ended the link.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "there is room for eight");
        }
        sendmsg(&self.link, &[std::io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// A number for a request, not used before.
    pub fn next_id(&mut self) -> u64 {
        self.asked += 1;
        FIRST_ID + self.asked
    }

    /// Waits for what comes of a request.
    ///
    /// # Errors
    /// What the controller refuses with.
    #[track_caller]
    pub fn answer_to(&self, id: u64) -> Result<Answer, Refusal> {
        loop {
            match self.hear().expect("the controller answers") {
                ToVmds::Reply { id: its, result } if its == id => return result,
                ToVmds::Stale { fence, .. } => self.say(&ToController::Forgotten { fence }),
                _ => {}
            }
        }
    }

    /// What the controller says next; `None` when it has ended the link.
    #[track_caller]
    pub fn hear(&self) -> Option<ToVmds> {
        self.link.receive(&mut Vec::new()).expect("the controller speaks properly").map(|(said, _)| said)
    }

    /// Writes to where the VMDS logs.
    ///
    /// # Errors
    /// Nobody reads its log any more.
    pub fn log(&self, text: &str) -> std::io::Result<()> {
        File::from(descriptor_of(self.vmds, LOG_FD)).write_all(text.as_bytes())
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.vmds.signal(Signal::CONT);
    }
}

/// A copy of a descriptor of a process.
fn descriptor_of(process: Process, number: i32) -> OwnedFd {
    let pid = Pid::from_raw(process.pid.cast_signed()).expect("processes have numbers");
    let handle = pidfd_open(pid, PidfdFlags::empty()).expect("the process lives");
    pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()).expect("it has this descriptor")
}
