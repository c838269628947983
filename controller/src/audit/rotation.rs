//! A file of JSON lines that is put aside when it has grown too large, and a bounded number of such files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where the log stops growing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Largest file, bytes.
    pub(super) bytes: u64,
    /// Files that are put aside.
    pub(super) files: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 16 << 20, files: 7 }
    }
}

/// See the module.
pub(super) struct Rotated {
    directory: PathBuf,
    bounds: Bounds,
    file: BufWriter<File>,
    /// Bytes in the file and on their way to it.
    size: u64,
    line: Vec<u8>,
}

impl Rotated {
    /// Opens the file; what is there is kept.
    pub(super) fn open(directory: &Path, bounds: Bounds) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let file = append_to(&current(directory))?;
        let size = file.metadata()?.len();
        let mut this = Self {
            directory: directory.to_owned(),
            bounds,
            file: BufWriter::new(file),
            size,
            line: Vec::new(),
        };
        if size > 0 {
            // A line that a crash has left half written ends here.
            this.put_aside()?;
        }
        Ok(this)
    }

    /// Appends a line.
    pub(super) fn write_line(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        let length = self.line.len() as u64;
        if self.size > 0 && self.size + length > self.bounds.bytes {
            self.put_aside()?;
        }
        self.file.write_all(&self.line)?;
        self.size += length;
        Ok(())
    }

    /// What was appended is with the kernel when this returns.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// `leases.jsonl` becomes `leases.1.jsonl`, that becomes `leases.2.jsonl`, and the oldest goes.
    fn put_aside(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let aside = |number: u32| self.directory.join(format!("leases.{number}.jsonl"));
        for number in (1..self.bounds.files).rev() {
            match fs::rename(aside(number), aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(current(&self.directory), aside(1))?;
        self.file = BufWriter::new(append_to(&current(&self.directory))?);
        self.size = 0;
        Ok(())
    }
}

fn current(directory: &Path) -> PathBuf {
    directory.join("leases.jsonl")
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::super::tests::lent;
    use super::*;

    fn files(directory: &Path) -> Vec<(String, u64)> {
        let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn the_log_stops_growing_and_the_youngest_entries_stay() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds { bytes: 1000, files: 3 };
        let mut log = Rotated::open(dir.path(), bounds).unwrap();
        (0..200).for_each(|number| log.write_line(&lent(number)).unwrap());
        log.flush().unwrap();
        let all = files(dir.path());
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(all.iter().all(|(_, size)| *size <= bounds.bytes), "{all:?}");
        let youngest = fs::read_to_string(dir.path().join("leases.jsonl")).unwrap();
        assert!(youngest.trim_end().lines().last().unwrap().contains("\"ino\":199"), "{youngest}");
        let before = fs::read_to_string(dir.path().join("leases.1.jsonl")).unwrap();
        let next = |text: &str, last: bool| -> u64 {
            let line = if last { text.lines().last() } else { text.lines().next() };
            serde_json::from_str::<serde_json::Value>(line.unwrap()).unwrap()["ino"].as_u64().unwrap()
        };
        assert_eq!(next(&before, true) + 1, next(&youngest, false), "no entry is missing in between");
    }

    #[test]
    fn a_log_that_is_opened_again_keeps_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("leases.jsonl"), "{\"half\": a li").unwrap();
        let mut log = Rotated::open(dir.path(), Bounds::default()).unwrap();
        log.write_line(&lent(1)).unwrap();
        log.flush().unwrap();
        assert_eq!(fs::read(dir.path().join("leases.1.jsonl")).unwrap(), b"{\"half\": a li");
        let text = fs::read_to_string(dir.path().join("leases.jsonl")).unwrap();
        serde_json::from_str::<serde_json::Value>(text.trim_end()).unwrap();
    }
}
