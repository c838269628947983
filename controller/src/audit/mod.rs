//! The audit log: who was given which way to which bytes of an object store, and until when. JSON lines in
//! `audit/leases.jsonl` of the state directory; what has grown too large is kept beside it, a bounded number of files.
//!
//! **Guarantees**: whoever is given something never waits for the log. An entry that found no place in the queue, or
//! could not be written, is counted, and the number stands in the log as soon as it can be written again. Nothing that
//! lets anybody read is ever in an entry: no signature, no credentials, no token.

mod rotation;

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;
use std::{io, thread};

use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use crate::resource::Time;
use rotation::{Bounds, Rotated};

/// Entries that wait to be written.
const QUEUE_MAX: usize = 16 * 1024;

/// What somebody was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// A signed address that reads one version of one object.
    Address,
    /// The bytes themselves: those of a small file.
    Bytes,
    /// A descriptor that reads what is being written.
    Read,
    /// A descriptor that writes.
    Write,
    /// A descriptor that reads one version of one object in the disk cache.
    Cached,
}

/// The share it was given through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Through {
    /// Its number, as in its status.
    pub share: u64,
    /// Number of the tenant whose file it is.
    pub owner: u32,
}

/// An object of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Its bucket.
    pub bucket: String,
    /// Its key, as the store knows it.
    pub key: String,
    /// What the store calls this version.
    pub etag: String,
    /// Its size, bytes. All of it can be read.
    pub size: u64,
}

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lent {
    /// When.
    pub time: Time,
    /// Name of the tenant whose mount it was given to.
    pub tenant: String,
    /// Its number.
    pub tenant_id: u32,
    /// The mount, as its control group is named.
    pub mount: String,
    /// Number of the inode, in the tree of the owner.
    pub ino: u64,
    /// How it was reached, if it is somebody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<Through>,
    /// What was given.
    pub access: Access,
    /// Number of the pool.
    pub pool: u32,
    /// Which object, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Object>,
    /// Until when; absent: until it is given back or taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// Stands where entries are missing.
#[derive(Serialize)]
struct Missing {
    time: Time,
    missing: u64,
}

/// The log, for those who write to it.
pub struct Audit {
    queue: Option<SyncSender<Lent>>,
    dropped: Dropped,
    writer: Option<JoinHandle<()>>,
}

/// How many entries are missing: counted where they get lost, shown with the other metrics.
#[derive(Clone, Debug, Default)]
pub struct Dropped(pub(crate) Counter);

impl Audit {
    /// No log: for those who have no directory.
    pub fn none() -> Self {
        Self { queue: None, dropped: Dropped::default(), writer: None }
    }

    /// Opens the log in a directory, which is made if it is missing, and starts the thread that writes to it.
    ///
    /// # Errors
    /// The directory or the file cannot be made, or the system gives no thread.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let file = Rotated::open(directory, Bounds::default())?;
        let (queue, entries) = sync_channel(QUEUE_MAX);
        let dropped = Dropped::default();
        let writer = Writer { file, dropped: dropped.clone(), told: 0, broken: false };
        let writer = thread::Builder::new().name("audit".into()).spawn(move || writer.run(&entries))?;
        Ok(Self { queue: Some(queue), dropped, writer: Some(writer) })
    }

    /// Notes what was given.
    pub fn note(&self, lent: Lent) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(lent) {
            self.dropped.0.inc();
        }
    }

    /// How many entries are missing.
    pub fn dropped(&self) -> Dropped {
        self.dropped.clone()
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // What waits is written to its end.
        self.queue = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the audit log has ended early");
        }
    }
}

/// The thread that writes.
struct Writer {
    file: Rotated,
    dropped: Dropped,
    /// How many of those that are missing the log tells of.
    told: u64,
    /// The last attempt to write has failed.
    broken: bool,
}

impl Writer {
    fn run(mut self, entries: &Receiver<Lent>) {
        while let Ok(lent) = entries.recv() {
            self.write(&lent);
            // Whatever else is there goes out together.
            for lent in entries.try_iter() {
                self.write(&lent);
            }
            self.tell_missing();
            let flushed = self.file.flush();
            self.judge(flushed, 0);
        }
    }

    fn write(&mut self, lent: &Lent) {
        let written = self.file.write_line(lent);
        self.judge(written, 1);
    }

    /// Says in the log how many entries are missing.
    fn tell_missing(&mut self) {
        let missing = self.dropped.0.get() - self.told;
        if missing == 0 {
            return;
        }
        let written = self.file.write_line(&Missing { time: SystemTime::now().into(), missing });
        if written.is_ok() {
            self.told += missing;
            tracing::warn!(missing, "entries of the audit log are missing");
        }
        self.judge(written, 0);
    }

    /// Counts what could not be written, and says so once until it works again.
    fn judge(&mut self, written: io::Result<()>, lost: u64) {
        match written {
            Ok(()) => self.broken = false,
            Err(error) => {
                self.dropped.0.inc_by(lost);
                if !std::mem::replace(&mut self.broken, true) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the audit log cannot be written"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn lent(number: u64) -> Lent {
        Lent {
            time: SystemTime::UNIX_EPOCH.into(),
            tenant: "a".to_owned(),
            tenant_id: 1,
            mount: "7".to_owned(),
            ino: number,
            through: None,
            access: Access::Write,
            pool: 2,
            object: None,
            until: None,
        }
    }

    #[test]
    fn all_that_is_noted_is_there_when_the_log_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::start(&dir.path().join("audit")).unwrap();
        (0..1000).for_each(|number| audit.note(lent(number)));
        drop(audit);
        let text = std::fs::read_to_string(dir.path().join("audit/leases.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1000);
        assert_eq!(lines[999]["ino"], 999);
        assert_eq!(lines[0]["access"], "write");
    }

    #[test]
    fn what_found_no_place_is_counted_and_told_and_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, entries) = sync_channel(2);
        let audit = Audit { queue: Some(queue), dropped: Dropped::default(), writer: None };
        (0..5).for_each(|number| audit.note(lent(number)));
        assert_eq!(audit.dropped().0.get(), 3);
        let file = Rotated::open(dir.path(), Bounds::default()).unwrap();
        let writer = Writer { file, dropped: audit.dropped(), told: 0, broken: false };
        drop(audit);
        writer.run(&entries);
        let text = std::fs::read_to_string(dir.path().join("leases.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((text.lines().count(), &last["missing"]), (3, &serde_json::json!(3)));
    }
}
