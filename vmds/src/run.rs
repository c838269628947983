//! The life of the process: take what was inherited, greet the controller, serve, end.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use address_map::limits::INFLIGHT_MAX;
use address_map::wire::FrameSocket;
use anyhow::Context;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::level_filters::LevelFilter;
use tracing::{error, info};

use crate::config::Args;
use crate::descriptors::Inherited;
use crate::fs::Fs;
use crate::fuse;
use crate::link::{Link, LinkLimits};
use crate::notices::Notices;
use crate::privileges::become_user;
use crate::sandbox;

/// Descriptors that are not leases: standard streams, sockets, devices, and those on their way to be closed.
const OTHER_DESCRIPTORS: usize = 64;

/// Runs the program: parses the command line, serves one mount, and returns when it is unmounted.
///
/// Ends with 0 when the mount is gone, 1 on failure, 2 when it was called wrongly. When the controller goes away the
/// process waits for another one; what is asked meanwhile is answered when it is there, or fails at its deadline.
pub fn run() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version end with 0. If the output cannot be written there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log_to_stderr(args.log.into());
    abort_on_panic();
    match serve(args.uid, args.no_sandbox) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(uid: Option<u32>, no_sandbox: bool) -> anyhow::Result<()> {
    let descriptors = descriptors_max();
    let inherited = Inherited::take()?;
    if no_sandbox {
        serve_without_sandbox(uid)?;
    } else {
        let uid = uid.context("the sandbox needs a user to become: give --uid (or --no-sandbox to debug)")?;
        sandbox::enter(uid)?;
    }
    let (control, door) = (FrameSocket::from(inherited.control), FrameSocket::from(inherited.door));
    let (link, welcome) = Link::open(control, Some(door), LinkLimits::default())
        .context("cannot open a session with the controller")?;
    info!(tenant = welcome.tenant, generation = welcome.generation, "session open");
    let link = Arc::new(link);
    let notices = Arc::new(Notices::default());
    let fs = Fs::new(Arc::clone(&link), Arc::clone(&notices), &welcome, descriptors);
    let events = Arc::clone(&fs);
    std::thread::Builder::new()
        .name("vmds-link".into())
        .spawn(move || {
            let end = link.receive(|event| events.on_event(event), || events.holdings());
            error!(error = &end as &dyn std::error::Error, "session over");
            std::process::exit(1);
        })
        .context("cannot start a thread")?;
    fuse::serve(fs, &notices, inherited.handshake, inherited.device, welcome.generation > 1)
        .context("the FUSE session failed")?;
    info!("unmounted");
    Ok(())
}

/// Becomes the user, if there is one to become, and complains.
fn serve_without_sandbox(uid: Option<u32>) -> anyhow::Result<()> {
    error!("--no-sandbox: whoever takes this process over can do what its user can; never serve a tenant so");
    uid.map_or(Ok(()), become_user).context("cannot become the user")
}

/// Raises the limit of open descriptors as far as allowed; returns how many leases fit.
fn descriptors_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Should this fail, the lower limit holds.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed =
        getrlimit(Resource::Nofile).current.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    // Answers in flight may bring one each.
    allowed.saturating_sub(INFLIGHT_MAX + OTHER_DESCRIPTORS).max(allowed / 2)
}

fn log_to_stderr(level: LevelFilter) {
    // Whoever reads the log may be gone, and that is no reason to end.
    let logs = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().init();
    }
}

/// A panic ends the process at once: the mount goes on with the next one, and half-changed state is not served.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        error!(panic = %info, "a bug; the process ends");
        std::process::abort();
    }));
}
