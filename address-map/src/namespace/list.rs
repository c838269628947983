//! Directory listings, page by page, with positions that stay valid while names come and go.

use super::need_directory;
use crate::error::Result;
use crate::ids::Ino;
use crate::key;
use crate::name::Name;
use crate::record::Entry;
use crate::shard::{Records, decode};

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Position: stable, larger than that of all entries before.
    pub cookie: u64,
    /// The name.
    pub name: Name,
    /// Where it leads.
    pub entry: Entry,
}

/// Calls `visit` for each entry of `directory` whose cookie is larger than `after`, in order of cookies, until it
/// answers `false`; entries that share a cookie are never separated. Answers whether the end was reached.
pub fn list<R: Records>(
    records: &R,
    directory: Ino,
    after: u64,
    visit: &mut dyn FnMut(Listed) -> Result<bool>,
) -> Result<bool> {
    need_directory(records, directory)?;
    let Some(from) = after.checked_add(1) else { return Ok(true) };
    let start = key::entries_from(records.tenant(), directory, from);
    let end = key::after_prefix(&key::entries(records.tenant(), directory));
    let mut stopped_at = None;
    let mut complete = true;
    records.scan(&start, end.as_deref(), &mut |key, value| {
        let Some((_, cookie, name)) = key::parse_entry(key) else { return Ok(true) };
        if stopped_at.is_some_and(|at| at != cookie) {
            complete = false;
            return Ok(false);
        }
        if !visit(Listed { cookie, name, entry: decode(key, value)? })? {
            stopped_at = Some(cookie);
        }
        Ok(true)
    })?;
    Ok(complete)
}
