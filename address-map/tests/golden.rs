//! The bytes of every stored record, for ever: golden files of version 1 are written by today's encoder byte for byte
//! and read by today's decoder; damage and newer versions are refused.
//!
//! A change that makes these tests fail loses the data of everybody who has some. `BLESS=1` writes the files anew:
//! only for records and versions that nobody has yet.

#![allow(clippy::unwrap_used)]

use std::env;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use address_map::attr::{FileKind, Timestamp};
use address_map::codec::{self, CodecError, RECORD_VERSION};
use address_map::ids::{Ino, PoolId, ShareId, Slot, TenantId};
use address_map::name::Name;
use address_map::record::{
    Adopted, Entry, Garbage, Grant, Injection, Inode, Layout, LeaseLimit, LinkRecord, ObjectRef, Progress,
    Quota, Rights, StoredObject, TenantRecord, Usage,
};
use bincode::{Decode, Encode};

/// Length of the checksum that ends a record, bytes.
const CHECKSUM_BYTES: usize = 4;

/// The golden file of a record.
fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.bin"))
}

/// Checks one record against its golden file `tests/golden/<name>.bin`.
fn check<T: Encode + Decode<()> + PartialEq + Debug>(name: &str, record: &T) {
    let path = path_of(name);
    let encoded = codec::encode(record);
    if env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &encoded).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(golden, encoded, "{name} is written differently today");
    assert_eq!(&codec::decode::<T>(&golden).unwrap(), record, "{name} is read differently today");
    refuses_damage::<T>(name, &golden);
}

fn refuses_damage<T: Decode<()>>(name: &str, golden: &[u8]) {
    let error =
        |bytes: &[u8]| codec::decode::<T>(bytes).err().unwrap_or_else(|| panic!("{name}: {bytes:?} is read"));
    for index in 0..golden.len() {
        for bit in 0..8 {
            let mut bytes = golden.to_vec();
            bytes[index] ^= 1 << bit;
            assert!(matches!(error(&bytes), CodecError::Checksum), "{name}: bit {bit} of byte {index}");
        }
    }
    for length in 0..golden.len() {
        let refused = error(&golden[..length]);
        assert_eq!(
            matches!(refused, CodecError::TooShort(_)),
            length <= CHECKSUM_BYTES,
            "{name}: {length} bytes"
        );
        assert!(matches!(refused, CodecError::TooShort(_) | CodecError::Checksum), "{name}: {length} bytes");
    }
    let payload = &golden[1..golden.len() - CHECKSUM_BYTES];
    let newer = sealed(RECORD_VERSION + 1, payload);
    assert!(matches!(error(&newer), CodecError::TooNew(found) if found == RECORD_VERSION + 1));
    let longer = sealed(RECORD_VERSION, &[payload, &[0]].concat());
    assert!(matches!(error(&longer), CodecError::Trailing(1)), "{name}");
    if let Some((_, shorter)) = payload.split_last() {
        assert!(matches!(error(&sealed(RECORD_VERSION, shorter)), CodecError::Malformed(_)), "{name}");
    }
}

/// A payload with a version and the checksum that fits.
fn sealed(version: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[version], payload].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn object() -> ObjectRef {
    ObjectRef { pool: PoolId(300), key: "0f/3c9a71d2e4b85f60".to_owned() }
}

fn inode(kind: FileKind, layout: Layout) -> Inode {
    Inode {
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 70_000,
        nlink: 2,
        size: 123_456_789_012,
        blocks: 241_126_541,
        rdev: 0x0801,
        atime: Timestamp::new(1_700_000_000, 1),
        mtime: Timestamp::new(-5, 999_999_999),
        ctime: Timestamp::new(1 << 33, 0),
        crtime: Timestamp::new(0, 250),
        parent: Ino(Ino::MAX.0),
        has_xattrs: true,
        dirty: false,
        layout,
    }
}

#[test]
fn tenant() {
    let record = TenantRecord {
        next_ino: 1_000_000,
        next_slot: 9,
        name_key: 0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978,
        pool: PoolId(1),
        usage: Usage { bytes: 1 << 40, inodes: 65_536 },
        quota: Quota { bytes: Some(u64::MAX), inodes: None },
    };
    check("tenant", &record);
}

#[test]
fn inodes() {
    check("inode-file", &inode(FileKind::File, Layout::Object(object())));
    let stored = StoredObject { object: object(), etag: "\"d41d8cd98f\"".to_owned(), size: 1 << 33 };
    check("inode-stored", &inode(FileKind::File, Layout::Stored(stored)));
    let adopted = Adopted {
        pool: PoolId(3),
        prefix: "data/train/".to_owned(),
        uid: 1000,
        gid: 70_000,
        mode: 0o640,
        progress: Progress::Unlisted,
    };
    let directory = |progress| {
        let adopted = Adopted { progress, ..adopted.clone() };
        inode(FileKind::Directory, Layout::Adopted(adopted))
    };
    check("inode-unlisted", &directory(Progress::Unlisted));
    let after = Some("data/train/x".to_owned());
    check("inode-importing", &directory(Progress::Importing { after }));
    check("inode-adopted", &directory(Progress::Complete));
    check("inode-small", &inode(FileKind::File, Layout::Small { pool: PoolId(3) }));
    check("inode-directory", &inode(FileKind::Directory, Layout::None));
    check("inode-symlink", &inode(FileKind::Symlink, Layout::Inline(b"../target/\xff".to_vec())));
    check("inode-fifo", &inode(FileKind::Fifo, Layout::None));
    check("inode-socket", &inode(FileKind::Socket, Layout::None));
    check("inode-char", &inode(FileKind::CharDevice, Layout::None));
    check("inode-block", &inode(FileKind::BlockDevice, Layout::None));
}

#[test]
fn entries() {
    check("entry-inode", &Entry::Inode { ino: Ino(77_000), kind: FileKind::File });
    let injected = Entry::Injected { share: ShareId(5), slot: Slot(301), kind: FileKind::Directory };
    check("entry-injected", &injected);
}

#[test]
fn an_inode_of_a_retired_layout_is_refused() {
    // As the version before wrote it.
    let golden = fs::read(path_of("inode-spread")).unwrap();
    assert!(matches!(codec::decode::<Inode>(&golden), Err(CodecError::Malformed(_))));
}

#[test]
fn xattr() {
    check("xattr", &b"a value \x00\xff".to_vec());
}

#[test]
fn contents() {
    check("contents", &b"the bytes of a small file \x00\xff".to_vec());
}

#[test]
fn sums() {
    check("sums", &vec![0_u64, 1, 0x0123_4567_89ab_cdef, u64::MAX]);
}

#[test]
fn orphan() {
    check("orphan", &());
}

#[test]
fn link() {
    check("link", &LinkRecord { names: 3 });
}

#[test]
fn grants() {
    let grant = |rights, expires, revoked| Grant {
        root: Ino(12),
        grantee: TenantId(70_001),
        rights,
        expires,
        revoked,
    };
    check("grant-live", &grant(Rights::ReadOnly, None, false));
    check("grant-revoked", &grant(Rights::ReadWrite, Some(Timestamp::new(1_900_000_000, 5)), true));
}

#[test]
fn lease_limit() {
    check("lease-limit", &LeaseLimit { seconds: 3600 });
}

#[test]
fn injection() {
    let record = Injection {
        share: ShareId(5),
        owner: TenantId(2),
        root: Ino(12),
        parent: Ino::ROOT,
        name: Name::new(b"from-b \xf0\x9f\x93\x81").unwrap(),
    };
    check("injection", &record);
}

#[test]
fn garbage() {
    check("garbage", &Garbage { not_before: Timestamp::new(1_800_000_000, 0) });
}

#[test]
fn every_golden_file_has_its_test() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let source = include_str!("golden.rs");
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let record = name.strip_suffix(".bin").unwrap_or_else(|| panic!("{name} is no golden file"));
        assert!(source.contains(&format!("(\"{record}\"")), "nothing checks {name}");
    }
}
