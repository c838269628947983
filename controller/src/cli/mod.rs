//! `vmdsctl`: verbs for people, over the API.
//!
//! A verb wishes for a resource, waits until it has come about, and says so in a sentence. Exit codes: 0 it worked,
//! 1 it did not (or a check found problems), 2 the command line makes no sense. Errors are one sentence on standard
//! error and, where there is something to do, a `hint:`.

mod args;
mod client;
mod files;
mod import;
mod long;
mod mount;
mod mount_helper;
mod mount_options;
mod output;
mod pool;
mod resources;
mod share;
mod tenant;
#[cfg(test)]
mod tests;
mod typed;
mod wait;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use thiserror::Error;

use args::{Arguments, Command, Format};
use client::Client;

use crate::api::ErrorKind;

/// Exit code for a command line that makes no sense.
const USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug, Error)]
#[error("{message}")]
struct CliError {
    message: String,
    hint: Option<String>,
    /// What the controller said, if it did.
    kind: Option<ErrorKind>,
}

impl CliError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind: None }
    }

    /// What was wished for will not come about unless somebody changes something.
    fn failed(message: impl Into<String>) -> Self {
        Self { kind: Some(ErrorKind::Invalid), ..Self::new(message) }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn is_final(&self) -> bool {
        self.kind == Some(ErrorKind::Invalid)
    }
}

/// What every command needs.
struct Run {
    client: Client,
    format: Format,
    timeout: Duration,
}

/// The `vmdsctl` program.
pub fn run_ctl() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    mount_helper::dispatch(&words).unwrap_or_else(|| run(words))
}

fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell if this cannot be written.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    if let Command::Completions { shell } = arguments.command {
        return completions(shell);
    }
    let run =
        Run { client: Client::new(&arguments.run_dir), format: arguments.output, timeout: arguments.timeout };
    block_on(execute(&run, arguments.command)).unwrap_or_else(|error| tell(&error))
}

/// Does what takes time.
fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| CliError::new(format!("this process cannot wait for anything: {error}")))?;
    runtime.block_on(work)
}

async fn execute(run: &Run, command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Tenant(command) => tenant::execute(run, command).await,
        Command::Mount(arguments) => mount::mount(run, &arguments).await,
        Command::Umount { dir, lazy } => mount::umount(run, &dir, lazy).await,
        Command::Pool(command) => return pool::execute(run, command).await,
        Command::Share(command) => share::execute(run, command).await,
        Command::Import(arguments) => import::import(run, &arguments).await,
        Command::Locate { file } => resources::locate(run, &file).await,
        Command::Get { kind, name: Some(name) } => resources::get(run, kind, &name).await,
        Command::Get { kind, name: None } => resources::list(run, kind).await,
        Command::Apply { file, wait } => return files::apply(run, &file, wait).await,
        Command::Delete { kind, name, purge, lazy } => resources::delete(run, kind, &name, purge, lazy).await,
        Command::Watch { kind, from } => resources::watch(run, kind, from).await,
        Command::Status => resources::status(run).await,
        Command::Check { tenant } => return resources::check(run, tenant.as_deref()).await,
        Command::Completions { .. } => Ok(()),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "vmdsctl", &mut script);
    match output::emit(&String::from_utf8_lossy(&script)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tell(&error),
    }
}

/// Says what went wrong, and what to do.
fn tell(error: &CliError) -> ExitCode {
    let mut text = format!("error: {}\n", output::harmless(&error.message));
    if let Some(hint) = &error.hint {
        text += &format!("hint: {}\n", output::harmless(hint));
    }
    // Nobody is left to tell if this cannot be written.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}
