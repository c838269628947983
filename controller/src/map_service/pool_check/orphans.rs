//! From the bucket to the map: does anything lead to each object?

use std::time::SystemTime;

use address_map::error::{MapError, Result};
use address_map::ids::TenantId;
use address_map::map::Tree;
use address_map::namespace::{audit, object};
use address_map::record::ObjectRef;

use super::{Check, Ended, is_gone};
use crate::pool::s3::{Found, SEPARATOR, Span};
use crate::resource::human_bytes;
use crate::services::PoolProblemKind;

impl Check<'_> {
    pub(super) fn look_for_orphans(&mut self) -> Result<(), Ended> {
        let prefix = self.store.s3.settings().prefix.clone();
        let span = Span { prefix: prefix.clone(), after: None, by_directory: true };
        let mut page = None;
        loop {
            let findings = self.ask(async |s3| s3.browse(&span, page).await)?;
            for directory in &findings.directories {
                // Everything else in the bucket is not ours.
                let name = directory[prefix.len()..].trim_end_matches(SEPARATOR);
                if let Some(tenant) = object::parse_tenant_prefix(name) {
                    self.look_into(tenant, directory)?;
                }
            }
            page = findings.next;
            if page.is_none() {
                return Ok(());
            }
        }
    }

    /// Goes through all objects of a tenant.
    fn look_into(&mut self, tenant: TenantId, directory: &str) -> Result<(), Ended> {
        let span = Span { prefix: directory.to_owned(), ..Span::default() };
        let mut page = None;
        loop {
            let findings = self.ask(async |s3| s3.browse(&span, page).await)?;
            for found in &findings.objects {
                self.so_far.objects += 1;
                self.look_at(tenant, found)?;
            }
            self.report()?;
            page = findings.next;
            if page.is_none() {
                return Ok(());
            }
        }
    }

    fn look_at(&mut self, tenant: TenantId, found: &Found) -> Result<(), Ended> {
        let key = found.key[self.store.s3.settings().prefix.len()..].to_owned();
        let object = ObjectRef { pool: self.order.id, key };
        let made_for = object::parse_stored_address(&object.key);
        let tree = match self.plane.map.tree(tenant) {
            Ok(tree) => Some(tree),
            // It may be a directory of somebody else that has such a name.
            Err(_) if made_for.is_none() => return Ok(()),
            Err(_) => None,
        };
        let age = SystemTime::now().duration_since(found.modified).unwrap_or_default();
        if self.is_known(tree.as_ref(), &object)? || age < self.order.grace {
            return Ok(());
        }
        // It may have been deleted, and the note of that with it, between the list and the look at the map.
        if self.ask(async |s3| s3.head(&object.key).await)?.is_none() {
            return Ok(());
        }
        self.found(PoolProblemKind::Orphan, (tenant, &object), None, human_bytes(found.stored.size))?;
        if let (true, Some(tree), Some(_)) = (self.order.repair, tree, made_for) {
            tree.write(|txn| {
                object::discard(txn, &object);
                Ok(())
            })?;
            self.plane.delete_soon(tenant, object);
            self.so_far.repaired += 1;
        }
        Ok(())
    }

    fn is_known(&self, tree: Option<&Tree>, object: &ObjectRef) -> Result<bool, MapError> {
        let (Some(tree), Some((_, ino))) = (tree, object::parse_stored_address(&object.key)) else {
            return Ok(false);
        };
        // First as fast as it can be.
        let known = match audit::leads_to(&tree.view(), ino, object) {
            Ok(None) => tree.write(|txn| audit::is_known(txn, ino, object)),
            known => known.map(|stored| stored.is_some()),
        };
        match known {
            Err(error) if is_gone(&error) => Ok(false),
            known => known,
        }
    }
}
