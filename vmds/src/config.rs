//! What the command line says. There is no configuration file and no environment: the controller tells the rest.

use clap::{Parser, ValueEnum};
use tracing::level_filters::LevelFilter;

/// The virtual metadata server of one tenant.
///
/// This program is started by vmds-controller, which hands it a mounted FUSE device and its sockets as
/// descriptors 3 to 7. It is of no use on its own: to mount a tenant's file system, run `vmdsctl mount`.
#[derive(Debug, Parser)]
#[command(name = "vmds", version)]
pub(crate) struct Args {
    /// How much is logged to standard error.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Level::Info)]
    pub(crate) log: Level,
    /// The user to become, before anything is served.
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uid: Option<u32>,
    /// Serve without the sandbox. For debugging only: whoever takes the process over has the machine.
    #[arg(long)]
    pub(crate) no_sandbox: bool,
}

/// A level of logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Nothing.
    Off,
    /// What needs somebody's attention.
    Error,
    /// What is odd but handled.
    Warn,
    /// Start, end and generations.
    Info,
    /// What the process decides.
    Debug,
    /// Every request of the kernel.
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_info_unless_given() {
        assert_eq!(Args::try_parse_from(["vmds"]).unwrap().log, Level::Info);
        assert_eq!(Args::try_parse_from(["vmds", "--log", "trace"]).unwrap().log, Level::Trace);
        assert_eq!(Args::try_parse_from(["vmds", "--uid", "0"]).unwrap_err().exit_code(), 2);
        assert_eq!(Args::try_parse_from(["vmds", "--log", "loud"]).unwrap_err().exit_code(), 2);
    }
}
