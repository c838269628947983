//! Listings of directories, page by page.
//!
//! A position in a listing is the cookie of the last entry seen, so no state is kept between two requests. 1 and 2
//! are the positions after `.` and `..`; cookies of entries begin at 3.

use std::sync::Arc;

use address_map::attr::Attr;
use address_map::ids::NodeId;
use address_map::wire::{Answer, Call, ListEntry};

use super::{Done, Fs, Shown};
use crate::namespace::Page;

/// Position after `..`: where the entries begin.
const AFTER_DOTS: u64 = 2;

/// A part of a directory, beginning where it was asked for.
pub(crate) struct Listing {
    fs: Arc<Fs>,
    dir: NodeId,
    page: Arc<Page>,
    /// Position asked for.
    offset: u64,
    /// First entry of the page behind that position.
    first: usize,
    /// The page was answered just now.
    fresh: bool,
    /// The kernel may keep what it learns from this listing.
    kept: bool,
}

/// One entry of a listing.
pub(crate) struct Listed<'a> {
    /// Position after this entry.
    pub(crate) cookie: u64,
    /// Name.
    pub(crate) name: &'a [u8],
    /// Inode.
    pub(crate) node: NodeId,
    /// The entry itself, unless it is `.` or `..`.
    pub(crate) entry: Option<&'a ListEntry>,
}

impl Listing {
    /// The entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Listed<'_>> {
        let dots: [(u64, &[u8]); 2] = [(1, b"."), (AFTER_DOTS, b"..")];
        let dots = dots
            .into_iter()
            .filter(|(cookie, _)| *cookie > self.offset)
            .map(|(cookie, name)| Listed { cookie, name, node: self.dir, entry: None });
        let entries = self.page.entries[self.first..].iter().map(|entry| Listed {
            cookie: entry.cookie,
            name: entry.name.as_bytes(),
            node: entry.node.node,
            entry: Some(entry),
        });
        dots.chain(entries)
    }

    /// How the kernel is shown an entry; `None` when its attributes are not known any more. The kernel then comes
    /// again for the rest.
    pub(crate) fn show(&self, entry: &ListEntry) -> Option<Shown> {
        let attr = self.attr(entry)?;
        let shown = self.fs.shown(Some(self.dir), entry.node.node, attr, self.kept);
        // Entries of a listing carry one time for both.
        Some(Shown { entry_ttl: shown.entry_ttl.min(shown.attr_ttl), ..shown })
    }

    fn attr(&self, entry: &ListEntry) -> Option<Attr> {
        // A page is as true as when it came while nothing has changed, save for files that are being written.
        let known = entry.node.attr;
        if self.fresh || (!known.volatile && self.fs.cache.is_current(self.page.stamp)) {
            return Some(known);
        }
        self.fs.cache.attr(entry.node.node).filter(|attr| !attr.volatile)
    }

    /// Whether attributes can be shown for the first entry, so that a request for them gets ahead.
    fn can_show_some(&self) -> bool {
        self.page.entries.get(self.first).is_none_or(|entry| self.attr(entry).is_some())
    }
}

impl Fs {
    /// What comes after `offset` in a directory; with `plus` attributes are wanted as well.
    pub(crate) fn list(self: &Arc<Self>, dir: NodeId, offset: u64, plus: bool, done: impl Done<Listing>) {
        let after = if offset <= AFTER_DOTS { 0 } else { offset };
        if let Some(page) = self.cache.page(dir, after) {
            let listing = self.listing(page, offset, after, false, true);
            if !plus || listing.can_show_some() {
                return done(Ok(listing));
            }
        }
        let fs = Arc::clone(self);
        let stamp = self.cache.stamp();
        let accept = |answer| match answer {
            Answer::Page { entries, end } => Some((entries, end)),
            _ => None,
        };
        self.ask(Call::List { node: dir, after }, accept, move |answer| {
            done(match answer {
                Ok((entries, end)) => {
                    // A page without entries cannot be got past: it is the end whatever it says.
                    let end = end || entries.is_empty();
                    let page = Arc::new(Page { dir, after, entries, end, stamp });
                    let kept = fs.cache.learn(stamp, |facts| facts.page(&page));
                    Ok(fs.listing(page, offset, after, true, kept))
                }
                Err(refusal) => Err(refusal.into()),
            });
        });
    }

    fn listing(
        self: &Arc<Self>,
        page: Arc<Page>,
        offset: u64,
        after: u64,
        fresh: bool,
        kept: bool,
    ) -> Listing {
        let first = page.entries.partition_point(|entry| entry.cookie <= after);
        Listing { fs: Arc::clone(self), dir: page.dir, offset, first, fresh, kept, page }
    }
}
