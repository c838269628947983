//! Conditions: how a reconciler says what is the case, since when and why.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Time;

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not, and will not until somebody changes something.
    False,
    /// Not known yet, or not yet: it is being worked on.
    Unknown,
}

/// One statement about a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the statement is about: `Ready`, `Active`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: Truth,
    /// Why, as one word for programs.
    pub reason: String,
    /// Why, as a sentence for people.
    pub message: String,
    /// When `status` last became what it is.
    pub last_transition: Time,
}

/// The part of a status that every kind has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Common {
    /// The `metadata.generation` the status speaks of; 0: nobody has looked yet.
    #[serde(default)]
    pub observed_generation: u64,
    /// The conditions, one of each type.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl Common {
    /// The condition of a type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Whether the condition of a type is known to hold.
    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|c| c.status == Truth::True)
    }

    /// Takes a condition back: the controller that stated it has ended. The time of transition stays.
    pub(super) fn forget_after_restart(&mut self, kind: &str) {
        if let Some(known) = self.conditions.iter_mut().find(|c| c.kind == kind) {
            known.status = Truth::Unknown;
            known.reason = "Restarted".to_owned();
            known.message = "the controller was started again and has not looked yet".to_owned();
        }
    }

    /// States a condition; the time of transition moves only if `status` changes.
    pub fn state(
        &mut self,
        now: SystemTime,
        kind: &str,
        status: Truth,
        reason: &str,
        message: impl Into<String>,
    ) {
        let (reason, message) = (reason.to_owned(), message.into());
        match self.conditions.iter_mut().find(|c| c.kind == kind) {
            Some(known) => {
                if known.status != status {
                    known.last_transition = now.into();
                }
                (known.status, known.reason, known.message) = (status, reason, message);
            }
            None => {
                let (kind, last_transition) = (kind.to_owned(), now.into());
                self.conditions.push(Condition { kind, status, reason, message, last_transition });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let later = start + Duration::from_secs(50);
        let mut common = Common::default();
        common.state(start, "Ready", Truth::Unknown, "Starting", "");
        common.state(later, "Ready", Truth::Unknown, "StillStarting", "soon");
        assert_eq!(common.condition("Ready").unwrap().last_transition, start.into());
        common.state(later, "Ready", Truth::True, "Serving", "");
        assert_eq!(common.condition("Ready").unwrap().last_transition, later.into());
        assert!(common.is("Ready") && !common.is("Active"));
        assert_eq!(common.conditions.len(), 1);
    }
}
