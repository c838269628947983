//! POSIX access control lists (POSIX.1e draft 17): what they say, and how they and permission bits follow each other.
//!
//! Lists are stored, and arrive, as values of two extended attributes, in the encoding of Linux: a header with version
//! 2, then entries of tag, permissions and id, all little-endian. The kernel checks accesses against them; here it is
//! seen to that a list is well-formed, and that list and permission bits never contradict each other.

use std::collections::BTreeSet;

use crate::error::{Refusal, Result};

/// The attribute with the list that governs access to an inode.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of a directory with the list that new inodes in it begin with.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Version in the header of an encoded list.
const VERSION: u32 = 2;
/// Bytes of the header.
const HEADER_BYTES: usize = 4;
/// Bytes of one entry.
const ENTRY_BYTES: usize = 8;
/// Largest encoded list, bytes: the kernel takes no more than a page.
const ENCODED_MAX: usize = 4096;
/// Id of entries that name nobody.
const NOBODY: u32 = u32::MAX;
/// The permission bits of a mode that a list governs.
const GOVERNED: u32 = 0o777;

/// Whom an entry is about, in the order in which they stand in a list. Numbers are those of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
enum Tag {
    /// The owner.
    Owner = 0x01,
    /// A user by number.
    User = 0x02,
    /// The owning group.
    OwningGroup = 0x04,
    /// A group by number.
    Group = 0x08,
    /// Upper bound of what all but the owner and others have.
    Mask = 0x10,
    /// Everybody else.
    Others = 0x20,
}

impl Tag {
    fn of(number: u16) -> Option<Self> {
        [Self::Owner, Self::User, Self::OwningGroup, Self::Group, Self::Mask, Self::Others]
            .into_iter()
            .find(|tag| *tag as u16 == number)
    }

    fn names_somebody(self) -> bool {
        matches!(self, Self::User | Self::Group)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    /// Read, write, execute: three bits.
    permissions: u16,
    id: u32,
}

/// A well-formed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// Reads an encoded list; `None` is the list without entries, which stands for "no list".
    ///
    /// Refused is whatever POSIX or Linux would not take: other versions, odd lengths, unknown tags and permissions,
    /// entries out of order, missing or doubled ones, and named users or groups without a mask.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.len() > ENCODED_MAX {
            return Err(Refusal::AttributeTooLarge.into());
        }
        let Some((version, entries)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return if bytes.is_empty() { Ok(None) } else { Err(Refusal::Invalid.into()) };
        };
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return Err(Refusal::Invalid.into());
        }
        let entries: Option<Vec<Entry>> = entries.iter().map(decode_entry).collect();
        match entries {
            Some(entries) if entries.is_empty() => Ok(None),
            Some(entries) if is_well_formed(&entries) => Ok(Some(Self(entries))),
            _ => Err(Refusal::Invalid.into()),
        }
    }

    /// The list as it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend((entry.tag as u16).to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// The permission bits of an inode with this list: the group's are those of the mask, if there is one.
    pub fn apply_to(&self, mode: u32) -> u32 {
        let bits = |tag| self.find(tag).map(|at| u32::from(self.0[at].permissions));
        let group = bits(Tag::Mask).or(bits(Tag::OwningGroup)).unwrap_or(0);
        let governed = bits(Tag::Owner).unwrap_or(0) << 6 | group << 3 | bits(Tag::Others).unwrap_or(0);
        mode & !GOVERNED | governed
    }

    /// Whether the permission bits alone say the same.
    pub fn is_minimal(&self) -> bool {
        !self.0.iter().any(|entry| entry.tag.names_somebody() || entry.tag == Tag::Mask)
    }

    /// Follows a change of permission bits (`chmod`): the group's become the mask, if there is one.
    pub fn follow(&mut self, mode: u32) {
        self.each_class(mode, |permissions, bits| *permissions = bits);
    }

    /// What an inode made with `mode` begins with where this is the directory's default list; the umask has no say.
    /// Answers the inode's permission bits.
    pub fn inherit(&mut self, mode: u32) -> u32 {
        self.each_class(mode, |permissions, bits| *permissions &= bits);
        self.apply_to(mode)
    }

    /// Calls `change` with the permissions and the bits of `mode` of the three classes that permission bits know.
    fn each_class(&mut self, mode: u32, change: impl Fn(&mut u16, u16)) {
        let group = self.find(Tag::Mask).or(self.find(Tag::OwningGroup));
        for (at, shift) in [(self.find(Tag::Owner), 6), (group, 3), (self.find(Tag::Others), 0)] {
            if let Some(at) = at {
                // Three bits.
                change(&mut self.0[at].permissions, (mode >> shift & 7) as u16);
            }
        }
    }

    fn find(&self, tag: Tag) -> Option<usize> {
        self.0.iter().position(|entry| entry.tag == tag)
    }
}

fn decode_entry(bytes: &[u8; ENTRY_BYTES]) -> Option<Entry> {
    let [t0, t1, p0, p1, id @ ..] = *bytes;
    let tag = Tag::of(u16::from_le_bytes([t0, t1]))?;
    let permissions = u16::from_le_bytes([p0, p1]);
    let id = u32::from_le_bytes(id);
    let id = match (tag.names_somebody(), id) {
        (true, NOBODY) => return None,
        (true, id) => id,
        // Linux ignores what is written here.
        (false, _) => NOBODY,
    };
    (permissions <= 7).then_some(Entry { tag, permissions, id })
}

fn is_well_formed(entries: &[Entry]) -> bool {
    let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
    let mut seen = BTreeSet::new();
    entries.is_sorted_by_key(|entry| entry.tag)
        && entries.iter().all(|entry| seen.insert((entry.tag, entry.id)))
        && [Tag::Owner, Tag::OwningGroup, Tag::Others].into_iter().all(|tag| count(tag) == 1)
        && (count(Tag::Mask) == 1 || count(Tag::User) + count(Tag::Group) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(tag, permissions, id)` of each entry, encoded.
    fn encoded(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    const PLAIN: [(u16, u16, u32); 3] = [(1, 6, NOBODY), (4, 4, NOBODY), (0x20, 0, NOBODY)];
    const NAMED: [(u16, u16, u32); 6] =
        [(1, 7, NOBODY), (2, 6, 1000), (2, 4, 1001), (4, 5, NOBODY), (0x10, 6, NOBODY), (0x20, 4, NOBODY)];

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::decode(&encoded(entries)).unwrap().unwrap()
    }

    fn refused(bytes: &[u8]) {
        assert_eq!(Acl::decode(bytes).unwrap_err().refusal(), Refusal::Invalid, "{bytes:?}");
    }

    #[test]
    fn lists_survive_the_round_trip() {
        for entries in [&PLAIN[..], &NAMED] {
            assert_eq!(acl(entries).encode(), encoded(entries));
        }
        assert_eq!(Acl::decode(&[]).unwrap(), None);
        assert_eq!(Acl::decode(&encoded(&[])).unwrap(), None);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let good = encoded(&NAMED);
        for length in 1..good.len() {
            if length != HEADER_BYTES {
                refused(&good[..length]);
            }
        }
        refused(&[&1u32.to_le_bytes(), &good[4..]].concat());
        // An unknown tag, an unknown permission, a named user without a name.
        refused(&encoded(&[PLAIN[0], PLAIN[1], (0x40, 0, NOBODY)]));
        refused(&encoded(&[(1, 8, NOBODY), PLAIN[1], PLAIN[2]]));
        refused(&encoded(&[NAMED[0], (2, 7, NOBODY), NAMED[3], NAMED[4], NAMED[5]]));
        // Out of order, doubled, missing.
        for at in 0..NAMED.len() {
            let mut entries = NAMED.to_vec();
            entries.insert(at, entries[at]);
            refused(&encoded(&entries));
            if NAMED[at].0 != 2 {
                let mut entries = NAMED.to_vec();
                entries.remove(at);
                refused(&encoded(&entries));
            }
        }
        refused(&encoded(&[PLAIN[1], PLAIN[0], PLAIN[2]]));
    }

    #[test]
    fn a_list_has_a_bound() {
        let with = |named: u32| {
            let mut entries = vec![PLAIN[0]];
            entries.extend((0..named).map(|id| (2, 7, id)));
            entries.extend([PLAIN[1], (0x10, 7, NOBODY), PLAIN[2]]);
            Acl::decode(&encoded(&entries))
        };
        let most = ((ENCODED_MAX - HEADER_BYTES) / ENTRY_BYTES - 4) as u32;
        assert!(with(most).unwrap().is_some());
        assert_eq!(with(most + 1).unwrap_err().refusal(), Refusal::AttributeTooLarge);
    }

    #[test]
    fn permission_bits_and_lists_follow_each_other() {
        assert!(acl(&PLAIN).is_minimal() && !acl(&NAMED).is_minimal());
        assert_eq!(acl(&PLAIN).apply_to(0o4777), 0o4640);
        assert_eq!(acl(&NAMED).apply_to(0), 0o764);
        let mut followed = acl(&NAMED);
        followed.follow(0o051);
        assert_eq!(followed.apply_to(0o2000), 0o2051);
        assert_eq!(followed.0[3].permissions, 5, "the owning group keeps what it has, below the mask");
        let mut followed = acl(&PLAIN);
        followed.follow(0o570);
        assert_eq!(followed.0[1].permissions, 7, "without a mask it is the owning group that changes");
    }

    #[test]
    fn inherited_lists_give_no_more_than_was_asked_for() {
        let mut inherited = acl(&NAMED);
        assert_eq!(inherited.inherit(0o1640), 0o1640);
        assert_eq!(inherited.0[4].permissions, 4);
        let mut inherited = acl(&PLAIN);
        assert_eq!(inherited.inherit(0o777), 0o640);
    }
}
