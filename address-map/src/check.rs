//! Proof that a tenant's records fit together. Changes nothing.

use std::collections::HashMap;

use crate::acl::{self, Acl};
use crate::attr::FileKind;
use crate::error::Result;
use crate::ids::{Ino, Slot};
use crate::key::{self, Kind};
use crate::record::{Entry, Injection, Inode, LinkRecord, Usage};
use crate::shard::{Records, View, decode};

/// Most problems described in full; more are only counted.
const PROBLEMS_MAX: usize = 1000;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Inodes seen.
    pub inodes: u64,
    /// Directory entries seen.
    pub entries: u64,
    /// What does not fit, one sentence each.
    pub problems: Vec<String>,
    /// Problems beyond those described.
    pub more_problems: u64,
}

impl Report {
    fn problem(&mut self, sentence: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(sentence);
        } else {
            self.more_problems += 1;
        }
    }

    /// Whether everything fits.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// What the entries say about an inode.
#[derive(Default, Clone, Copy)]
struct Seen {
    names: u32,
    entries_inside: u64,
    directories_inside: u32,
    last_parent: u64,
    kind: Option<FileKind>,
}

/// Reads every record of the tenant once and compares them. The tree should be at rest: changes made meanwhile may
/// show up as problems.
pub fn check(view: &View<'_>) -> Result<Report> {
    let mut report = Report::default();
    let seen = gather_entries(view, &mut report)?;
    let usage = check_inodes(view, seen, &mut report)?;
    check_xattrs(view, &mut report)?;
    check_links(view, &mut report)?;
    check_injections(view, &mut report)?;
    check_orphans(view, &mut report)?;
    let head = view.tenant_record()?;
    if head.usage != usage {
        let (counted, kept) = (usage, head.usage);
        report.problem(format!(
            "usage says {} bytes in {} inodes, the records say {} in {}",
            kept.bytes, kept.inodes, counted.bytes, counted.inodes
        ));
    }
    Ok(report)
}

fn gather_entries(view: &View<'_>, report: &mut Report) -> Result<HashMap<u64, Seen>> {
    let name_key = view.tenant_record()?.name_key;
    let mut seen: HashMap<u64, Seen> = HashMap::new();
    view.scan_prefix(&key::kind_prefix(view.tenant(), Kind::Entry), &mut |key, value| {
        report.entries += 1;
        let Some((parent, cookie, name)) = key::parse_entry(key) else {
            report.problem(format!("an entry has the malformed key {key:02x?}"));
            return Ok(true);
        };
        if cookie != crate::namespace::cookie(name_key, &name) {
            report.problem(format!("entry {name} of directory {parent} is at the wrong position"));
        }
        let entry: Entry = decode(key, value)?;
        let directory = seen.entry(parent.0).or_default();
        directory.entries_inside += 1;
        let (Entry::Inode { kind, .. } | Entry::Injected { kind, .. }) = entry;
        directory.directories_inside += u32::from(kind == FileKind::Directory);
        if let Entry::Inode { ino, kind } = entry {
            let target = seen.entry(ino.0).or_default();
            target.names += 1;
            target.last_parent = parent.0;
            target.kind = Some(kind);
        }
        Ok(true)
    })?;
    Ok(seen)
}

fn check_inodes(view: &View<'_>, mut seen: HashMap<u64, Seen>, report: &mut Report) -> Result<Usage> {
    let next_ino = view.tenant_record()?.next_ino;
    let mut usage = Usage::default();
    view.scan_prefix(&key::kind_prefix(view.tenant(), Kind::Inode), &mut |key, value| {
        let Some(ino) = key::parse_number(key) else { return Ok(true) };
        let inode: Inode = decode(key, value)?;
        usage.inodes += 1;
        usage.bytes += inode.charged_bytes();
        if ino >= next_ino {
            report.problem(format!("inode {ino} is beyond the next number to give out, {next_ino}"));
        }
        check_inode(Ino(ino), &inode, seen.remove(&ino).unwrap_or_default(), report);
        Ok(true)
    })?;
    report.inodes = usage.inodes;
    for ino in seen.keys() {
        report.problem(format!("inode {ino} has entries but no record"));
    }
    Ok(usage)
}

fn check_inode(ino: Ino, inode: &Inode, seen: Seen, report: &mut Report) {
    if let Some(kind) = seen.kind.filter(|kind| *kind != inode.kind) {
        report.problem(format!("inode {ino} is {:?}, an entry says {kind:?}", inode.kind));
    }
    if inode.kind == FileKind::Directory {
        let names = u32::from(ino != Ino::ROOT);
        if seen.names != names {
            report.problem(format!("directory {ino} has {} names", seen.names));
        }
        if inode.nlink != 2 + seen.directories_inside {
            report.problem(format!(
                "directory {ino} counts {} links and has {} sub-directories",
                inode.nlink, seen.directories_inside
            ));
        }
        if inode.size != seen.entries_inside {
            report.problem(format!(
                "directory {ino} counts {} entries and has {}",
                inode.size, seen.entries_inside
            ));
        }
    } else {
        if inode.nlink != seen.names {
            report.problem(format!("inode {ino} counts {} links and has {} names", inode.nlink, seen.names));
        }
        if seen.entries_inside > 0 {
            report.problem(format!("inode {ino} is no directory and has entries"));
        }
    }
    if seen.names == 1 && inode.parent.0 != seen.last_parent {
        report.problem(format!("inode {ino} is in {}, its record says {}", seen.last_parent, inode.parent));
    }
}

fn check_xattrs(view: &View<'_>, report: &mut Report) -> Result<()> {
    view.scan_prefix(&key::kind_prefix(view.tenant(), Kind::Xattr), &mut |key, value| {
        let Some((ino, name)) = key::parse_xattr(key) else { return Ok(true) };
        let Some(inode) = view.inode(ino)? else {
            report.problem(format!("attributes of inode {ino} are left over"));
            return Ok(true);
        };
        if !inode.has_xattrs {
            report.problem(format!("inode {ino} has attributes, its record says none"));
        }
        let is_access = name == acl::ACCESS;
        if is_access || name == acl::DEFAULT {
            match Acl::decode(&decode::<Vec<u8>>(key, value)?) {
                Ok(Some(list)) if is_access && list.apply_to(inode.mode) != inode.mode => {
                    report.problem(format!("access list and permission bits of inode {ino} differ"));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => report.problem(format!("inode {ino} has a malformed access list")),
            }
        }
        Ok(true)
    })
}

fn check_links(view: &View<'_>, report: &mut Report) -> Result<()> {
    let mut names: HashMap<u64, u32> = HashMap::new();
    view.scan_prefix(&key::kind_prefix(view.tenant(), Kind::Link), &mut |key, value| {
        if let Some((ino, _)) = key::parse_link(key) {
            *names.entry(ino.0).or_default() += decode::<LinkRecord>(key, value)?.names;
        }
        Ok(true)
    })?;
    for (ino, names) in names {
        match view.inode(Ino(ino))? {
            Some(inode) if inode.nlink > 1 && inode.nlink == names => {}
            Some(inode) => report.problem(format!(
                "link records of inode {ino} count {names} names, the inode {}",
                inode.nlink
            )),
            None => report.problem(format!("link records of inode {ino} are left over")),
        }
    }
    Ok(())
}

fn check_injections(view: &View<'_>, report: &mut Report) -> Result<()> {
    let name_key = view.tenant_record()?.name_key;
    view.scan_prefix(&key::kind_prefix(view.tenant(), Kind::Injection), &mut |key, value| {
        let Some(slot) = key::parse_injection(key) else { return Ok(true) };
        let injection: Injection = decode(key, value)?;
        let cookie = crate::namespace::cookie(name_key, &injection.name);
        let entry = view.entry(&key::entry(view.tenant(), injection.parent, cookie, &injection.name))?;
        let matches = matches!(entry, Some(Entry::Injected { share, slot: at, .. }) if share == injection.share && at == slot);
        if slot == Slot::OWN || !matches {
            report.problem(format!("share {} at slot {slot} has no entry that leads to it", injection.share));
        }
        Ok(true)
    })
}

fn check_orphans(view: &View<'_>, report: &mut Report) -> Result<()> {
    for ino in crate::namespace::object::orphans(view)? {
        match view.inode(ino)? {
            Some(inode) if inode.nlink == 0 => {}
            Some(inode) => {
                report.problem(format!("inode {ino} is noted as unlinked and has {} links", inode.nlink))
            }
            None => report.problem(format!("inode {ino} is noted as unlinked and has no record")),
        }
    }
    Ok(())
}
