//! Faults: what can go wrong between a client and S3, and which requests it happens to.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::record::{Recorded, RequestKind};

/// Something that goes wrong with one request. Lengths and offsets are in bytes of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is served so much later. Adds to another fault.
    Latency(Duration),
    /// The connection is reset when the head of the request has arrived; nothing is done.
    ResetBefore,
    /// The request is done, then the connection is reset: the client never learns of it.
    LoseAnswer,
    /// The connection is reset when `after` bytes have passed: of the request's body for a PUT (nothing is done), of
    /// the answer's body for any other method. A reset may take bytes with it that the client had not read yet.
    ResetInBody {
        /// How many bytes pass before; at most all but one.
        after: u64,
    },
    /// The answer promises its full length, and the connection is closed in good order when `after` bytes were sent.
    TruncateBody {
        /// How many bytes the client gets; at most all but one.
        after: u64,
    },
    /// One bit of the answer's body is wrong, at its full length.
    FlipByte {
        /// Which byte, counted from the first one of the body; the last one if the body is shorter.
        at: u64,
    },
    /// The answer's body comes no faster than this.
    SlowBody {
        /// Bytes a second, at least 100.
        bytes_per_second: u64,
    },
    /// The request is accepted, and neither read further nor answered until the client or the server gives up.
    Stall,
    /// The request's body is read, nothing is done, and the answer is this error.
    ///
    /// Status 200 with an error in the body is what S3 may answer to CompleteMultipartUpload.
    Answer {
        /// The status of the answer.
        status: u16,
        /// The code in the XML body, as `SlowDown`.
        code: &'static str,
    },
}

impl Fault {
    /// S3 asks for fewer requests: 503.
    pub const SLOW_DOWN: Fault = Fault::Answer { status: 503, code: "SlowDown" };
    /// S3 failed: 500.
    pub const INTERNAL_ERROR: Fault = Fault::Answer { status: 500, code: "InternalError" };
    /// S3 failed after it had begun to answer: 200 with an error in the body.
    pub const ERROR_IN_OK: Fault = Fault::Answer { status: 200, code: "InternalError" };
    /// What S3 answers to a presigned URL after its time: 403.
    pub const EXPIRED: Fault = Fault::Answer { status: 403, code: "AccessDenied" };

    /// This fault for the first matching request.
    #[must_use]
    pub fn once(self) -> FaultRule {
        self.times(1)
    }

    /// This fault for so many matching requests.
    #[must_use]
    pub fn times(self, times: u64) -> FaultRule {
        FaultRule { fault: self, kind: None, method: None, key: None, skip: 0, times }
    }

    /// This fault for every matching request until the rule is removed.
    #[must_use]
    pub fn always(self) -> FaultRule {
        self.times(u64::MAX)
    }
}

/// Which requests a fault happens to: all, unless narrowed.
#[derive(Clone, Debug)]
pub struct FaultRule {
    fault: Fault,
    kind: Option<RequestKind>,
    method: Option<String>,
    key: Option<String>,
    skip: u64,
    times: u64,
}

impl FaultRule {
    /// Only requests of this kind.
    #[must_use]
    pub fn on(mut self, kind: RequestKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Only requests of this method, as `GET`.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose key has this text in it.
    #[must_use]
    pub fn key(mut self, part: &str) -> Self {
        self.key = Some(part.to_owned());
        self
    }

    /// Not the first so many requests that match.
    #[must_use]
    pub fn after(mut self, matches: u64) -> Self {
        self.skip = matches;
        self
    }

    fn matches(&self, request: &Recorded) -> bool {
        self.kind.is_none_or(|kind| kind == request.kind)
            && self.method.as_ref().is_none_or(|method| *method == request.method)
            && self.key.as_ref().is_none_or(|part| request.key.contains(part))
    }
}

/// The name of a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId(u64);

/// The faults of a server. Clones are the same faults.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Rules>>);

#[derive(Debug, Default)]
struct Rules {
    rules: Vec<Active>,
    next: u64,
}

#[derive(Debug)]
struct Active {
    id: FaultId,
    rule: FaultRule,
    /// How many requests matched.
    matched: u64,
    /// To how many of them the fault happened.
    hits: u64,
}

impl Faults {
    /// Switches a rule on, for requests that arrive from now on.
    pub fn add(&self, rule: FaultRule) -> FaultId {
        let mut rules = self.0.lock();
        let id = FaultId(rules.next);
        rules.next += 1;
        rules.rules.push(Active { id, rule, matched: 0, hits: 0 });
        id
    }

    /// To how many requests a rule has happened; 0 for one that was removed.
    #[must_use]
    pub fn hits(&self, id: FaultId) -> u64 {
        self.0.lock().rules.iter().find(|active| active.id == id).map_or(0, |active| active.hits)
    }

    /// Switches a rule off. What it has begun to do to a request it ends.
    pub fn remove(&self, id: FaultId) {
        self.0.lock().rules.retain(|active| active.id != id);
    }

    /// Switches all rules off.
    pub fn clear(&self) {
        self.0.lock().rules.clear();
    }

    /// The faults that happen to this request: every latency whose turn it is, and of the others the one whose rule
    /// was added first. Rules behind that one have not happened, and their turn does not pass.
    pub(super) fn of(&self, request: &Recorded) -> (Duration, Option<Fault>) {
        let (mut latency, mut other) = (Duration::ZERO, None);
        for active in self.0.lock().rules.iter_mut().filter(|active| active.rule.matches(request)) {
            active.matched += 1;
            if active.matched <= active.rule.skip || active.hits >= active.rule.times {
                continue;
            }
            match &active.rule.fault {
                Fault::Latency(more) => latency += *more,
                _ if other.is_some() => continue,
                fault => other = Some(fault.clone()),
            }
            active.hits += 1;
        }
        (latency, other)
    }
}
