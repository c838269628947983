//! Work of the controller that takes long: followed line by line, and written as one document, whatever its size, as it
//! comes.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::Format;
use super::wait::Progress;
use super::{CliError, Run, output};
use crate::api::LongLine;

/// Longest time without a line: an endpoint may take its time, and is asked again.
const LINE_WITHIN: Duration = Duration::from_secs(600);

/// How what comes is said to people, each in a line.
pub(super) struct Told<F, P, D> {
    /// Something was found.
    pub(super) found: fn(&F) -> String,
    /// How far it has come.
    pub(super) progress: fn(&P) -> String,
    /// What came of it.
    pub(super) done: fn(&D) -> String,
}

/// Asks for the work and writes what comes; answers what came of it.
pub(super) async fn follow<F, P, D>(
    run: &Run,
    path: &str,
    body: &Value,
    what: &str,
    told: Told<F, P, D>,
) -> Result<D, CliError>
where
    F: DeserializeOwned + Serialize,
    P: DeserializeOwned,
    D: DeserializeOwned + Serialize,
{
    let mut lines = run.client.work(path, body).await?;
    let mut progress = Progress::new(what);
    let mut document = Document { format: run.format, begun: false };
    loop {
        let line = tokio::time::timeout(LINE_WITHIN, lines.next_line::<LongLine<F, P, D>>());
        let silent = |_| CliError::new(format!("the controller said nothing for {}s", LINE_WITHIN.as_secs()));
        let Some((_, line)) = line.await.map_err(silent)?? else {
            return Err(CliError::new("the controller has ended before the work was done")
                .hint("what was done stays; ask for it again"));
        };
        match line {
            LongLine::Found(found) => {
                progress.clear();
                document.item(&found, || (told.found)(&found))?;
            }
            LongLine::Progress(far) => progress.tell(&(told.progress)(&far)),
            LongLine::Done(done) => {
                drop(progress);
                document.end(&done, || (told.done)(&done))?;
                return Ok(done);
            }
            LongLine::Error(error) => {
                return Err(CliError { message: error.message, hint: error.hint, kind: Some(error.kind) });
            }
        }
    }
}

/// A document of `found`, a list, and `summary`.
struct Document {
    format: Format,
    begun: bool,
}

impl Document {
    fn item<T: Serialize>(&mut self, item: &T, line: impl FnOnce() -> String) -> Result<(), CliError> {
        let first = !std::mem::replace(&mut self.begun, true);
        output::emit(&match self.format {
            Format::Table => output::harmless(&line()) + "\n",
            Format::Json => {
                let before = if first { "{\"found\": [\n  " } else { ",\n  " };
                format!("{before}{}", one_line(item)?)
            }
            // JSON within YAML is YAML.
            Format::Yaml => format!("{}- {}\n", if first { "found:\n" } else { "" }, one_line(item)?),
        })
    }

    fn end<T: Serialize>(&self, summary: &T, line: impl FnOnce() -> String) -> Result<(), CliError> {
        output::emit(&match (self.format, self.begun) {
            (Format::Table, _) => output::harmless(&line()) + "\n",
            (Format::Json, true) => format!("\n], \"summary\": {}}}\n", one_line(summary)?),
            (Format::Json, false) => format!("{{\"found\": [], \"summary\": {}}}\n", one_line(summary)?),
            (Format::Yaml, true) => format!("summary: {}\n", one_line(summary)?),
            (Format::Yaml, false) => format!("found: []\nsummary: {}\n", one_line(summary)?),
        })
    }
}

fn one_line<T: Serialize>(value: &T) -> Result<String, CliError> {
    serde_json::to_string(value)
        .map_err(|error| CliError::new(format!("the result cannot be written: {error}")))
}
