//! The daemon: settings, locks, start in the right order, stop in the reverse one.

mod control;
mod lock;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use address_map::clock::{Clock, SystemClock};
use address_map::engine::Engine;
use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

pub use control::ControlPlane;
pub use lock::{LockError, Locks, PREDECESSOR_ENDS_WITHIN};

use crate::api;
use crate::config::{self, Config, Given};
use crate::placement::DEFAULT_POOL;
use crate::resource::{Kind, Manifest, Pool, PoolSpec, PosixSpec};
use crate::services::Services;
use crate::store::{Store, spec_value};
use crate::{assemble, logging};

/// Longest wait for the services to end when the controller goes down.
const SERVICES_END_WITHIN: Duration = Duration::from_secs(60);

/// Longest wait for threads that are still at work in the very end.
const THREADS_END_WITHIN: Duration = Duration::from_secs(2);

/// Exit code for a command line or settings that make no sense.
const USAGE: u8 = 2;

/// The VMDS controller: owns the address map, mounts tenants, shares between them.
#[derive(Debug, Parser)]
#[command(name = "vmds-controller", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground, until SIGTERM or SIGINT.
    Serve(ServeArguments),
}

#[derive(Debug, clap::Args)]
struct ServeArguments {
    /// Where the state is kept [default: /var/lib/vmds].
    #[arg(long, env = "VMDS_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the socket of the API is [default: /run/vmds].
    #[arg(long, env = "VMDS_RUN_DIR", value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// A file with settings, TOML. Flags and environment win over it.
    #[arg(long, env = "VMDS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the pool that is made at the first start [default: `STATE_DIR/pool`].
    #[arg(long, value_name = "DIR")]
    default_pool: Option<PathBuf>,
    /// The vmds program [default: beside this one].
    #[arg(long, value_name = "PATH")]
    vmds: Option<PathBuf>,
    /// What is logged: error, warn, info, debug, trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

/// The `vmds-controller` program.
pub fn run_controller() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Command::Serve(given) = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.command,
        Err(error) => {
            // Nobody is left to tell if this cannot be written.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let ServeArguments { state_dir, run_dir, config, default_pool, vmds, log } = given;
    let config = match config::load(Given { state_dir, run_dir, config, default_pool, vmds, log }) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("error: {errors}");
            return ExitCode::from(USAGE);
        }
    };
    match run_daemon(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What would only show when the first tenant is mounted is said at once, before anything is made.
fn check_can_work(config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "the controller mounts file systems and keeps the pools closed to others: start it as root"
    );
    let vmds = config.vmds.display();
    let program = std::fs::metadata(&config.vmds)
        .with_context(|| format!("the program {vmds} cannot be used; say with --vmds where vmds is"))?;
    anyhow::ensure!(program.is_file(), "{vmds} is not a program; say with --vmds where vmds is");
    Ok(())
}

fn run_daemon(config: &Config) -> anyhow::Result<()> {
    logging::start(&config.log).map_err(anyhow::Error::msg)?;
    check_can_work(config)?;
    make_directories(config)?;
    let _locks = Locks::acquire(&[&config.state_dir, &config.run_dir], PREDECESSOR_ENDS_WITHIN)?;
    let (services, engine) = assemble::assemble(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve(config, services, engine, shutdown).await
    });
    // Work that hangs in the kernel would otherwise keep the process from ending.
    runtime.shutdown_timeout(THREADS_END_WITHIN);
    served
}

/// State is for the controller alone; the socket is for everybody.
fn make_directories(config: &Config) -> anyhow::Result<()> {
    let make = |dir: &Path, mode: u32| {
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode))
    };
    for (dir, mode) in [(&config.state_dir, 0o700), (&config.run_dir, 0o755)] {
        make(dir, mode).with_context(|| format!("the directory {} cannot be made", dir.display()))?;
    }
    Ok(())
}

/// Serves until `shutdown` ends, then takes everything down.
///
/// # Errors
/// The state cannot be read, the socket cannot be opened, or the control plane failed.
pub async fn serve(
    config: &Config,
    services: Services,
    engine: Arc<dyn Engine>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mounts = Arc::clone(&services.mounts);
    let served = serve_until(config, services, engine, shutdown).await;
    let ended = tokio::task::spawn_blocking(move || mounts.shutdown());
    if tokio::time::timeout(SERVICES_END_WITHIN, ended).await.is_err() {
        tracing::warn!(seconds = SERVICES_END_WITHIN.as_secs(), "not everything was unmounted in time");
    }
    served
}

async fn serve_until(
    config: &Config,
    services: Services,
    engine: Arc<dyn Engine>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let opened =
        tokio::task::spawn_blocking(move || Store::open(engine, Arc::new(SystemClock) as Arc<dyn Clock>));
    let store = opened.await??;
    let pool = config.default_pool.clone();
    store.run(move |store| make_default_pool(store, &pool)).await?;
    let socket = config.socket();
    let listener =
        api::bind(&socket).with_context(|| format!("the socket {} cannot be opened", socket.display()))?;
    let mut control = ControlPlane::start(store, services, config.shards, listener);
    // Nobody is left to tell if this cannot be written.
    let _ = writeln!(std::io::stdout(), "vmds-controller ready: api {}", socket.display());
    let served = tokio::select! {
        () = shutdown => Ok(()),
        failed = control.failed() => Err(failed),
    };
    tracing::info!("going down");
    control.stop().await;
    let _ = std::fs::remove_file(&socket);
    served
}

/// The very first start makes a pool, so that tenants can be made right away.
fn make_default_pool(store: &Store, dir: &Path) -> anyhow::Result<()> {
    if store.version() != 0 {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("the directory of the default pool {} cannot be made", dir.display()))?;
    let spec = PoolSpec::Posix(PosixSpec { path: dir.to_owned(), host: None });
    let manifest = Manifest::new(Kind::Pool, DEFAULT_POOL, spec_value::<Pool>(&spec));
    store.apply(Kind::Pool, DEFAULT_POOL, &manifest, 0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use address_map::engine::MemoryEngine;

    use super::*;
    use crate::reconcile::fakes::Fixture;

    #[tokio::test]
    async fn the_first_start_makes_a_pool_and_the_end_takes_everything_down() {
        let (dir, fixture) = (tempfile::tempdir().unwrap(), Fixture::new());
        let config = config::load(Given {
            state_dir: Some(dir.path().join("state")),
            run_dir: Some(dir.path().join("run")),
            ..Given::default()
        })
        .unwrap();
        make_directories(&config).unwrap();
        let engine = Arc::new(MemoryEngine::default());
        for _ in 0..2 {
            let opened = Arc::clone(&engine);
            let socket = config.socket();
            let seen = async move {
                while !socket.exists() {
                    tokio::task::yield_now().await;
                }
            };
            serve(&config, fixture.services(), opened, seen).await.unwrap();
            assert!(!config.socket().exists());
            assert_eq!(fixture.calls().last().map(String::as_str), Some("shutdown"));
            let store = Store::open(Arc::clone(&engine) as _, Arc::new(SystemClock)).unwrap();
            let pools = store.read_all::<Pool>().unwrap();
            assert_eq!(pools.len(), 1);
            assert_eq!(pools[0].spec.posix().unwrap().path, config.default_pool);
        }
    }

    #[test]
    fn a_bad_command_line_is_usage() {
        let code = |words: &[&str]| format!("{:?}", run(words.iter().map(OsString::from)));
        assert_eq!(code(&["vmds-controller"]), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(&["vmds-controller", "serve", "--colour"]), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(&["vmds-controller", "--version"]), format!("{:?}", ExitCode::SUCCESS));
        let relative = ["vmds-controller", "serve", "--state-dir", "here"];
        assert_eq!(code(&relative), format!("{:?}", ExitCode::from(2)));
    }
}
