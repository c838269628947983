//! Who writes a file, over a while: what was seen of its bytes holds if no writer has come or gone since.

use super::{File, LeaseTable};

/// A change of a file's bytes by this process: it counts as a writer until it is dropped.
pub struct Changing<'a> {
    table: &'a LeaseTable,
    file: File,
}

/// What has become of a file's writers since a [`Watch`] began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// There was none: what was seen of the bytes meanwhile is how they are.
    None,
    /// There is one.
    Some,
    /// There is none now, but there was.
    Gone,
}

/// A look at the bytes of a file under way, during which its writers are watched.
pub struct Watch<'a> {
    table: &'a LeaseTable,
    file: File,
    since: u64,
}

impl LeaseTable {
    /// Begins a change of a file's bytes.
    pub fn change(&self, file: File) -> Changing<'_> {
        let mut holds = self.holds.lock();
        let of_file = holds.by_file.entry(file).or_default();
        of_file.changing += 1;
        of_file.writers_changed += 1;
        Changing { table: self, file }
    }

    /// Begins to watch who writes a file.
    pub fn watch_writers(&self, file: File) -> Watch<'_> {
        let mut holds = self.holds.lock();
        let of_file = holds.by_file.entry(file).or_default();
        // Keeps the count where it is while nobody holds the file.
        of_file.watches += 1;
        Watch { table: self, file, since: of_file.writers_changed }
    }
}

impl Watch<'_> {
    /// What has become of the writers.
    pub fn writers(&self) -> Writers {
        let holds = self.table.holds.lock();
        match holds.by_file.get(&self.file) {
            Some(of_file) if of_file.is_written() => Writers::Some,
            Some(of_file) if of_file.writers_changed == self.since => Writers::None,
            _ => Writers::Gone,
        }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let mut holds = self.table.holds.lock();
        if let Some(of_file) = holds.by_file.get_mut(&self.file) {
            of_file.changing -= 1;
            of_file.writers_changed += 1;
        }
        holds.drop_if_unknown(self.file);
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut holds = self.table.holds.lock();
        if let Some(of_file) = holds.by_file.get_mut(&self.file) {
            of_file.watches -= 1;
        }
        holds.drop_if_unknown(self.file);
    }
}

#[cfg(test)]
mod tests {
    use address_map::ids::{Ino, NodeId, TenantId};

    use super::*;
    use crate::session::SessionId;

    const FILE: File = (TenantId(1), Ino(9));
    const WRITER: (SessionId, NodeId) = (SessionId(1), NodeId(9));

    #[test]
    fn a_writer_that_came_and_went_meanwhile_is_noticed() {
        let table = LeaseTable::default();
        let watch = table.watch_writers(FILE);
        table.hold(FILE, WRITER, false);
        table.release(WRITER);
        assert_eq!(watch.writers(), Writers::None, "readers do not count");
        table.hold(FILE, WRITER, true);
        assert_eq!(watch.writers(), Writers::Some);
        table.release(WRITER);
        assert_eq!(watch.writers(), Writers::Gone);
        drop(watch);
        assert!(table.holds.lock().by_file.is_empty());
    }

    #[test]
    fn a_writer_that_was_there_before_is_noticed_when_it_closes() {
        let table = LeaseTable::default();
        table.hold(FILE, WRITER, true);
        let watch = table.watch_writers(FILE);
        table.close_write(FILE, WRITER, false);
        assert_eq!(watch.writers(), Writers::Gone);
        assert_eq!(table.watch_writers(FILE).writers(), Writers::None);
    }

    #[test]
    fn a_change_of_ours_is_a_writer_and_holds_nothing() {
        let table = LeaseTable::default();
        let watch = table.watch_writers(FILE);
        let change = table.change(FILE);
        assert_eq!(watch.writers(), Writers::Some);
        assert!(table.is_written(FILE) && !table.is_held(FILE));
        drop(change);
        assert_eq!(watch.writers(), Writers::Gone);
    }
}
