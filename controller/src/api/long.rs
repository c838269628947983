//! Work that takes long, told line by line while it is done: one JSON object per line, the last of type `done` or
//! `error`. It ends with the connection, or when the controller goes down: what was done until then stays, and can be
//! asked for again.

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::mpsc;

use super::body::Lines;
use super::{Api, ErrorInfo};

/// Lines that a client can be behind before the work waits for it.
const LINES_AHEAD: usize = 64;

/// The way to the client.
pub(super) struct Teller(mpsc::Sender<Bytes>);

impl Teller {
    /// Sends a line; waits while the client is behind. Answers whether it listens and the controller goes on. Blocks.
    pub(super) fn tell<T: Serialize>(&self, line: &T) -> bool {
        let mut line = serde_json::to_vec(line).expect("a line can always be written as JSON");
        line.push(b'\n');
        self.0.blocking_send(line.into()).is_ok()
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
    let (sender, mut told) = mpsc::channel(LINES_AHEAD);
    let (outgoing, lines) = mpsc::channel(1);
    let mut stopping = api.stopping.clone();
    tokio::task::spawn_blocking(move || work(&Teller(sender)));
    // The answer must not keep a controller that goes down waiting for work that waits for something itself.
    tokio::spawn(async move {
        let tell = async {
            while let Some(line) = told.recv().await {
                if outgoing.send(line).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => {}
            () = tell => {}
        }
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from(Lines(lines))).into_response()
}
