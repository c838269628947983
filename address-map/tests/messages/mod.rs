//! Strategies for every message of the wire.

use address_map::attr::{Attr, AttrChange, Caller, FileKind, NewMode, SetTime, Timestamp};
use address_map::error::Refusal;
use address_map::ids::{NodeId, Slot};
use address_map::limits::{NAME_MAX, STALE_ITEMS_MAX, XATTR_VALUE_MAX};
use address_map::name::Name;
use address_map::sums::BLOCK;
use address_map::wire::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn name() -> impl Strategy<Value = Name> {
    let short = vec(1..=255u8, 1..20);
    let long = (1..=255u8, 200..=NAME_MAX).prop_map(|(byte, length)| vec![byte; length]);
    prop_oneof![9 => short.boxed(), 1 => long.boxed()]
        .prop_filter_map("not a name", |bytes: Vec<u8>| Name::new(&bytes).ok())
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(sec, nsec)| Timestamp::new(sec, nsec))
}

fn kind() -> impl Strategy<Value = FileKind> {
    use FileKind::*;
    prop::sample::select(vec![File, Directory, Symlink, Fifo, Socket, CharDevice, BlockDevice])
}

fn attr() -> impl Strategy<Value = Attr> {
    let numbers = (any::<[u32; 5]>(), any::<[u64; 2]>());
    let times = (timestamp(), timestamp(), timestamp(), timestamp());
    (kind(), numbers, times, any::<[bool; 2]>()).prop_map(
        |(kind, ([mode, uid, gid, nlink, rdev], [size, blocks]), (atime, mtime, ctime, crtime), flags)| {
            Attr {
                kind,
                mode,
                uid,
                gid,
                nlink,
                size,
                blocks,
                rdev,
                atime,
                mtime,
                ctime,
                crtime,
                has_xattrs: flags[0],
                volatile: flags[1],
            }
        },
    )
}

fn node_attr() -> impl Strategy<Value = NodeAttr> {
    (node(), attr()).prop_map(|(node, attr)| NodeAttr { node, attr })
}

fn caller() -> impl Strategy<Value = Caller> {
    any::<[u32; 2]>().prop_map(|[uid, gid]| Caller { uid, gid })
}

fn new_mode() -> impl Strategy<Value = NewMode> {
    any::<[u32; 2]>().prop_map(|[mode, umask]| NewMode { mode, umask })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let long = (any::<u8>(), 0..=XATTR_VALUE_MAX).prop_map(|(byte, length)| vec![byte; length]);
    prop_oneof![9 => vec(any::<u8>(), 0..64).boxed(), 1 => long.boxed()]
}

fn lease() -> impl Strategy<Value = Lease> {
    let near = option::of(any::<[u64; 3]>().prop_map(|[tag, chunk, end]| Near { tag, chunk, end }));
    (any::<[bool; 4]>(), any::<Option<u32>>(), near).prop_map(
        |([write, floating, remote, alone], backing, near)| Lease {
            write,
            backing,
            floating,
            remote,
            alone,
            near,
        },
    )
}

fn sums() -> impl Strategy<Value = Vec<u64>> {
    let whole = any::<u64>().prop_map(|sum| vec![sum; BLOCK]);
    prop_oneof![9 => vec(any::<u64>(), 0..20).boxed(), 1 => whole.boxed()]
}

fn source() -> impl Strategy<Value = Source> {
    let headers = vec((any::<String>(), any::<String>()), 0..4);
    let address = (any::<[u32; 2]>(), any::<String>(), headers, any::<String>(), any::<u64>(), sums());
    let address = address.prop_map(|([pool, valid_ms], target, headers, etag, size, sums)| {
        Source::Address(Address { pool, target, headers, etag, size, valid_ms, sums })
    });
    prop_oneof![Just(Source::Unfilled), bytes().prop_map(Source::Inline), address]
}

fn change() -> impl Strategy<Value = AttrChange> {
    let time = || option::of(prop_oneof![Just(SetTime::Now), timestamp().prop_map(SetTime::To)]);
    (any::<[Option<u32>; 3]>(), any::<Option<u64>>(), time(), time())
        .prop_map(|([mode, uid, gid], size, atime, mtime)| AttrChange { mode, uid, gid, size, atime, mtime })
}

fn make() -> impl Strategy<Value = Make> {
    prop_oneof![
        prop::sample::select(vec![Make::File, Make::Directory, Make::Fifo, Make::Socket]),
        bytes().prop_map(Make::Symlink),
        any::<u32>().prop_map(Make::CharDevice),
        any::<u32>().prop_map(Make::BlockDevice),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    use {RenameMode as R, XattrMode as X};
    let rename = prop::sample::select(vec![R::Replace, R::NoReplace, R::Exchange]);
    let set = prop::sample::select(vec![X::Set, X::Create, X::Replace]);
    let on_node = prop::sample::select(vec![
        (|node| Call::Getattr { node }) as fn(NodeId) -> Call,
        |node| Call::Readlink { node },
        |node| Call::Listxattr { node },
        |node| Call::Statfs { node },
        |node| Call::CloseWrite { node },
        |node| Call::Sync { node, data_only: false },
        |node| Call::Flush { node },
        |node| Call::Connect { node },
    ]);
    let on_name = prop::sample::select(vec![
        (|parent, name| Call::Lookup { parent, name }) as fn(NodeId, Name) -> Call,
        |parent, name| Call::Unlink { parent, name },
        |parent, name| Call::Rmdir { parent, name },
    ]);
    prop_oneof![
        (on_node, node()).prop_map(|(call, node)| call(node)),
        (on_name, node(), name()).prop_map(|(call, parent, name)| call(parent, name)),
        (node(), caller(), change()).prop_map(|(node, caller, change)| Call::Setattr {
            node,
            caller,
            change
        }),
        (node(), name(), caller(), new_mode(), make()).prop_map(|(parent, name, caller, mode, what)| {
            Call::Make { parent, name, caller, mode, what }
        }),
        (node(), name(), caller(), new_mode()).prop_map(|(parent, name, caller, mode)| Call::Create {
            parent,
            name,
            caller,
            mode
        }),
        (node(), node(), name()).prop_map(|(node, parent, name)| Call::Link { node, parent, name }),
        (node(), name(), node(), name(), rename).prop_map(|(parent, name, new_parent, new_name, mode)| {
            Call::Rename { parent, name, new_parent, new_name, mode }
        }),
        (node(), any::<u64>()).prop_map(|(node, after)| Call::List { node, after }),
        (node(), bytes()).prop_map(|(node, name)| Call::Getxattr { node, name }),
        (node(), bytes()).prop_map(|(node, name)| Call::Removexattr { node, name }),
        (node(), caller(), vec(any::<u8>(), 0..256), bytes(), set)
            .prop_map(|(node, caller, name, value, mode)| Call::Setxattr { node, caller, name, value, mode }),
        (node(), any::<[bool; 2]>()).prop_map(|(node, [write, fill])| Call::Lease { node, write, fill }),
        (node(), any::<u64>()).prop_map(|(node, size)| Call::Grow { node, size }),
        (node(), any::<u64>()).prop_map(|(node, end)| Call::Wrote { node, end }),
        (node(), any::<[u64; 3]>(), any::<bool>()).prop_map(|(node, [tag, start, end], write)| Call::Fill {
            node,
            tag,
            start,
            end,
            write
        }),
        (node(), any::<String>(), any::<u32>()).prop_map(|(node, etag, block)| Call::Sums {
            node,
            etag,
            block
        }),
    ]
}

/// Any message of a VMDS.
pub(crate) fn to_controller() -> impl Strategy<Value = ToController> {
    let hello = (any::<[u16; 2]>(), any::<String>()).prop_map(|([protocol_min, protocol_max], software)| {
        ToController::Hello(Hello { protocol_min, protocol_max, software })
    });
    prop_oneof![
        1 => hello,
        20 => (any::<u64>(), call()).prop_map(|(id, call)| ToController::Request { id, call }),
        1 => any::<u64>().prop_map(|fence| ToController::Forgotten { fence }),
        1 => node().prop_map(|node| ToController::LeaseDropped { node }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let entry =
        (any::<u64>(), name(), node_attr()).prop_map(|(cookie, name, node)| ListEntry { cookie, name, node });
    let statfs = any::<[u64; 4]>().prop_map(|[bytes, bytes_free, inodes, inodes_free]| {
        Answer::Statfs(Statfs { bytes, bytes_free, inodes, inodes_free })
    });
    prop_oneof![
        Just(Answer::Done),
        attr().prop_map(Answer::Attr),
        node_attr().prop_map(Answer::Found),
        (node_attr(), attr()).prop_map(|(target, parent)| Answer::Made { target, parent }),
        bytes().prop_map(Answer::Bytes),
        (node_attr(), attr()).prop_map(|(target, parent)| Answer::Removed { target, parent }),
        (node_attr(), option::of(node_attr()), attr(), attr()).prop_map(
            |(moved, other, parent, new_parent)| { Answer::Renamed { moved, other, parent, new_parent } }
        ),
        (vec(entry, 0..100), any::<bool>()).prop_map(|(entries, end)| Answer::Page { entries, end }),
        statfs,
        (node_attr(), attr(), lease()).prop_map(|(file, parent, lease)| Answer::Created {
            file,
            parent,
            lease
        }),
        (attr(), lease()).prop_map(|(attr, lease)| Answer::Leased { attr, lease }),
        (attr(), source()).prop_map(|(attr, source)| Answer::Addressed { attr, source }),
        sums().prop_map(Answer::Sums),
        Just(Answer::Connected),
        Just(Answer::Pending),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    use Refusal::*;
    prop::sample::select(vec![
        NotFound,
        Exists,
        NotDirectory,
        IsDirectory,
        NotEmpty,
        CrossesShare,
        ShareRoot,
        ReadOnly,
        Invalid,
        NotPermitted,
        Access,
        TooManyLinks,
        NameTooLong,
        Quota,
        NoSpace,
        TooLarge,
        NoAttribute,
        AttributeTooLarge,
        NotSupported,
        Stale,
        Busy,
        Io,
    ])
}

fn stale() -> impl Strategy<Value = Stale> {
    prop_oneof![
        (node(), name()).prop_map(|(parent, name)| Stale::Entry { parent, name }),
        (node(), any::<bool>()).prop_map(|(node, data)| Stale::Inode { node, data }),
        any::<u16>().prop_map(|slot| Stale::Slot(Slot(slot))),
    ]
}

fn welcome() -> impl Strategy<Value = ToVmds> {
    let options =
        (any::<[u64; 2]>(), any::<[u32; 3]>(), any::<bool>()).prop_map(
            |([ttl_ms, pool_timeout_ms], [cache_entries, leases_max, buffer_bytes], metered)| {
                SessionOptions { ttl_ms, cache_entries, buffer_bytes, leases_max, metered, pool_timeout_ms }
            },
        );
    (any::<u16>(), any::<String>(), any::<u32>(), options).prop_map(
        |(protocol, tenant, generation, options)| {
            ToVmds::Welcome(Welcome { protocol, tenant, generation, options })
        },
    )
}

/// Any message of a controller, as large as a frame allows.
pub(crate) fn to_vmds() -> impl Strategy<Value = ToVmds> {
    let result = prop_oneof![9 => answer().prop_map(Ok).boxed(), 1 => refusal().prop_map(Err).boxed()];
    prop_oneof![
        1 => welcome(),
        1 => any::<String>().prop_map(|reason| ToVmds::Refused { reason }),
        20 => (any::<u64>(), result).prop_map(|(id, result)| ToVmds::Reply { id, result }),
        2 => (any::<u64>(), vec(stale(), 0..STALE_ITEMS_MAX))
            .prop_map(|(fence, items)| ToVmds::Stale { fence, items }),
        1 => node().prop_map(|node| ToVmds::Orphaned { node }),
    ]
}
