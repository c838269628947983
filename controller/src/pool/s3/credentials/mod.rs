//! The credentials of a pool: read again in time, told to nobody but the signer.

mod imds;
mod ini;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use super::S3Error;
use crate::resource::CredentialsSpec;

/// How often a file is read again, so that keys can be exchanged while the controller runs.
const FILE_FRESH_FOR: Duration = Duration::from_secs(30);
/// Credentials that end are fetched again this long before they do.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// Pause after fetching again has failed, while those that are held still work.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Keyring {
    source: CredentialsSpec,
    held: RwLock<Option<Held>>,
    /// Held while they are fetched: one asks, others wait.
    fetching: Mutex<()>,
}

#[derive(Clone)]
struct Held {
    credentials: Credentials,
    /// They are used without looking until then.
    fresh_until: Option<SystemTime>,
}

impl Held {
    fn new(credentials: Credentials, fresh_for: Option<Duration>) -> Self {
        let now = SystemTime::now();
        let renew = credentials.expiry().map(|end| end.checked_sub(RENEW_BEFORE).unwrap_or(now));
        let fresh_until = [fresh_for.map(|fresh| now + fresh), renew].into_iter().flatten().min();
        Self { credentials, fresh_until }
    }

    fn is_fresh(&self) -> bool {
        self.fresh_until.is_none_or(|until| SystemTime::now() < until)
    }

    fn has_ended(&self) -> bool {
        self.credentials.expiry().is_some_and(|end| end <= SystemTime::now())
    }
}

impl Keyring {
    /// Reads the credentials; those of a machine's role are asked for when first needed.
    pub(super) fn open(source: CredentialsSpec) -> Result<Self, S3Error> {
        let held = match &source {
            CredentialsSpec::Imds => None,
            local => Some(read(local).map_err(S3Error::Credentials)?),
        };
        Ok(Self { source, held: RwLock::new(held), fetching: Mutex::default() })
    }

    /// The credentials to sign with now.
    pub(super) async fn current(&self) -> Result<Credentials, S3Error> {
        if let Some(credentials) = self.fresh() {
            return Ok(credentials);
        }
        let _fetching = self.fetching.lock().await;
        if let Some(credentials) = self.fresh() {
            return Ok(credentials);
        }
        let fetched = match &self.source {
            CredentialsSpec::Imds => imds::fetch().await.map(|credentials| Held::new(credentials, None)),
            local => read(local),
        };
        let held = match fetched {
            Ok(held) => held,
            Err(sentence) => self.go_on_with_old(sentence)?,
        };
        *self.held.write() = Some(held.clone());
        Ok(held.credentials)
    }

    fn fresh(&self) -> Option<Credentials> {
        self.held.read().as_ref().filter(|held| held.is_fresh()).map(|held| held.credentials.clone())
    }

    /// What is held still works: somebody may be exchanging the file right now.
    fn go_on_with_old(&self, sentence: String) -> Result<Held, S3Error> {
        let Some(old) = self.held.read().clone().filter(|held| !held.has_ended()) else {
            return Err(S3Error::Credentials(sentence));
        };
        tracing::warn!(
            reason = sentence,
            "credentials cannot be read again; going on with those from before"
        );
        Ok(Held { fresh_until: Some(SystemTime::now() + PAUSE_AFTER_FAILURE), ..old })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ProvideCredentials for Keyring {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let current: Result<_, S3Error> = self.current().await;
            current.map_err(CredentialsError::provider_error) as provider::Result
        })
    }
}

/// Reads credentials that are on this machine.
fn read(source: &CredentialsSpec) -> Result<Held, String> {
    match source {
        CredentialsSpec::Env => from_environment(|name| std::env::var(name).ok()),
        CredentialsSpec::File { path, profile } => from_file(path, profile.as_deref()),
        CredentialsSpec::Profile(name) => from_file(&shared_file()?, Some(name)),
        CredentialsSpec::Imds => Err("the role of a machine is not on the machine".to_owned()),
    }
}

fn from_file(path: &Path, profile: Option<&str>) -> Result<Held, String> {
    Ok(Held::new(ini::read(path, profile.unwrap_or("default"))?, Some(FILE_FRESH_FOR)))
}

/// Where the AWS tools keep the credentials of this user.
fn shared_file() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE") {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or("the controller has no HOME to look for ~/.aws in; name the credentials file")?;
    Ok(Path::new(&home).join(".aws/credentials"))
}

fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Held, String> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty());
    let (id, secret) = (given("AWS_ACCESS_KEY_ID"), given("AWS_SECRET_ACCESS_KEY"));
    let (Some(id), Some(secret)) = (id, secret) else {
        return Err("the controller was started without AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into());
    };
    Ok(Held::new(Credentials::new(id, secret, given("AWS_SESSION_TOKEN"), None, "environment"), None))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn the_environment_has_all_or_nothing() {
        let all = |name: &str| Some(format!("the {name}"));
        let held = from_environment(all).unwrap();
        assert_eq!(held.credentials.session_token(), Some("the AWS_SESSION_TOKEN"));
        assert!(held.is_fresh() && !held.has_ended());
        let half = |name: &str| (name != "AWS_SECRET_ACCESS_KEY").then(|| "x".to_owned());
        assert!(from_environment(half).err().unwrap().contains("was started without"));
    }

    #[test]
    fn credentials_that_end_are_fetched_before() {
        let ends = |seconds| Some(SystemTime::now() + Duration::from_secs(seconds));
        let held = |expiry| Held::new(Credentials::new("a", "b", None, expiry, "test"), None);
        assert!(held(ends(600)).is_fresh() && held(None).is_fresh());
        assert!(!held(ends(200)).is_fresh() && !held(ends(200)).has_ended());
    }

    #[tokio::test]
    async fn a_file_can_be_exchanged_and_nothing_shows_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let write = |id: &str| {
            let text = format!("[p]\naws_access_key_id = {id}\naws_secret_access_key = s3cret\n");
            let mut open = std::fs::OpenOptions::new();
            let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        };
        write("AK1");
        let source = CredentialsSpec::File { path: path.clone(), profile: Some("p".to_owned()) };
        let ring = Keyring::open(source).unwrap();
        assert_eq!(ring.current().await.unwrap().access_key_id(), "AK1");
        write("AK2");
        ring.held.write().as_mut().unwrap().fresh_until = Some(SystemTime::UNIX_EPOCH);
        assert_eq!(ring.current().await.unwrap().access_key_id(), "AK2");
        std::fs::remove_file(&path).unwrap();
        ring.held.write().as_mut().unwrap().fresh_until = Some(SystemTime::UNIX_EPOCH);
        assert_eq!(ring.current().await.unwrap().access_key_id(), "AK2", "those from before still work");
        let shown = format!("{ring:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("AK2"), "{shown}");
    }
}
