//! Work that takes long, told line by line while it is done: one JSON object per line, the last of type `done` or
//! `error`. It ends with the connection: what was done until then stays, and can be asked for again.

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::body::Lines;
use super::{Api, ErrorInfo};

/// Lines that a client can be behind before the work waits for it.
const LINES_AHEAD: usize = 64;

/// The way to the client.
pub(super) struct Teller {
    lines: mpsc::Sender<Bytes>,
    stopping: watch::Receiver<bool>,
}

impl Teller {
    /// Sends a line; waits while the client is behind. Answers whether it listens and the controller goes on. Blocks.
    pub(super) fn tell<T: Serialize>(&self, line: &T) -> bool {
        let mut line = serde_json::to_vec(line).expect("a line can always be written as JSON");
        line.push(b'\n');
        self.lines.blocking_send(line.into()).is_ok() && !*self.stopping.borrow()
    }
}

/// A line of work that takes long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum LongLine<F, P, D> {
    /// Something was found.
    Found(F),
    /// It has come this far.
    Progress(P),
    /// It is done, and this came of it.
    Done(D),
    /// It has failed.
    Error(ErrorInfo),
}

/// Answers with what `work` tells, on a thread that may block.
pub(super) fn stream(api: &Api, work: impl FnOnce(&Teller) + Send + 'static) -> Response {
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    let teller = Teller { lines: sender, stopping: api.stopping.clone() };
    tokio::task::spawn_blocking(move || work(&teller));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from(Lines(lines))).into_response()
}
