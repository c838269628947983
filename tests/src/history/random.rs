//! How histories are made up. Few names, few open files and small sizes, so that calls meet.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;
use rustix::fs::{FallocateFlags, OFlags, RenameFlags, XattrFlags};

use super::Histories;
use super::step::{Bits, Names, On, Op, SLOTS, Special, Step, Time, Whence};
use super::user::User;

/// Different names.
const NAMES: u8 = 4;
/// Where files end, about: bytes.
const SIZE: u64 = 40_000;

/// One step of a history.
pub(super) fn step(kind: Histories) -> BoxedStrategy<Step> {
    let user = prop_oneof![6 => Just(User::Root), 3 => Just(User::Anna), 1 => Just(User::Bert)];
    (user, 0..2u8, op(kind), any::<bool>())
        .prop_map(|(user, via, op, look)| Step { user, via, op, look })
        .boxed()
}

fn op(kind: Histories) -> BoxedStrategy<Op> {
    Union::new_weighted(vec![
        (30, bytes(kind.alone)),
        (28, names(kind.pipes)),
        (14, open()),
        (20, attributes(kind.alone)),
    ])
    .boxed()
}

fn open() -> BoxedStrategy<Op> {
    let open = (slot(), path(), open_flags(), bits()).prop_map(|(slot, path, flags, mode)| Op::Open {
        slot,
        path,
        flags,
        mode,
    });
    prop_oneof![4 => open, 1 => slot().prop_map(|slot| Op::Close { slot })].boxed()
}

fn open_flags() -> impl Strategy<Value = OFlags> {
    let access = select(vec![OFlags::RDWR, OFlags::RDWR, OFlags::RDONLY, OFlags::WRONLY]);
    let create = select(vec![
        OFlags::CREATE,
        OFlags::CREATE,
        OFlags::empty(),
        OFlags::CREATE.union(OFlags::EXCL),
        OFlags::CREATE.union(OFlags::TRUNC),
        OFlags::TRUNC,
    ]);
    let more = select(vec![
        OFlags::empty(),
        OFlags::empty(),
        OFlags::empty(),
        OFlags::APPEND,
        OFlags::APPEND,
        OFlags::NOFOLLOW,
        OFlags::DIRECTORY,
        OFlags::SYNC,
    ]);
    (access, create, more).prop_map(|(access, create, more)| access | create | more)
}

fn bytes(alone: bool) -> BoxedStrategy<Op> {
    let sync = || slot().prop_map(|slot| Op::Sync { slot }).boxed();
    let copy_or_sync = if alone { copy() } else { sync() };
    prop_oneof![
        5 => (slot(), len()).prop_map(|(slot, len)| Op::Write { slot, len }),
        5 => (slot(), offset(), len()).prop_map(|(slot, at, len)| Op::Pwrite { slot, at, len }),
        2 => (slot(), len()).prop_map(|(slot, len)| Op::Read { slot, len }),
        3 => (slot(), offset(), len()).prop_map(|(slot, at, len)| Op::Pread { slot, at, len }),
        3 => seek(),
        4 => (on(), offset()).prop_map(|(on, size)| Op::Truncate { on, size }),
        4 => allocate(),
        3 => copy_or_sync,
        2 => (slot(), offset(), len()).prop_map(|(slot, at, len)| Op::WriteMapped { slot, at, len }),
        2 => (slot(), offset(), len()).prop_map(|(slot, at, len)| Op::ReadMapped { slot, at, len }),
        1 => sync(),
    ]
    .boxed()
}

fn seek() -> BoxedStrategy<Op> {
    let whence = select(vec![Whence::Start, Whence::Current, Whence::End, Whence::Data, Whence::Hole]);
    let by = (offset(), any::<bool>())
        .prop_map(|(by, back)| if back { -by.cast_signed() / 4 } else { by.cast_signed() });
    (slot(), whence, by).prop_map(|(slot, whence, by)| Op::Seek { slot, whence, by }).boxed()
}

fn allocate() -> BoxedStrategy<Op> {
    let mode = select(vec![
        FallocateFlags::empty(),
        FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
        FallocateFlags::PUNCH_HOLE,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE),
    ]);
    let len = len().prop_map(|len| len as u64);
    (slot(), mode, offset(), len)
        .prop_map(|(slot, mode, at, len)| Op::Allocate { slot, mode, at, len })
        .boxed()
}

fn copy() -> BoxedStrategy<Op> {
    (slot(), offset(), slot(), offset(), len())
        .prop_map(|(from, from_at, to, to_at, len)| Op::Copy { from, from_at, to, to_at, len })
        .boxed()
}

fn names(pipes: bool) -> BoxedStrategy<Op> {
    let kinds = [Special::File, Special::Socket, Special::Device, Special::Pipe];
    let kinds = kinds[..if pipes { 4 } else { 3 }].to_vec();
    let rename = select(vec![
        RenameFlags::empty(),
        RenameFlags::empty(),
        RenameFlags::NOREPLACE,
        RenameFlags::EXCHANGE,
        RenameFlags::EXCHANGE,
        RenameFlags::NOREPLACE.union(RenameFlags::EXCHANGE),
    ]);
    prop_oneof![
        8 => (path(), bits()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        2 => (path(), select(kinds), bits()).prop_map(|(path, what, mode)| Op::Mknod { path, what, mode }),
        2 => (path(), path()).prop_map(|(target, path)| Op::Symlink { target, path }),
        1 => path().prop_map(|path| Op::Readlink { path }),
        4 => (path(), path(), any::<bool>())
            .prop_map(|(from, to, follow)| Op::Link { from, to, follow }),
        8 => (path(), path(), rename).prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        5 => path().prop_map(|path| Op::Unlink { path }),
        3 => path().prop_map(|path| Op::Rmdir { path }),
    ]
    .boxed()
}

fn attributes(alone: bool) -> BoxedStrategy<Op> {
    let id = || select(vec![None, Some(0), Some(1000), Some(2000), Some(3000)]);
    let flags = select(vec![XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE]);
    let stat = || on().prop_map(|on| Op::Stat { on }).boxed();
    let chown = (on(), id(), id()).prop_map(|(on, user, group)| Op::Chown { on, user, group });
    let chown_or_stat = if alone { chown.boxed() } else { stat() };
    // Little enough to find room in an inode of the local file system.
    let value = select(vec![0, 1, 20]);
    prop_oneof![
        4 => (on(), bits()).prop_map(|(on, mode)| Op::Chmod { on, mode }),
        3 => chown_or_stat,
        3 => (on(), time(), time()).prop_map(|(on, atime, mtime)| Op::Times { on, atime, mtime }),
        3 => (on(), xattr(), value, flags)
            .prop_map(|(on, name, len, flags)| Op::SetXattr { on, name, len, flags }),
        2 => (on(), xattr(), select(vec![0, 5, 100]))
            .prop_map(|(on, name, room)| Op::GetXattr { on, name, room }),
        2 => (on(), xattr()).prop_map(|(on, name)| Op::RemoveXattr { on, name }),
        1 => on().prop_map(|on| Op::ListXattr { on }),
        3 => on().prop_map(|on| Op::List { on }),
        3 => stat(),
    ]
    .boxed()
}

fn xattr() -> impl Strategy<Value = &'static str> {
    select(vec!["user.a", "user.b", "trusted.a", "security.a", "nothing.a"])
}

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![
        Just(Time::Now),
        Just(Time::Omit),
        (-2..1_500_000_000i64, 0..1_000_000_000u32).prop_map(|(seconds, nano)| Time::At(seconds, nano)),
    ]
}

fn bits() -> impl Strategy<Value = Bits> {
    select(vec![0o777, 0o666, 0o755, 0o644, 0o600, 0o2775, 0o4755, 0o6777, 0o1777, 0o2750, 0o000])
        .prop_map(Bits)
}

fn on() -> impl Strategy<Value = On> {
    prop_oneof![
        2 => path().prop_map(On::Path),
        1 => path().prop_map(On::Link),
        2 => slot().prop_map(On::Slot),
    ]
}

fn slot() -> impl Strategy<Value = u8> {
    0..SLOTS
}

fn path() -> impl Strategy<Value = Names> {
    let names = |count| proptest::collection::vec(0..NAMES, count);
    prop_oneof![10 => names(1), 6 => names(2), 1 => names(3)].prop_map(Names)
}

fn offset() -> BoxedStrategy<u64> {
    prop_oneof![
        2 => Just(0),
        2 => (0..SIZE / 4096).prop_map(|page| page * 4096),
        4 => 0..SIZE,
    ]
    .boxed()
}

fn len() -> BoxedStrategy<usize> {
    prop_oneof![1 => Just(0), 1 => Just(1), 2 => Just(4096), 4 => 1..9_000usize].boxed()
}
