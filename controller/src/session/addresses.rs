//! Address leases: for how long an address leads to an object. And what is noted of these and of other leases of files
//! of an object store.

use std::time::{Duration, SystemTime};

use address_map::attr::Timestamp;
use address_map::error::Result;
use address_map::ids::PoolId;
use address_map::namespace::contents;
use address_map::record::StoredObject;
use address_map::wire::Address;

use super::cached::by_address;
use super::scope::Scope;
use super::written::Written;
use super::{DataPlane, Session, io_refusal};
use crate::audit::{Access, Lent, Through};

/// What an endpoint can tell apart.
const SHORTEST: Duration = Duration::from_secs(1);

impl DataPlane {
    /// A lease of an object: it ends by itself, and leads to nothing else.
    pub(super) fn address_of(
        &self,
        session: &Session,
        scope: &Scope,
        written: &Written<'_>,
        stored: &StoredObject,
    ) -> Result<Address> {
        let StoredObject { object, etag, size } = stored;
        let holder = (session.id, scope.node(scope.ino));
        self.leases.set_reads(written.file(), holder, by_address(stored));
        let valid = lease_time(scope, written.store.lease(), self.map.clock().timestamp());
        let signed =
            written.store.wait(async |s3| s3.sign_get_matching(&object.key, etag, None, valid).await);
        let signed = signed.map_err(io_refusal)?;
        if let Some((share, _)) = &scope.through {
            // Noted first, looked at again then: either whoever takes the share back finds it, or it is not given out.
            self.grants.lends(*share, signed.expires);
            self.scope(session, scope.node(scope.ino))?;
        }
        self.audit.note(Lent {
            object: Some(written.audited(stored)),
            until: Some(signed.expires.into()),
            ..lent(session, scope, object.pool, Access::Address)
        });
        let rest = signed.expires.duration_since(SystemTime::now()).unwrap_or_default();
        let mut headers = signed.headers;
        headers.push(("Host".to_owned(), written.store.s3.endpoint().host.clone()));
        Ok(Address {
            pool: object.pool.0,
            target: signed.path_and_query,
            headers,
            etag: etag.clone(),
            size: *size,
            valid_ms: u32::try_from(rest.as_millis()).unwrap_or(u32::MAX),
            sums: contents::sums(&written.tree.view(), written.ino, 0)?,
        })
    }
}

/// A lease that ends when it is given back or taken away.
pub(super) fn lent(session: &Session, scope: &Scope, pool: PoolId, access: Access) -> Lent {
    let owner = scope.tree.tenant().0;
    Lent {
        time: SystemTime::now().into(),
        tenant: session.tenant_name.clone(),
        tenant_id: session.tenant().0,
        mount: session.mount.to_string(),
        ino: scope.ino.0,
        through: scope.through.as_ref().map(|(share, _)| Through { share: share.0, owner }),
        access,
        pool: pool.0,
        object: None,
        until: None,
    }
}

/// For how long an address may lead to an object: the strictest applies of what the pool says, what the share says that
/// it is seen through, and when that ends.
fn lease_time(scope: &Scope, of_pool: Duration, now: Timestamp) -> Duration {
    let Some((_, granted)) = &scope.through else { return of_pool };
    let of_share = granted.leases.map(|limit| Duration::from_secs(limit.seconds.into()));
    let to_its_end = granted.grant.expires.map(|end| between(now, end));
    [Some(of_pool), of_share, to_its_end].into_iter().flatten().min().unwrap_or(of_pool).max(SHORTEST)
}

/// Whole seconds from one time to another; none if that is before.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_secs(to.sec.saturating_sub(from.sec).try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_in_whole_seconds_and_never_backwards() {
        let at = |sec| Timestamp::new(sec, 999_999_999);
        assert_eq!(between(at(5), at(65)), Duration::from_secs(60));
        assert_eq!(between(at(5), at(4)), Duration::ZERO);
    }
}
