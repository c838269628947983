//! Address leases: who holds a descriptor of which file, and who may be writing it.
//!
//! The table is what keeps an unlinked file alive while somebody has it open, and what says when the last writer is
//! gone. It lives in memory: it ends with the sessions it speaks of.

use std::collections::HashMap;

use address_map::ids::{Ino, NodeId, TenantId};
use parking_lot::Mutex;

mod writers;

pub use writers::{Changing, Watch, Writers};

use crate::session::SessionId;

/// A file: whose, and which.
pub type File = (TenantId, Ino);
/// Who holds it: a session, and the node it knows the file by.
pub type Holder = (SessionId, NodeId);

/// One holder's hold on one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// It may be writing.
    pub write: bool,
    /// Number of the file at the kernel for passthrough, if it was registered.
    pub backing: Option<u32>,
    /// Handles may be left of which the VMDS knows nothing, because its predecessor opened them: the hold lasts until
    /// the kernel has forgotten the file, and so does `write` where they may write without asking.
    pub inherited: bool,
    /// Where it reads what nobody writes.
    pub reads: Reads,
}

/// Where a holder reads a file of an object store that nobody writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// It has been told of no place, or that is not known.
    #[default]
    Unknown,
    /// In the disk cache: what that has stays.
    Cache,
    /// In the disk cache or in the store: what it holds is older than this process.
    Resumed,
    /// In the store, with addresses of this version, until it lets go of the file.
    Address(u64),
}

/// What is known of one file.
#[derive(Default)]
struct OfFile {
    holders: HashMap<Holder, Hold>,
    /// Changes of its bytes that this process is making itself.
    changing: u32,
    /// Watches of its writers.
    watches: u32,
    /// How often a writer has come or gone.
    writers_changed: u64,
}

impl OfFile {
    fn is_written(&self) -> bool {
        self.changing > 0 || self.holders.values().any(|hold| hold.write)
    }

    fn is_unknown(&self) -> bool {
        self.holders.is_empty() && self.changing == 0 && self.watches == 0
    }
}

#[derive(Default)]
struct Holds {
    by_file: HashMap<File, OfFile>,
    by_holder: HashMap<Holder, File>,
}

impl Holds {
    fn hold(&mut self, file: File, holder: Holder) -> Option<&mut Hold> {
        self.by_file.get_mut(&file)?.holders.get_mut(&holder)
    }

    fn drop_if_unknown(&mut self, file: File) {
        if self.by_file.get(&file).is_some_and(OfFile::is_unknown) {
            self.by_file.remove(&file);
        }
    }
}

/// Files held open.
#[derive(Default)]
pub struct LeaseTable {
    holds: Mutex<Holds>,
}

impl LeaseTable {
    /// Notes that a file is held, before a descriptor is given out. Answers the hold as it is now.
    pub fn hold(&self, file: File, holder: Holder, write: bool) -> Hold {
        let mut holds = self.holds.lock();
        holds.by_holder.insert(holder, file);
        let of_file = holds.by_file.entry(file).or_default();
        let hold = of_file.holders.entry(holder).or_default();
        of_file.writers_changed += u64::from(write && !hold.write);
        hold.write |= write;
        *hold
    }

    /// Notes the kernel's number of a held file.
    pub fn set_backing(&self, file: File, holder: Holder, backing: u32) {
        if let Some(hold) = self.holds.lock().hold(file, holder) {
            hold.backing = Some(backing);
        }
    }

    /// Notes where a holder of a file reads.
    pub fn set_reads(&self, file: File, holder: Holder, reads: Reads) {
        if let Some(hold) = self.holds.lock().hold(file, holder) {
            hold.reads = reads;
        }
    }

    /// Where a holder of a file reads.
    pub fn reads(&self, file: File, holder: Holder) -> Reads {
        self.holds.lock().hold(file, holder).map(|hold| hold.reads).unwrap_or_default()
    }

    /// Whether anybody reads a file in the disk cache.
    pub fn is_cached(&self, file: File) -> bool {
        let holds = self.holds.lock();
        let of_file = holds.by_file.get(&file);
        of_file.is_some_and(|of_file| {
            of_file.holders.values().any(|hold| matches!(hold.reads, Reads::Cache | Reads::Resumed))
        })
    }

    /// Notes that a holder knows of no writer any more. `all_ask`: whoever has the file open beside those that it knows of
    /// cannot write without asking for a lease; otherwise a predecessor's handles may, so it stays written.
    pub fn close_write(&self, file: File, holder: Holder, all_ask: bool) {
        let mut holds = self.holds.lock();
        let Some(of_file) = holds.by_file.get_mut(&file) else { return };
        let Some(hold) = of_file.holders.get_mut(&holder) else { return };
        let stays = hold.inherited && !all_ask;
        of_file.writers_changed += u64::from(hold.write && !stays);
        hold.write &= stays;
    }

    /// A session's VMDS was replaced: what its predecessor had open may still be.
    pub fn inherit(&self, session: SessionId) {
        let mut holds = self.holds.lock();
        let all = holds.by_file.values_mut().flat_map(|of_file| &mut of_file.holders);
        all.filter(|((id, _), _)| *id == session).for_each(|(_, hold)| hold.inherited = true);
    }

    /// Whether a hold lasts although its VMDS knows of no handle.
    pub fn is_inherited(&self, holder: Holder) -> bool {
        let mut holds = self.holds.lock();
        let file = holds.by_holder.get(&holder).copied();
        file.and_then(|file| holds.hold(file, holder)).is_some_and(|hold| hold.inherited)
    }

    /// Ends a hold; answers on which file, and what it was.
    pub fn release(&self, holder: Holder) -> Option<(File, Hold)> {
        let mut holds = self.holds.lock();
        let file = holds.by_holder.remove(&holder)?;
        let of_file = holds.by_file.get_mut(&file)?;
        let hold = of_file.holders.remove(&holder)?;
        of_file.writers_changed += u64::from(hold.write);
        holds.drop_if_unknown(file);
        Some((file, hold))
    }

    /// Whether anybody holds a file.
    pub fn is_held(&self, file: File) -> bool {
        self.holds.lock().by_file.get(&file).is_some_and(|of_file| !of_file.holders.is_empty())
    }

    /// Whether anybody may be writing a file.
    pub fn is_written(&self, file: File) -> bool {
        self.holds.lock().by_file.get(&file).is_some_and(OfFile::is_written)
    }

    /// Whether any other session than this one may be writing a file.
    pub fn is_written_by_others(&self, file: File, session: SessionId) -> bool {
        let holds = self.holds.lock();
        let of_file = holds.by_file.get(&file);
        of_file
            .is_some_and(|of_file| of_file.holders.iter().any(|((id, _), hold)| hold.write && *id != session))
    }

    /// Who holds a file.
    pub fn holders(&self, file: File) -> Vec<Holder> {
        let holds = self.holds.lock();
        holds.by_file.get(&file).map(|of_file| of_file.holders.keys().copied().collect()).unwrap_or_default()
    }

    /// Everything a session holds.
    pub fn held_by(&self, session: SessionId) -> Vec<Holder> {
        self.holds.lock().by_holder.keys().filter(|(id, _)| *id == session).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: File = (TenantId(1), Ino(9));

    #[test]
    fn a_file_is_held_until_its_last_holder_lets_go() {
        let table = LeaseTable::default();
        let (writer, reader) = ((SessionId(1), NodeId(9)), (SessionId(2), NodeId(1 << 48 | 9)));
        table.hold(FILE, writer, true);
        table.hold(FILE, reader, false);
        assert!(table.is_written(FILE));
        table.close_write(FILE, writer, false);
        assert!(!table.is_written(FILE));
        assert_eq!(table.release(writer), Some((FILE, Hold::default())));
        assert_eq!(table.held_by(SessionId(2)), [reader]);
        assert!(table.is_held(FILE));
        table.release(reader);
        assert!(!table.is_held(FILE));
        assert!(table.release(reader).is_none());
    }

    #[test]
    fn what_is_read_in_the_disk_cache_is_until_it_is_released() {
        let table = LeaseTable::default();
        let (one, other) = ((SessionId(1), NodeId(9)), (SessionId(2), NodeId(9)));
        table.set_reads(FILE, one, Reads::Cache);
        assert!(!table.is_cached(FILE), "who does not hold it does not read it");
        table.hold(FILE, one, false);
        table.hold(FILE, other, false);
        table.set_reads(FILE, one, Reads::Cache);
        table.set_reads(FILE, other, Reads::Address(7));
        assert!(table.is_cached(FILE));
        table.release(one);
        assert!(!table.is_cached(FILE));
        assert_eq!((table.reads(FILE, one), table.reads(FILE, other)), (Reads::Unknown, Reads::Address(7)));
    }

    #[test]
    fn what_a_predecessor_wrote_stays_written_until_it_is_released() {
        let table = LeaseTable::default();
        let writer = (SessionId(1), NodeId(9));
        table.hold(FILE, writer, true);
        table.inherit(SessionId(1));
        table.close_write(FILE, writer, false);
        assert!(table.is_written(FILE) && table.is_inherited(writer));
        table.close_write(FILE, writer, true);
        assert!(!table.is_written(FILE) && table.is_inherited(writer), "who writes would have to ask");
        assert!(table.release(writer).is_some());
        assert!(!table.is_held(FILE) && !table.is_inherited(writer));
    }
}
