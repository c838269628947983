//! `mount.fuse.vmds` and `umount.fuse.vmds`: what `mount(8)` and `umount(8)` call for file systems of this type.
//!
//! Both are `vmdsctl` under another name. Exit codes are those of `mount(8)`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::args::{Format, MountArguments};
use super::client::Client;
use super::mount_options::MountOptions;
use super::{CliError, Run, USAGE, block_on, mount, tell};
use crate::config::DEFAULT_RUN_DIR;

/// Exit code for a command line that makes no sense.
const WRONG_USE: u8 = 1;
/// Exit code for what did not work.
const FAILED: u8 = 32;
/// What the name of the tenant may be written with, as mounts show it.
const SOURCE_PREFIX: &str = "vmds#";
/// Where the controller's socket is, unless an option says so.
const RUN_DIR_VARIABLE: &str = "VMDS_RUN_DIR";
/// How long a mount may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Mount a tenant's file system. Called by mount(8).
#[derive(Debug, Parser)]
#[command(name = "mount.fuse.vmds", version)]
struct MountWords {
    /// The tenant, also as vmds#TENANT.
    source: String,
    /// An existing directory.
    dir: PathBuf,
    /// Options, separated by commas.
    #[arg(short, default_value = "", value_name = "OPTIONS", action = clap::ArgAction::Append)]
    options: Vec<String>,
    /// Ignore unknown options.
    #[arg(short)]
    sloppy: bool,
    /// Do everything but mount.
    #[arg(short)]
    fake: bool,
    #[command(flatten)]
    ignored: Ignored,
}

/// Unmount a directory. Called by umount(8).
#[derive(Debug, Parser)]
#[command(name = "umount.fuse.vmds", version)]
struct UmountWords {
    /// The directory.
    dir: PathBuf,
    /// Detach it now, even if it is in use.
    #[arg(short)]
    lazy: bool,
    /// The same.
    #[arg(short)]
    force: bool,
    /// Become read-only if it is in use; not supported.
    #[arg(short)]
    read_only: bool,
    #[command(flatten)]
    ignored: Ignored,
}

/// What `mount(8)` hands on and means nothing here.
#[derive(Debug, clap::Args)]
struct Ignored {
    /// Say more.
    #[arg(short)]
    verbose: bool,
    /// Do not write /etc/mtab.
    #[arg(short)]
    no_mtab: bool,
    /// The type of the file system.
    #[arg(short = 't', value_name = "TYPE")]
    file_system: Option<String>,
    /// The name space; mount(8) has entered it.
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Whether the program was called as one of the helpers; runs it if so.
pub(super) fn dispatch(words: &[OsString]) -> Option<ExitCode> {
    let name = Path::new(words.first()?).file_name()?;
    let helper = if name == OsStr::new("mount.fuse.vmds") {
        mount_words
    } else if name == OsStr::new("umount.fuse.vmds") {
        umount_words
    } else {
        return None;
    };
    Some(helper(words).unwrap_or_else(|error| {
        tell(&error);
        ExitCode::from(FAILED)
    }))
}

fn mount_words(words: &[OsString]) -> Result<ExitCode, CliError> {
    let words = match MountWords::try_parse_from(words) {
        Ok(words) => words,
        Err(error) => return Ok(misused(&error)),
    };
    let options = match MountOptions::from_mount_8(&words.options.join(","), words.sloppy) {
        Ok(options) => options,
        Err(sentence) => {
            tell(&CliError::new(sentence));
            return Ok(ExitCode::from(WRONG_USE));
        }
    };
    let source = words.source.strip_prefix(SOURCE_PREFIX).unwrap_or(&words.source);
    if words.fake {
        return Ok(ExitCode::SUCCESS);
    }
    let run = run(options.run_dir.as_deref());
    let plain = MountArguments::plain(source.to_owned(), words.dir);
    let arguments = MountArguments { options: Some(options), ..plain };
    block_on(mount::make(&run, &arguments)).map(|_| ExitCode::SUCCESS)
}

fn umount_words(words: &[OsString]) -> Result<ExitCode, CliError> {
    let words = match UmountWords::try_parse_from(words) {
        Ok(words) => words,
        Err(error) => return Ok(misused(&error)),
    };
    if words.read_only {
        return Err(CliError::new("a mount does not become read-only instead of being unmounted"));
    }
    let lazy = words.lazy || words.force;
    block_on(mount::take_away(&run(None), &words.dir, lazy)).map(|_| ExitCode::SUCCESS)
}

fn misused(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell if this cannot be written.
    let _ = error.print();
    let code = u8::try_from(error.exit_code()).unwrap_or(USAGE);
    ExitCode::from(if code == USAGE { WRONG_USE } else { code })
}

/// A controller to talk to; nothing is written but errors.
fn run(run_dir: Option<&Path>) -> Run {
    let from_environment = std::env::var_os(RUN_DIR_VARIABLE).map(PathBuf::from);
    let run_dir = run_dir.map(Path::to_owned).or(from_environment).unwrap_or_else(|| DEFAULT_RUN_DIR.into());
    Run { client: Client::new(&run_dir), format: Format::Table, timeout: PATIENCE }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn helpers_are_called_as_mount_8_calls_them() {
        MountWords::command().debug_assert();
        UmountWords::command().debug_assert();
        let line =
            ["/sbin/mount.fuse.vmds", "vmds#a", "/m", "-n", "-s", "-v", "-o", "rw,noexec", "-t", "fuse.vmds"];
        let words = MountWords::try_parse_from(line).unwrap();
        assert_eq!((words.source.as_str(), words.dir.as_path()), ("vmds#a", Path::new("/m")));
        assert_eq!((words.options, words.sloppy, words.fake), (vec!["rw,noexec".to_owned()], true, false));
        let words = UmountWords::try_parse_from(["umount.fuse.vmds", "/m", "-l", "-n"]).unwrap();
        assert!(words.lazy && !words.force);
    }

    #[test]
    fn only_the_names_of_helpers_lead_here() {
        for name in ["vmdsctl", "/usr/bin/vmdsctl", "mount", "mount.fuse.vmds.old"] {
            assert!(dispatch(&[name.into()]).is_none(), "{name}");
        }
    }
}
