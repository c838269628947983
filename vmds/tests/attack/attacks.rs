//! What code that has taken over a VMDS would try: raw system calls, past everything a library might refuse first.
//!
//! `unsafe` throughout: that is the point of the file. Every call is one whose arguments are valid, so that a refusal
//! is the sandbox's, and as little happens as possible if it is not refused.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_long, c_void};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{null, null_mut};

use crate::fixture::{DEVICE, FILE, SECOND_FILE, SOCKET, victim};

/// How an attack must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The call fails.
    Refused,
    /// The process is ended.
    Killed,
}

/// An attack: its name, how it must end, and the call, which answers -1 with `errno` set when it fails.
pub(crate) type Attack = (&'static str, End, fn() -> c_long);

/// `FUSE_DEV_IOC_BACKING_OPEN`: `_IOW(229, 1, struct fuse_backing_map)`.
const BACKING_OPEN: libc::Ioctl = 0x4010_e501;
/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)`.
const DEVICE_CLONE: libc::Ioctl = 0x8004_e500;
/// Bytes of a page, or fewer.
const PAGE: usize = 4096;

/// The file, the socket and the second file that the process inherits. To be called once.
pub(crate) fn inherited() -> [OwnedFd; 3] {
    // SAFETY: the parent has put descriptors there for this process, which has taken none of them before.
    [FILE, SOCKET, SECOND_FILE].map(|number| unsafe { OwnedFd::from_raw_fd(number) })
}

macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {{
        // SAFETY: the arguments are those the kernel documents for the call, and what they point to outlives it. A
        // call that is not refused may leave this process in any state: it exists to make the call, and ends then.
        unsafe { libc::syscall($number $(, $argument)*) }
    }};
}

fn open(path: &std::ffi::CStr, flags: c_int) -> c_long {
    call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600)
}

fn stat(path: &std::ffi::CStr, flags: c_int) -> c_long {
    let mut into = [0u8; 256];
    call!(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_BASIC_STATS, into.as_mut_ptr())
}

fn memory_of_another(number: c_long) -> c_long {
    let mut buffer = [0u8; 8];
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // Any address does: being allowed to ask is what is tried.
    let remote = libc::iovec { iov_base: PAGE as *mut c_void, iov_len: buffer.len() };
    call!(number, victim(), &raw const local, 1, &raw const remote, 1, 0)
}

fn execute() -> c_long {
    let arguments: [*const c_char; 2] = [c"/bin/true".as_ptr(), null()];
    let environment: [*const c_char; 1] = [null()];
    call!(libc::SYS_execve, c"/bin/true".as_ptr(), arguments.as_ptr(), environment.as_ptr())
}

fn connect_to_path() -> c_long {
    let socket = call!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0);
    if socket < 0 {
        return socket;
    }
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
    for (to, from) in address.sun_path.iter_mut().zip(b"/run/vmds/api.sock") {
        *to = *from as c_char;
    }
    call!(libc::SYS_connect, socket, &raw const address, size_of_val(&address))
}

fn pages(protection: c_int, flags: c_int, file: c_int) -> c_long {
    call!(libc::SYS_mmap, null_mut::<c_void>(), PAGE, protection, flags, file, 0)
}

fn make_executable() -> c_long {
    let page = pages(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
    call!(libc::SYS_mprotect, page, PAGE, libc::PROT_READ | libc::PROT_EXEC)
}

/// Starts a process with `flags`; the new one ends at once, so that nothing is left of it but the success.
fn fork_with(flags: c_int) -> c_long {
    let number = call!(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0);
    if number == 0 {
        call!(libc::SYS_exit_group, 0);
    }
    number
}

fn register_backing_file() -> c_long {
    let map = [FILE as u32, 0, 0, 0];
    call!(libc::SYS_ioctl, DEVICE, BACKING_OPEN, map.as_ptr())
}

fn clone_device() -> c_long {
    let device = DEVICE as u32;
    call!(libc::SYS_ioctl, DEVICE, DEVICE_CLONE, &raw const device)
}

fn prctl(option: c_int, value: c_int) -> c_long {
    call!(libc::SYS_prctl, option, value, 0, 0, 0)
}

fn setsockopt(option: c_int) -> c_long {
    let value: c_int = 1;
    call!(libc::SYS_setsockopt, SOCKET, libc::SOL_SOCKET, option, &raw const value, 4)
}

fn raise_data_limit() -> c_long {
    let none = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    call!(libc::SYS_prlimit64, 0, libc::RLIMIT_DATA, &raw const none, null_mut::<c_void>())
}

fn too_much_memory() -> c_long {
    let most = 2usize << 30;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    call!(libc::SYS_mmap, null_mut::<c_void>(), most, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
}

/// The flag of system calls of the x32 interface, which a filter must not forget.
#[cfg(target_arch = "x86_64")]
fn another_interface() -> c_long {
    call!(0x4000_0000 | libc::SYS_openat, libc::AT_FDCWD, c"/etc/passwd".as_ptr(), libc::O_RDONLY, 0)
}

/// The interface of 32-bit programs: `getpid`, which would be allowed under its own number.
#[cfg(target_arch = "x86_64")]
fn old_interface() -> c_long {
    let result: i32;
    // SAFETY: the old way of making a system call, here one without arguments; it changes the given registers only.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") 20 => result, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _);
    }
    c_long::from(result)
}

use End::{Killed, Refused};

/// Some of those that succeed for root outside the sandbox, on any machine: the others prove as much as these.
pub(crate) const REAL: &[&str] = &[
    "open /etc/passwd",
    "open /proc/self/mem",
    "ask for a path",
    "change the mode of a leased file",
    "TCP socket",
    "socket pair",
    "kill",
    "find a process",
    "executable pages",
    "a file as memory",
    "fork",
    "setuid",
    "chroot",
];

/// All attacks.
#[rustfmt::skip]
pub(crate) const ATTACKS: &[Attack] = &[
    // Files.
    ("open /etc/passwd", Refused, || open(c"/etc/passwd", libc::O_RDONLY)),
    ("open /proc/1/environ", Refused, || open(c"/proc/1/environ", libc::O_RDONLY)),
    ("open /proc/self/mem", Refused, || open(c"/proc/self/mem", libc::O_RDWR)),
    ("open /dev/fuse", Refused, || open(c"/dev/fuse", libc::O_RDWR)),
    ("open a directory", Refused, || open(c"/", libc::O_RDONLY | libc::O_DIRECTORY)),
    ("open a path only", Refused, || open(c"/", libc::O_PATH)),
    ("create a file", Refused, || open(c"/tmp/vmds-attack", libc::O_WRONLY | libc::O_CREAT)),
    ("create a file without a name", Refused, || open(c"/tmp", libc::O_WRONLY | libc::O_TMPFILE)),
    ("open through a descriptor", Refused, || call!(libc::SYS_openat, FILE, c"".as_ptr(), libc::O_RDWR, 0)),
    ("open by handle", Refused, || call!(libc::SYS_open_by_handle_at, FILE, null::<u8>(), libc::O_RDONLY)),
    ("ask for a path", Refused, || stat(c"/etc/passwd", 0)),
    ("ask for a path in disguise", Refused, || stat(c"/etc/passwd", libc::AT_EMPTY_PATH)),
    ("ask for a process", Refused, || stat(c"/proc/1", libc::AT_EMPTY_PATH)),
    ("go to the parent directory", Refused, || call!(libc::SYS_chdir, c"..".as_ptr())),
    ("remove a file", Refused, || call!(libc::SYS_unlinkat, libc::AT_FDCWD, c"/tmp/vmds-attack".as_ptr(), 0)),
    ("change the owner of a leased file", Refused, || call!(libc::SYS_fchown, FILE, 0, 0)),
    ("change the mode of a leased file", Refused, || call!(libc::SYS_fchmod, FILE, 0o6777)),
    ("make memory a file", Refused, || call!(libc::SYS_memfd_create, c"x".as_ptr(), 0)),
    // The network.
    ("TCP socket", Refused, || call!(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0)),
    ("UDP socket", Refused, || call!(libc::SYS_socket, libc::AF_INET6, libc::SOCK_DGRAM, 0)),
    ("netlink socket", Refused, || call!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0)),
    ("unix connect", Refused, connect_to_path),
    ("bind", Refused, || call!(libc::SYS_bind, SOCKET, [1u8, 0].as_ptr(), 2)),
    ("socket pair", Refused, || call!(libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_DGRAM, 0, [0, 0].as_mut_ptr())),
    ("large socket buffer", Refused, || setsockopt(libc::SO_SNDBUF)),
    // Other processes.
    ("ptrace attach", Killed, || call!(libc::SYS_ptrace, libc::PTRACE_ATTACH, victim(), 0, 0)),
    ("ptrace seize", Killed, || call!(libc::SYS_ptrace, libc::PTRACE_SEIZE, victim(), 0, 0)),
    ("read memory", Killed, || memory_of_another(libc::SYS_process_vm_readv)),
    ("write memory", Killed, || memory_of_another(libc::SYS_process_vm_writev)),
    ("kill", Refused, || call!(libc::SYS_kill, victim(), 0)),
    ("kill everything", Refused, || call!(libc::SYS_kill, -1, 0)),
    ("kill a thread", Refused, || call!(libc::SYS_tgkill, victim(), victim(), 0)),
    ("find a process", Refused, || call!(libc::SYS_pidfd_open, victim(), 0)),
    ("take a descriptor", Refused, || call!(libc::SYS_pidfd_getfd, FILE, 0, 0)),
    ("change limits", Refused, || call!(libc::SYS_prlimit64, victim(), libc::RLIMIT_NOFILE, null::<u8>(), null::<u8>())),
    ("change priorities", Refused, || call!(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, -5)),
    // Programs and code.
    ("execve", Killed, execute),
    ("executable pages", Refused, || pages(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)),
    ("pages made executable", Refused, make_executable),
    ("a file as memory", Refused, || pages(libc::PROT_READ, libc::MAP_SHARED, FILE)),
    ("fork", Refused, || fork_with(0)),
    ("new user namespace", Refused, || fork_with(libc::CLONE_NEWUSER)),
    ("clone3", Refused, || call!(libc::SYS_clone3, [0u64; 8].as_ptr(), 64)),
    ("unshare", Killed, || call!(libc::SYS_unshare, libc::CLONE_NEWUSER)),
    ("setns", Killed, || call!(libc::SYS_setns, FILE, 0)),
    // Privileges.
    ("setuid", Killed, || call!(libc::SYS_setuid, 0)),
    ("setresgid", Refused, || call!(libc::SYS_setresgid, 0, 0, 0)),
    ("capset", Killed, || call!(libc::SYS_capset, null::<u8>(), null::<u8>())),
    ("dumpable again", Refused, || prctl(libc::PR_SET_DUMPABLE, 1)),
    ("let anybody trace", Refused, || prctl(libc::PR_SET_PTRACER, -1)),
    ("another filter", Refused, || call!(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_STRICT, 0, null::<u8>())),
    ("raise a limit", Refused, raise_data_limit),
    ("too much memory", Refused, too_much_memory),
    // The kernel.
    ("mount", Killed, || call!(libc::SYS_mount, c"none".as_ptr(), c"/nothing".as_ptr(), c"tmpfs".as_ptr(), 0, null::<u8>())),
    ("unmount", Refused, || call!(libc::SYS_umount2, c"/nothing".as_ptr(), libc::MNT_DETACH)),
    ("chroot", Refused, || call!(libc::SYS_chroot, c"..".as_ptr())),
    ("register a backing file", Refused, register_backing_file),
    ("clone the device", Refused, clone_device),
    ("io_uring", Killed, || call!(libc::SYS_io_uring_setup, 1, [0u8; 120].as_mut_ptr())),
    ("bpf", Killed, || call!(libc::SYS_bpf, 0, null::<u8>(), 0)),
    ("userfaultfd", Refused, || call!(libc::SYS_userfaultfd, 0)),
    ("key rings", Killed, || call!(libc::SYS_keyctl, 0, -4, 0)),
    ("a call that does not exist", Refused, || call!(5000)),
    #[cfg(target_arch = "x86_64")]
    ("another interface", Refused, another_interface),
    #[cfg(target_arch = "x86_64")]
    ("the old interface", Killed, old_interface),
];
