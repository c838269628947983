//! Logs of the daemon: for people on a terminal, JSON otherwise; on standard error.

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Checks a filter like `info` or `controller=debug,info`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check_filter(filter: &str) -> Result<(), String> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    let example = "write a level (error, warn, info, debug, trace) or a list like controller=debug,info";
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| format!("'{filter}' is not a log filter ({error}); {example}"))
}

/// Sends logs to standard error from now on. A second call changes nothing.
///
/// # Errors
/// The filter is not one.
pub fn start(filter: &str) -> Result<(), String> {
    let filter = parse(filter)?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Refused only when somebody else has set up logging in this process: then that is what is wanted.
    let _ = if std::io::stderr().is_terminal() {
        base.with_target(false).try_init()
    } else {
        base.json().flatten_event(true).with_ansi(false).try_init()
    };
    Ok(())
}

/// An error and all its sources in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in ["info", "controller=debug,info", "off"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        let error = check_filter("controller=loud").unwrap_err();
        assert!(error.contains("'controller=loud' is not a log filter"), "{error}");
    }
}
