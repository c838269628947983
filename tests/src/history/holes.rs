//! Looking for holes where a file system need not find those that another one finds: what it answers is judged by the
//! bytes of the file.
//!
//! That everything is data is always right. What is said to be a hole has to be zeroes.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;

use super::act::Seen;
use super::step::Whence;

/// Looks for data or a hole at `from` or behind it. Answers alike on all file systems as long as they answer right; the
/// position of the file stays what it is.
pub(super) fn look(file: &OwnedFd, what: Whence, from: u64) -> Result<Seen, Errno> {
    let stat = rustix::fs::fstat(file)?;
    let find = || match what {
        Whence::Hole => rustix::fs::seek(file, SeekFrom::Hole(from)),
        _ => rustix::fs::seek(file, SeekFrom::Data(from)),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        // Positions there are the file system's own business.
        FileType::Directory => return Ok(Seen::Done),
        _ => return find().map(Seen::Number),
    }
    let size = u64::try_from(stat.st_size).expect("no size is negative");
    let before = rustix::fs::tell(file)?;
    let found = find();
    rustix::fs::seek(file, SeekFrom::Start(before))?;
    let right = match (what, found) {
        _ if from >= size => return found.map(Seen::Number),
        (Whence::Hole, Ok(found)) if found < size => found >= from && is_zero(file, found, found + 1)?,
        (Whence::Hole, found) => found == Ok(size),
        (_, Ok(found)) => (from..size).contains(&found) && is_zero(file, from, found)?,
        // Nothing but holes is left.
        (_, Err(Errno::NXIO)) => is_zero(file, from, size)?,
        (_, Err(_)) => false,
    };
    if right { Ok(Seen::Done) } else { found.map(Seen::Number) }
}

/// Whether all these bytes are zero, as far as this handle may read them.
fn is_zero(file: &OwnedFd, from: u64, to: u64) -> Result<bool, Errno> {
    let mut bytes = vec![0; (to - from) as usize];
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(file, &mut bytes[done..], from + done as u64) {
            Ok(0) | Err(Errno::BADF) => break,
            Ok(read) => done += read,
            Err(error) => return Err(error),
        }
    }
    Ok(bytes[..done].iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn answers_are_judged_by_the_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100]).unwrap();
        file.write_all_at(&[1], 20_000).unwrap();
        file.set_len(40_000).unwrap();
        let file = OwnedFd::from(file);
        for what in [Whence::Data, Whence::Hole] {
            for from in [0, 50, 5_000, 20_000, 30_000, 39_999] {
                assert!(matches!(look(&file, what, from), Ok(Seen::Done)), "{what:?} {from}");
            }
            assert!(matches!(look(&file, what, 40_000), Err(Errno::NXIO)));
        }
        assert_eq!(rustix::fs::tell(&file).unwrap(), 100);
        assert!(is_zero(&file, 100, 20_000).unwrap() && !is_zero(&file, 99, 101).unwrap());
    }
}
