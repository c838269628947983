//! Cuts off what a power loss has left of unsynced commits, before fjall sees it.
//!
//! fjall refuses a journal with a commit whose middle is missing, and ends one silently where it cannot read on, also
//! in the middle of what was synced. So every journal is read before: what a loss of power or of the process leaves is
//! cut off, and what only damage explains is refused.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::StoreError;
use super::journal::{journal_path, numbers};
use super::scan::{PAGE, Rest, scan};

/// Bytes read at once while looking for the end of what was written.
const CHUNK: usize = 16 * PAGE;
/// Holds the last thing that was cut off because a page of it was missing.
const CUT_FILE: &str = "CUT";
const CUT_DRAFT: &str = "CUT.new";

/// Makes the journals in `directory` what they were after their last whole commit. `store` keeps what was cut off.
///
/// Nothing else may use them. Fails with [`StoreError::Damaged`] where something that may have been synced would go.
pub(super) fn repair(store: &Path, directory: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { path: store.to_owned(), source };
    if !directory.try_exists().map_err(failed)? {
        return Ok(());
    }
    let numbers = numbers(directory).map_err(failed)?;
    let newest = numbers.iter().max().copied();
    for number in numbers {
        let path = journal_path(directory, number);
        let written = read_written(&path).map_err(failed)?;
        let scan = scan(&written);
        let damaged = || StoreError::Damaged { journal: path.clone(), at: scan.whole as u64 };
        match scan.rest {
            Rest::Nothing => {}
            Rest::Damaged => return Err(damaged()),
            // A journal is synced before the next one is made.
            _ if Some(number) != newest => return Err(damaged()),
            Rest::Unfinished => {
                tracing::info!(journal = %path.display(), at = scan.whole, "dropping an unfinished commit");
                cut(&path, scan.whole).map_err(failed)?;
            }
            Rest::Unwritten(hole) => {
                let bytes = written.len() - scan.whole;
                tracing::warn!(journal = %path.display(), at = scan.whole, hole, bytes,
                    "dropping unsynced commits: a page of the first was never written");
                // Only of use to who wants to look at it: not a reason to keep the store closed.
                if let Err(error) = keep(store, &written[scan.whole..]) {
                    tracing::warn!(%error, "cannot keep what is dropped");
                }
                cut(&path, scan.whole).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// The journal up to its last byte that is not zero: behind it is only what was preallocated.
fn read_written(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let (mut end, mut chunk) = (file.metadata()?.len(), vec![0; CHUNK]);
    let zeros = vec![0; CHUNK];
    while end > 0 {
        let from = (end - 1) / CHUNK as u64 * CHUNK as u64;
        let part = &mut chunk[..(end - from) as usize];
        file.read_exact_at(part, from)?;
        if *part != zeros[..part.len()] {
            end = from + part.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
            break;
        }
        end = from;
    }
    let mut written = vec![0; end as usize];
    file.read_exact_at(&mut written, 0)?;
    Ok(written)
}

fn cut(path: &Path, at: usize) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(at as u64)?;
    file.sync_all()
}

fn keep(store: &Path, cut: &[u8]) -> io::Result<()> {
    let draft = store.join(CUT_DRAFT);
    fs::write(&draft, cut)?;
    File::open(&draft)?.sync_all()?;
    fs::rename(draft, store.join(CUT_FILE))
}
