//! The system calls of a VMDS that serves, as data: what is allowed with which arguments, and what is hostile.
//!
//! Whoever adds a line says who calls it. Nothing that opens, connects or executes belongs here.

use libc::c_long;

/// A condition on an argument, by the argument's position. The lower 32 bits are compared: no flag is above.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// It has one of these values.
    OneOf(u8, &'static [u32]),
    /// All these bits are set.
    With(u8, u32),
    /// None of these bits is set.
    Without(u8, u32),
    /// It is the number of this process.
    OwnProcess(u8),
}

use Argument::{OneOf, OwnProcess, With, Without};

/// A system call and the conditions that all must hold.
pub(super) type Syscall = (c_long, &'static [Argument]);

/// Memory that can be executed.
const EXECUTABLE: u32 = libc::PROT_EXEC as u32;
/// Memory that is no file's.
const ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;
/// A descriptor alone, without a path.
const NO_PATH: u32 = libc::AT_EMPTY_PATH as u32;
/// The flags with which a C library starts a thread: exactly these, so no process and no namespace.
const THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u32;
/// As above; musl adds a flag that means nothing any more.
const THREAD_MUSL: u32 = THREAD | libc::CLONE_DETACHED as u32;
/// The kind of pair by which a runtime wakes itself: it leads nowhere but to its other end.
const WAKING_PAIR: u32 = (libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u32;
/// `SO_RCVTIMEO` and `SO_SNDTIMEO`, and their successors with wide times.
const TIMEOUTS: &[u32] = &[libc::SO_RCVTIMEO as u32, libc::SO_SNDTIMEO as u32, 66, 67];

/// What is allowed. What is not here does not exist for the process.
#[rustfmt::skip]
pub(super) const ALLOWED: &[Syscall] = &[
    // The mount and the controller.
    (libc::SYS_read, &[]),                  // requests of the kernel, the word to begin
    (libc::SYS_write, &[]),                 // notices to the kernel, the log
    (libc::SYS_writev, &[]),                // replies to the kernel
    (libc::SYS_sendmsg, &[]),               // frames to the controller
    (libc::SYS_recvmsg, &[]),               // frames from the controller, with descriptors
    (libc::SYS_setsockopt, &[OneOf(1, &[libc::SOL_SOCKET as u32]), OneOf(2, TIMEOUTS)]), // deadlines of the link
    (libc::SYS_ppoll, &[]),                 // waiting for the kernel's first message with a deadline
    (libc::SYS_dup3, &[]),                  // the device takes the place of the handshake socket
    (libc::SYS_close, &[]),                 // leases that end
    (libc::SYS_geteuid, &[]),               // `fuser` asks who it is when a session begins
    // Leased files.
    (libc::SYS_pread64, &[]),               // reads
    (libc::SYS_preadv2, &[]),               // reads of what is in the page cache
    (libc::SYS_pwrite64, &[]),              // writes
    (libc::SYS_pwritev2, &[]),              // writes to wherever the file ends
    (libc::SYS_fallocate, &[]),             // fallocate
    (libc::SYS_lseek, &[]),                 // SEEK_DATA and SEEK_HOLE
    (libc::SYS_copy_file_range, &[]),       // copy_file_range
    (libc::SYS_fstat, &[]),                 // sizes
    (libc::SYS_statx, &[With(2, NO_PATH)]), // sizes and times; a path given all the same leads nowhere, see `root`
    // Connections to an object store, made by the controller: nothing here can make one.
    (libc::SYS_epoll_create1, &[]),         // the thread that waits for the store begins
    (libc::SYS_epoll_ctl, &[]),             // a connection comes or goes
    (libc::SYS_epoll_wait, &[]),            // waiting for the store
    (libc::SYS_epoll_pwait, &[]),           // the same, as other C libraries do it
    (libc::SYS_eventfd2, &[]),              // waking the thread that waits
    (libc::SYS_socketpair, &[OneOf(0, &[libc::AF_UNIX as u32]), OneOf(1, &[WAKING_PAIR])]), // the same, in builds whose runtime knows signals
    (libc::SYS_recvfrom, &[]),              // answers of the store
    (libc::SYS_sendto, &[]),                // requests to the store, on connected sockets
    (libc::SYS_shutdown, &[]),              // connections end
    (libc::SYS_getsockopt, &[]),            // whether a connection has failed, and of which kind it is
    // Memory. None of it can ever be executed, and no file is mapped.
    (libc::SYS_mmap, &[Without(2, EXECUTABLE), With(3, ANONYMOUS)]), // the heap, stacks of threads
    (libc::SYS_mprotect, &[Without(2, EXECUTABLE)]), // the heap grows, guard pages
    (libc::SYS_munmap, &[]),                // the heap shrinks, stacks of threads that ended
    (libc::SYS_mremap, &[]),                // large buffers grow
    (libc::SYS_madvise, &[OneOf(2, &[libc::MADV_DONTNEED as u32])]), // memory goes back to the kernel
    (libc::SYS_brk, &[]),                   // the heap
    // Threads.
    (libc::SYS_clone, &[OneOf(0, &[THREAD, THREAD_MUSL])]), // threads start when they are needed; no clone3: its flags lie in memory
    (libc::SYS_set_robust_list, &[]),       // each new thread
    (libc::SYS_rseq, &[]),                  // each new thread
    (libc::SYS_sigaltstack, &[]),           // each new thread, to notice an overflow of its stack
    (libc::SYS_sched_getaffinity, &[]),     // each new thread; how many heaps and parts of caches to have
    (libc::SYS_prctl, &[OneOf(0, &[libc::PR_SET_NAME as u32])]), // names of threads
    (libc::SYS_gettid, &[]),                // names of threads, the end
    (libc::SYS_futex, &[]),                 // locks
    (libc::SYS_clock_nanosleep, &[]),       // a pause before a full quota is asked for again
    (libc::SYS_sched_yield, &[]),           // locks
    (libc::SYS_restart_syscall, &[]),       // waiting goes on after the process was stopped
    (libc::SYS_exit, &[]),                  // threads end
    // Odds and ends.
    (libc::SYS_fcntl, &[OneOf(1, &[libc::F_GETFD as u32, libc::F_GETFL as u32, libc::F_DUPFD_CLOEXEC as u32])]), // checks of debug builds; copies
    (libc::SYS_clock_gettime, &[]),         // time, where the kernel cannot give it without a call
    (libc::SYS_getrandom, &[]),             // keys of hash tables
    (libc::SYS_rt_sigprocmask, &[]),        // threads start and end
    (libc::SYS_rt_sigaction, &[]),          // abort
    (libc::SYS_rt_sigreturn, &[]),          // the end of the overflow handler
    (libc::SYS_getpid, &[]),                // abort
    (libc::SYS_tgkill, &[OwnProcess(0)]),   // abort
    (libc::SYS_exit_group, &[]),            // the end
];

/// What an intruder's tools try first and no library calls of its own accord. Being listed here adds nothing to the
/// refusal, only the alarm; the list is short because the kernel examines each filter for every call it knows, which
/// takes part of a millisecond at the start of each VMDS.
#[rustfmt::skip]
pub(super) const HOSTILE: &[c_long] = &[
    libc::SYS_execve, libc::SYS_execveat,                           // other programs
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, // other processes
    libc::SYS_setuid, libc::SYS_setresuid, libc::SYS_capset,        // other users, capabilities
    libc::SYS_mount, libc::SYS_unshare, libc::SYS_setns,            // other file trees, namespaces
    libc::SYS_bpf, libc::SYS_io_uring_setup, libc::SYS_keyctl,      // often broken parts of the kernel
];
