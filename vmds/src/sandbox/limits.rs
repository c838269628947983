//! Limits of resources, as far as they do not depend on the machine. The control group is the agent's part.

use rustix::process::{Resource, Rlimit, setrlimit};

use super::SandboxError;

/// Most private memory that can be written, bytes: heaps, buffers and stacks of threads, not reserved addresses. A
/// VMDS that serves has about 50 MiB of that kind, a tenth of it touched; a full cache of a mount adds tens.
///
/// It is this one because it follows what is used. A limit of addresses would not: each thread reserves 64 MiB of them
/// for its heap, 480 MiB with eight threads.
const DATA_MAX: u64 = 1 << 30;
/// Most threads of one user, over all its VMDSes on the node. One has about ten.
const THREADS_MAX: u64 = 4096;

/// Sets the limits, which cannot be raised again. The number of descriptors is not among them: see `run`.
pub(super) fn apply() -> Result<(), SandboxError> {
    // Leased files may have any size: growing them is for the controller to refuse.
    limit("the size of files", Resource::Fsize, None)?;
    // A core file would hold names and bytes of the tenant.
    limit("core files", Resource::Core, Some(0))?;
    limit("locked memory", Resource::Memlock, Some(0))?;
    limit("message queues", Resource::Msgqueue, Some(0))?;
    limit("threads", Resource::Nproc, Some(THREADS_MAX))?;
    limit("memory", Resource::Data, Some(DATA_MAX))
}

fn limit(what: &'static str, resource: Resource, most: Option<u64>) -> Result<(), SandboxError> {
    setrlimit(resource, Rlimit { current: most, maximum: most })
        .map_err(|error| SandboxError::Limit { what, source: error.into() })
}
