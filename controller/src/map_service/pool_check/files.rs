//! From the map to the bucket: is the object of each file there, and is it the right one?

use std::collections::BTreeMap;

use address_map::ids::Ino;
use address_map::map::Tree;
use address_map::namespace::audit;
use address_map::record::StoredObject;

use super::{Check, Ended, is_gone};
use crate::pool::s3::{SEPARATOR, Span, Stored};
use crate::resource::human_bytes;
use crate::services::PoolProblemKind;

/// Inodes looked at at a time: as many as have their objects in one directory of the bucket.
const INODES_AT_ONCE: usize = 4096;

/// Files, by the whole keys of their objects, of which several may have the same.
type Wanted = BTreeMap<String, Vec<(Ino, StoredObject)>>;

impl Check<'_> {
    pub(super) fn look_for_files(&mut self, tree: &Tree) -> Result<(), Ended> {
        let mut from = Some(Ino(0));
        while let Some(ino) = from {
            let expected = match audit::expected(&tree.view(), self.order.id, ino, INODES_AT_ONCE) {
                Err(error) if is_gone(&error) => return Ok(()),
                expected => expected?,
            };
            self.so_far.files += expected.files.len() as u64;
            let mut wanted = Wanted::new();
            for (ino, stored) in expected.files {
                let key = self.store.s3.settings().full_key(&stored.object.key);
                wanted.entry(key).or_default().push((ino, stored));
            }
            while let Some((first, _)) = wanted.first_key_value() {
                let first = first.clone();
                self.look_from(tree, &first, &mut wanted)?;
                self.report()?;
            }
            from = expected.next;
        }
        Ok(())
    }

    /// Reads one page of the list where the first of the wanted objects should be, and takes out of them what that page
    /// tells of, at least the first.
    fn look_from(&mut self, tree: &Tree, first: &str, wanted: &mut Wanted) -> Result<(), Ended> {
        let directory = first.rfind(SEPARATOR).map_or("", |end| &first[..=end]);
        let span =
            Span { prefix: directory.to_owned(), after: Some(just_before(first)), by_directory: false };
        let findings = self.ask(async |s3| s3.browse(&span, None).await)?;
        let covered = |key: &str| match (&findings.next, findings.objects.last()) {
            (None, _) => key.starts_with(directory),
            (Some(_), Some(last)) => key.starts_with(directory) && *key <= *last.key,
            (Some(_), None) => false,
        };
        for found in &findings.objects {
            for (ino, stored) in wanted.remove(&found.key).unwrap_or_default() {
                self.compare(tree, ino, &stored, &found.stored)?;
            }
        }
        let absent: Vec<String> =
            wanted.keys().filter(|key| covered(key) || *key == first).cloned().collect();
        for key in absent {
            for (ino, stored) in wanted.remove(&key).unwrap_or_default() {
                // The page may end before it, and there are stores whose lists are late.
                match self.ask(async |s3| s3.head(&stored.object.key).await)? {
                    Some(found) => self.compare(tree, ino, &stored, &found)?,
                    None => self.tell(PoolProblemKind::Missing, tree, ino, &stored, String::new())?,
                }
            }
        }
        Ok(())
    }

    fn compare(&mut self, tree: &Tree, ino: Ino, stored: &StoredObject, found: &Stored) -> Result<(), Ended> {
        if stored.size != found.size {
            let sizes = format!("{} instead of {}", human_bytes(found.size), human_bytes(stored.size));
            return self.tell(PoolProblemKind::WrongSize, tree, ino, stored, sizes);
        }
        if !self.store.s3.is_same_etag(&stored.etag, &found.etag) {
            let etags = format!("{} instead of {}", found.etag, stored.etag);
            return self.tell(PoolProblemKind::WrongEtag, tree, ino, stored, etags);
        }
        Ok(())
    }

    /// Something is wrong with a file's object, if the file still leads there.
    fn tell(
        &mut self,
        kind: PoolProblemKind,
        tree: &Tree,
        ino: Ino,
        stored: &StoredObject,
        detail: String,
    ) -> Result<(), Ended> {
        match audit::leads_to(&tree.view(), ino, &stored.object) {
            Ok(Some(now)) if now == *stored => {
                self.found(kind, (tree.tenant(), &stored.object), Some((tree, ino)), detail)
            }
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A text that comes before `key`, and after all but a few that do.
fn just_before(key: &str) -> String {
    let mut text = key.to_owned();
    let last = text.pop().map_or(0, u32::from);
    let before = (0..last).rev().find_map(char::from_u32);
    text.extend(before.into_iter().chain(before.map(|_| char::MAX)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_begins_right_before_what_is_wanted() {
        for (key, before) in
            [("dir/b", "dir/a\u{10ffff}"), ("dir/\0", "dir/"), ("a\u{e000}", "a\u{d7ff}\u{10ffff}"), ("", "")]
        {
            assert_eq!(just_before(key), before);
        }
        assert!(just_before("dir/b").as_str() < "dir/b" && just_before("dir/b").as_str() > "dir/azzz");
    }
}
