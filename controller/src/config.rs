//! Settings of the daemon: flag before environment before file before default. All errors are told together.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use toml::{Table, Value};

use crate::logging::check_filter;
use crate::pool::DEFAULT_PATIENCE;

/// Where the state is kept, unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/vmds";
/// Where the socket is, unless told otherwise.
pub const DEFAULT_RUN_DIR: &str = "/run/vmds";
/// Shards of the address map, unless told otherwise.
pub const DEFAULT_SHARDS: u16 = 16;
/// Most shards of one address map.
const SHARDS_MAX: i64 = 1024;
const DEFAULT_LOG: &str = "info";
/// Largest configuration file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the state is kept.
    pub state_dir: PathBuf,
    /// Where the socket is.
    pub run_dir: PathBuf,
    /// The directory of the pool that is made at the first start.
    pub default_pool: PathBuf,
    /// The `vmds` program.
    pub vmds: PathBuf,
    /// What is logged.
    pub log: String,
    /// Shards that new tenants are spread over.
    pub shards: u16,
    /// How long a call into a pool that is not on a local disk may take.
    pub pool_timeout: Duration,
    /// Files of such pools are passed through by the kernel.
    pub remote_passthrough: bool,
}

impl Config {
    /// The socket of the API.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.run_dir)
    }
}

/// The socket of the API of the controller whose run directory is `run_dir`.
pub fn socket_in(run_dir: &Path) -> PathBuf {
    run_dir.join("api.sock")
}

/// What flags and environment say; flags have won over the environment already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// `--state-dir`, `VMDS_STATE_DIR`
    pub state_dir: Option<PathBuf>,
    /// `--run-dir`, `VMDS_RUN_DIR`
    pub run_dir: Option<PathBuf>,
    /// `--config`, `VMDS_CONFIG`
    pub config: Option<PathBuf>,
    /// `--default-pool`
    pub default_pool: Option<PathBuf>,
    /// `--vmds`
    pub vmds: Option<PathBuf>,
    /// `--log`
    pub log: Option<String>,
}

/// Everything wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [only] => write!(f, "bad settings: {only}"),
            many => {
                write!(f, "bad settings, {} errors:", many.len())?;
                many.iter().try_for_each(|error| write!(f, "\n  - {error}"))
            }
        }
    }
}

/// Reads the file that is given, if any, and puts everything together.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(given: Given) -> Result<Config, ConfigErrors> {
    let file = match &given.config {
        None => None,
        Some(path) => {
            let text = read(path).map_err(|error| ConfigErrors(vec![error]))?;
            Some((path.clone(), text))
        }
    };
    let here = std::env::current_exe().unwrap_or_default();
    resolve(given, file.as_ref().map(|(path, text)| (path.as_path(), text.as_str())), &here)
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the file {} cannot be read: {error}", path.display());
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        return Err(format!("the file {} is larger than {FILE_MAX} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Puts given settings, a file and the defaults together. `program` is this program: `vmds` is expected beside it.
fn resolve(given: Given, file: Option<(&Path, &str)>, program: &Path) -> Result<Config, ConfigErrors> {
    let mut errors = Vec::new();
    let file = file.map_or_else(File::default, |(path, text)| File::parse(path, text, &mut errors));
    let run_dir = given.run_dir.or(file.run_dir).unwrap_or_else(|| DEFAULT_RUN_DIR.into());
    let state_dir = given.state_dir.or(file.state_dir).unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    let default_pool = given.default_pool.or(file.default_pool).unwrap_or_else(|| state_dir.join("pool"));
    let vmds = given.vmds.or(file.vmds).unwrap_or_else(|| program.with_file_name("vmds"));
    let log = given.log.or(file.log).unwrap_or_else(|| DEFAULT_LOG.to_owned());
    let paths =
        [("state_dir", &state_dir), ("run_dir", &run_dir), ("default_pool", &default_pool), ("vmds", &vmds)];
    for (name, path) in paths {
        if !path.is_absolute() {
            errors.push(format!("{name}: '{}' is not a full path", path.display()));
        }
    }
    if state_dir == run_dir {
        errors.push(
            "state_dir, run_dir: the state is for the controller alone, so they cannot be the same"
                .to_owned(),
        );
    }
    if let Err(error) = check_filter(&log) {
        errors.push(format!("log: {error}"));
    }
    let shards = file.shards.unwrap_or(DEFAULT_SHARDS);
    let pool_timeout = file.pool_timeout.unwrap_or(DEFAULT_PATIENCE);
    let remote_passthrough = file.remote_passthrough.unwrap_or(false);
    let config =
        Config { state_dir, run_dir, default_pool, vmds, log, shards, pool_timeout, remote_passthrough };
    if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
}

/// What the file says.
#[derive(Default)]
struct File {
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    default_pool: Option<PathBuf>,
    vmds: Option<PathBuf>,
    log: Option<String>,
    shards: Option<u16>,
    pool_timeout: Option<Duration>,
    remote_passthrough: Option<bool>,
}

const KEYS: &str = "state_dir, run_dir, default_pool, vmds, log, shards, pool_timeout, remote_passthrough";

impl File {
    fn parse(path: &Path, text: &str, errors: &mut Vec<String>) -> Self {
        let mut file = Self::default();
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                errors.push(format!("{} is not TOML: {}", path.display(), error.to_string().trim_end()));
                return file;
            }
        };
        for (key, value) in table {
            let wrong = match key.as_str() {
                "state_dir" => set_path(&mut file.state_dir, &value),
                "run_dir" => set_path(&mut file.run_dir, &value),
                "default_pool" => set_path(&mut file.default_pool, &value),
                "vmds" => set_path(&mut file.vmds, &value),
                "log" => text_of(&value).map(|text| file.log = Some(text.to_owned())),
                "shards" => shards_of(&value).map(|shards| file.shards = Some(shards)),
                "pool_timeout" => time_of(&value).map(|time| file.pool_timeout = Some(time)),
                "remote_passthrough" => flag_of(&value).map(|flag| file.remote_passthrough = Some(flag)),
                _ => Err(format!("unknown setting; known are {KEYS}")),
            };
            if let Err(error) = wrong {
                errors.push(format!("{key} in {}: {error}", path.display()));
            }
        }
        file
    }
}

fn text_of(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("a text in quotes is needed, not {}", value.type_str()))
}

fn set_path(setting: &mut Option<PathBuf>, value: &Value) -> Result<(), String> {
    *setting = Some(PathBuf::from(text_of(value)?));
    Ok(())
}

fn flag_of(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("true or false is needed, not {}", value.type_str()))
}

fn time_of(value: &Value) -> Result<Duration, String> {
    let time = humantime::parse_duration(text_of(value)?).ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| "a time like '30s' is needed".to_owned())
}

fn shards_of(value: &Value) -> Result<u16, String> {
    let number = value.as_integer().filter(|n| (1..=SHARDS_MAX).contains(n));
    let number = number.ok_or_else(|| format!("a number from 1 to {SHARDS_MAX} is needed"))?;
    u16::try_from(number).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_text(given: Given, text: &str) -> Result<Config, ConfigErrors> {
        resolve(given, Some((Path::new("c.toml"), text)), Path::new("/usr/bin/vmds-controller"))
    }

    #[test]
    fn defaults() {
        let config = resolve_text(Given::default(), "").unwrap();
        assert_eq!(config.state_dir, Path::new("/var/lib/vmds"));
        assert_eq!(config.default_pool, Path::new("/var/lib/vmds/pool"));
        assert_eq!(config.socket(), Path::new("/run/vmds/api.sock"));
        assert_eq!(config.vmds, Path::new("/usr/bin/vmds"));
        assert_eq!((config.shards, config.log.as_str()), (16, "info"));
        assert_eq!((config.pool_timeout, config.remote_passthrough), (Duration::from_secs(30), false));
    }

    #[test]
    fn flags_win_over_the_file() {
        let given = Given { run_dir: Some("/flag".into()), ..Given::default() };
        let same = resolve_text(Given::default(), "run_dir = '/file'\nstate_dir = '/file'").unwrap_err();
        assert!(same.to_string().contains("cannot be the same"));
        let config = resolve_text(given, "run_dir = '/file'\nstate_dir = '/file'\nshards = 4").unwrap();
        assert_eq!((config.run_dir, config.state_dir), (PathBuf::from("/flag"), PathBuf::from("/file")));
        assert_eq!((config.default_pool, config.shards), (PathBuf::from("/file/pool"), 4));
    }

    #[test]
    fn all_errors_are_told_together() {
        let text = "run_dir = 7\nstate_dir = 'here'\nshards = 0\npool_timeout = '0s'\nremote_passthrough = 'no'\nlog = 'loud=x=y'\ncolour = 'red'";
        let errors = resolve_text(Given { vmds: Some("vmds".into()), ..Given::default() }, text).unwrap_err();
        let told = errors.to_string();
        for part in [
            "bad settings, ",
            "run_dir in c.toml: a text in quotes is needed, not integer",
            "state_dir: 'here' is not a full path",
            "shards in c.toml: a number from 1 to 1024",
            "pool_timeout in c.toml: a time like '30s' is needed",
            "remote_passthrough in c.toml: true or false is needed, not string",
            "log: 'loud=x=y' is not a log filter",
            "colour in c.toml: unknown setting; known are",
            "vmds: 'vmds' is not a full path",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_or_missing_is_told() {
        assert!(
            resolve_text(Given::default(), "a = ").unwrap_err().to_string().contains("c.toml is not TOML")
        );
        let missing = load(Given { config: Some("/no/such/file".into()), ..Given::default() });
        assert!(missing.unwrap_err().to_string().contains("/no/such/file cannot be read"));
    }
}
