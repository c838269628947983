//! An `s3` pool: a bucket, or what is below a prefix of one, and a local *staging directory*.
//!
//! Objects are immutable: new bytes get a new key. A file that is being written is in the staging directory, and is
//! uploaded as one new object when it is whole. A VMDS reads objects itself, with signed addresses ([`SignedGet`]) on
//! connections that were made for it ([`S3Pool::connect`]); it never holds a key.
//!
//! Credentials are read here and stay here: no status, log, error or `Debug` shows them or anything signed with them.
//!
//! Keys are given without the pool's prefix. One that begins with '/' is, behind that, a whole key of the bucket: of an
//! object that was there before ([`address_map::namespace::object::adopted_address`]).

mod body;
mod browse;
mod client;
mod clock;
mod connect;
mod credentials;
mod download;
mod error;
mod multipart;
mod new_object;
mod objects;
mod plain;
mod presign;
mod probe;
mod relay;
mod runtime;
mod settings;
mod staging;
mod stale;
mod tls;
mod trust;
mod upload;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_sdk_s3::Client;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use browse::{Findings, Found, SEPARATOR, Span};
pub use error::S3Error;
pub use multipart::{part_size, parts};
pub use new_object::{Base, NewObject, Uploaded};
pub use objects::{Listed, Page};
pub use presign::SignedGet;
pub use probe::PROBE_KEY;
pub use relay::Relays;
pub use runtime::S3Runtime;
pub use settings::{Endpoint, S3Settings};
pub use staging::{NOTE, NOTE_MAX};
pub use upload::WHOLE_MAX;

use super::Deadline;
use crate::resource::EtagForm;
pub use crate::resource::S3Capabilities as Capabilities;
use clock::ClockWatch;
use credentials::Keyring;
use tls::Tls;
use trust::Trust;

/// Transfers of one pool at the same time; each holds about a megabyte.
const TRANSFERS_MAX: usize = 16;
/// Of these, transfers by way of memory; each holds a part.
const BUFFERED_MAX: usize = 4;

/// See the module. A clone is the same pool.
#[derive(Clone)]
pub struct S3Pool {
    settings: Arc<S3Settings>,
    keyring: Arc<Keyring>,
    client: Client,
    /// How VMDSes reach it; `None`: without TLS.
    tls: Option<Arc<Tls>>,
    clock: ClockWatch,
    known: Arc<RwLock<Known>>,
    turns: Arc<Semaphore>,
    buffers: Arc<Semaphore>,
}

/// What is known about the endpoint.
#[derive(Default)]
struct Known {
    /// What the last probe found, of this controller or one before.
    capabilities: Option<Arc<Capabilities>>,
    /// The probe was of this one.
    probed: bool,
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Names its bytes; as it is to be sent in `If-Match`.
    pub etag: String,
    /// Bytes.
    pub size: u64,
}

impl S3Pool {
    /// Reads the credentials, makes and tries the staging directory and builds the client. Nothing is asked of the
    /// endpoint yet.
    ///
    /// # Errors
    /// [`S3Error::Credentials`], [`S3Error::Invalid`]: sentences for people. [`S3Error::Staging`]: the staging directory
    /// does not answer.
    pub fn open(settings: S3Settings) -> Result<Self, S3Error> {
        let directory = settings.staging.clone();
        let tried = Deadline::new(settings.patience).call(move || Ok(staging::prepare(&directory)));
        tried.map_err(S3Error::Staging)??;
        let trust = Trust::read(settings.ca_file.as_deref())?;
        let tls = match settings.endpoint.tls {
            true => Some(Arc::new(Tls::new(&settings.endpoint, &trust)?)),
            false => None,
        };
        let (keyring, clock) =
            (Arc::new(Keyring::open(settings.credentials.clone())?), ClockWatch::default());
        Ok(Self {
            client: client::build(&settings, &trust, keyring.clone(), clock.clone())?,
            tls,
            settings: Arc::new(settings),
            keyring,
            clock,
            known: Arc::default(),
            turns: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            buffers: Arc::new(Semaphore::new(BUFFERED_MAX)),
        })
    }

    /// What it was opened with.
    pub fn settings(&self) -> &S3Settings {
        &self.settings
    }

    /// Where its objects are reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.settings.endpoint
    }

    /// The directory for files that are being written.
    pub fn staging(&self) -> &Path {
        &self.settings.staging
    }

    /// What the last probe found; `None`: there was none.
    pub fn capabilities(&self) -> Option<Arc<Capabilities>> {
        self.known.read().capabilities.clone()
    }

    /// An ETag as the endpoint wants it in `If-Match`.
    fn etag_for_use(&self, etag: &str) -> String {
        let form = self.capabilities().map_or(EtagForm::Quoted, |can| can.etags);
        let bare = download::bare(etag);
        match form {
            EtagForm::Quoted => format!("\"{bare}\""),
            EtagForm::Unquoted => bare.to_owned(),
        }
    }

    /// Waits until it is a transfer's turn.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.turns.clone().acquire_owned().await.ok()
    }

    /// Waits until there is memory for a part.
    async fn buffer(&self) -> Option<OwnedSemaphorePermit> {
        self.buffers.clone().acquire_owned().await.ok()
    }
}

impl fmt::Debug for S3Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Pool").field("settings", &self.settings).finish_non_exhaustive()
    }
}
