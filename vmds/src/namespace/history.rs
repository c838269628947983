//! Which facts have changed lately, so that an answer that was on its way meanwhile is recognised as old.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use address_map::ids::NodeId;
use address_map::name::Name;

/// Most changes remembered. Answers to questions older than that are not kept.
const CHANGES_MAX: usize = 1024;

/// The state of knowledge when a question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub(super) u64);

/// One thing that can be known.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Fact<'a> {
    /// The attributes of an inode.
    Attr(NodeId),
    /// The extended attributes of an inode.
    Xattrs(NodeId),
    /// Where a name leads.
    Entry(NodeId, &'a Name),
    /// What a directory lists.
    Listing(NodeId),
}

impl Fact<'_> {
    /// Two facts may share a number; then one is now and then asked for once more than needed.
    fn number(self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// The latest changes.
#[derive(Default)]
pub(super) struct History {
    now: u64,
    /// Changes up to this one are not remembered.
    forgotten: u64,
    changes: VecDeque<(u64, u64)>,
}

impl History {
    /// The present.
    pub(super) fn now(&self) -> Stamp {
        Stamp(self.now)
    }

    /// Notes that a fact changes.
    pub(super) fn note(&mut self, fact: Fact<'_>) {
        if self.changes.len() >= CHANGES_MAX
            && let Some((oldest, _)) = self.changes.pop_front()
        {
            self.forgotten = oldest;
        }
        self.now += 1;
        self.changes.push_back((self.now, fact.number()));
    }

    /// Notes that everything changes.
    pub(super) fn note_all(&mut self) {
        self.now += 1;
        self.forgotten = self.now;
        self.changes.clear();
    }

    /// Whether a fact is certain not to have changed after `since` and up to `until`.
    pub(super) fn is_unchanged(&self, fact: Fact<'_>, since: Stamp, until: Stamp) -> bool {
        if since.0 < self.forgotten {
            return false;
        }
        if since == until {
            return true;
        }
        let number = fact.number();
        let later = self.changes.iter().rev().take_while(|(at, _)| *at > since.0);
        !later.filter(|(at, _)| *at <= until.0).any(|(_, changed)| *changed == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_since_is_old() {
        let mut history = History::default();
        let before = history.now();
        history.note(Fact::Attr(NodeId(1)));
        let between = history.now();
        history.note(Fact::Attr(NodeId(2)));
        let now = history.now();
        assert!(!history.is_unchanged(Fact::Attr(NodeId(1)), before, now));
        assert!(history.is_unchanged(Fact::Attr(NodeId(1)), between, now));
        assert!(history.is_unchanged(Fact::Attr(NodeId(2)), before, between));
        assert!(history.is_unchanged(Fact::Listing(NodeId(1)), before, now));
        history.note_all();
        assert!(!history.is_unchanged(Fact::Attr(NodeId(9)), now, history.now()));
        assert!(history.is_unchanged(Fact::Attr(NodeId(9)), history.now(), history.now()));
    }

    #[test]
    fn what_is_not_remembered_counts_as_changed() {
        let mut history = History::default();
        let before = history.now();
        for number in 0..CHANGES_MAX as u64 {
            history.note(Fact::Attr(NodeId(number)));
        }
        assert!(history.is_unchanged(Fact::Listing(NodeId(1)), before, history.now()));
        history.note(Fact::Attr(NodeId(0)));
        assert!(!history.is_unchanged(Fact::Listing(NodeId(1)), before, history.now()));
        assert_eq!(history.changes.len(), CHANGES_MAX);
    }
}
