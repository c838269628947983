//! Logs of the daemon: for people on a terminal, JSON otherwise; on standard error.

use std::error::Error;
use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// What the names of the SDK's crates begin with.
const SDK: &str = "aws_";

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
    let base = tracing_subscriber::registry().with(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // Refused only when somebody else has set up logging in this process: then that is what is wanted.
    let _ = if std::io::stderr().is_terminal() {
        base.with(lines.with_target(false).with_filter(filter_fn(harmless))).try_init()
    } else {
        let lines = lines.json().flatten_event(true).with_ansi(false);
        base.with(lines.with_filter(filter_fn(harmless))).try_init()
    };
    Ok(())
}

/// Whether something may be logged, whatever was asked for: what crates of the SDK say for their own developers holds
/// signed requests and tokens.
fn harmless(what: &Metadata<'_>) -> bool {
    !what.target().starts_with(SDK) || *what.level() <= Level::INFO
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

    /// What is said through layers like those of the daemon when everything is asked for.
    fn heard(say: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Sink(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (sink, filter) = (Sink::default(), parse("trace,aws_sigv4=trace").unwrap());
        let copy = sink.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || copy.clone());
        let layers = tracing_subscriber::registry().with(filter).with(lines.with_filter(filter_fn(harmless)));
        tracing::subscriber::with_default(layers, say);
        String::from_utf8(sink.0.lock().clone()).unwrap()
    }

    #[test]
    fn signed_requests_are_not_logged_whatever_is_asked_for() {
        let heard = heard(|| {
            tracing::trace!("ours");
            tracing::debug!(target: "aws_sigv4::http_request::sign", "canonical request");
            tracing::warn!(target: "aws_smithy_runtime", "careful");
        });
        assert!(heard.contains("ours") && heard.contains("careful"), "{heard}");
        assert!(!heard.contains("canonical request"), "{heard}");
    }

    #[test]
    fn filters_are_checked() {
        for good in ["info", "controller=debug,info", "off"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        let error = check_filter("controller=loud").unwrap_err();
        assert!(error.contains("'controller=loud' is not a log filter"), "{error}");
    }
}
