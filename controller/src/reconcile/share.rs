//! Shares: granted, ended when revoked or expired, forgotten a day later.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use address_map::ids::{ShareId, TenantId};
use address_map::name::LogicalPath;
use address_map::record::{LeaseLimit, Rights};
use plan::{DROPPED, End, Observed, Step, appointment, plan};

use super::{Context, Next, ReconcileError, Reconciler, Work};
use crate::resource::{GrantRights, Kind, Resource, Share, ShareReceipt, Tenant, Truth};
use crate::services::{GrantOrder, GrantOutcome, Receipt, RevokeOrder, ServiceError};

/// Names tried at the grantee when the naming rule's is taken: `data`, `data-2`, ... `data-16`.
const NAMES_TRIED: u32 = 16;

/// Conditions `Active` whose reason may be told to the owner. Any other reason speaks of a grantee that the owner may
/// not know to exist; one that has dropped a share had it before.
pub(crate) const OWNER_SIDE_REASONS: [&str; 7] =
    ["Granted", "NotShareable", "OwnerMissing", "WaitingForOwner", "Revoked", "Expired", DROPPED];

/// The names to try at the grantee, best first.
fn targets(share: &Resource<Share>, grantee: &Resource<Tenant>) -> Result<Vec<LogicalPath>, ServiceError> {
    let invalid = |error: &dyn std::fmt::Display| ServiceError::Invalid(error.to_string());
    if let Some(path) = &share.spec.to.path {
        return Ok(vec![LogicalPath::parse(path.as_bytes()).map_err(|e| invalid(&e))?]);
    }
    let (owner, rule) = (&share.spec.from.tenant, &grantee.spec.share_naming);
    let base = share.spec.from.path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(owner);
    let first = rule.path(owner, base, share.name()).map_err(|e| invalid(&e))?;
    let numbered = |n: u32| LogicalPath::parse(format!("{first}-{n}").as_bytes()).ok();
    Ok(std::iter::once(first.clone()).chain((2..=NAMES_TRIED).filter_map(numbered)).collect())
}

/// Makes shares what they should be.
pub struct ShareReconciler(pub Arc<Context>);

impl ShareReconciler {
    fn observe(&self, share: &Resource<Share>) -> Result<Observed, ReconcileError> {
        let tenant = |name: &str| self.0.store.read::<Tenant>(name);
        let (owner, grantee) = (tenant(&share.spec.from.tenant)?, tenant(&share.spec.to.tenant)?);
        let injected = match share.status.grantee_id.filter(|_| share.status.path.is_some()) {
            None => None,
            Some(id) => self.is_injected(TenantId(id), share)?,
        };
        Ok(Observed { owner, grantee, injected, now: self.0.now() })
    }

    /// `None`: the grantee's tree is gone, or not there yet.
    fn is_injected(&self, grantee: TenantId, share: &Resource<Share>) -> Result<Option<bool>, ServiceError> {
        match self.0.services.map.is_injected(grantee, ShareId(share.status.share_id)) {
            Ok(injected) => Ok(Some(injected)),
            Err(ServiceError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Grants, under the first name that is free.
    fn grant(
        &self,
        share: &Resource<Share>,
        owner: &Resource<Tenant>,
        grantee: &Resource<Tenant>,
    ) -> Result<GrantOutcome, ServiceError> {
        for target in targets(share, grantee)? {
            let outcome = self.0.services.map.grant(&GrantOrder {
                id: ShareId(share.status.share_id),
                owner: TenantId(owner.status.tenant_id),
                path: owner_path(share)?,
                grantee: TenantId(grantee.status.tenant_id),
                target,
                rights: match share.spec.rights {
                    GrantRights::ReadOnly => Rights::ReadOnly,
                    GrantRights::ReadWrite => Rights::ReadWrite,
                },
                expires: share.spec.expires.map(|at| at.system()),
                leases: share.spec.lease_seconds.map(|seconds| LeaseLimit { seconds }),
            })?;
            if outcome != GrantOutcome::NameTaken {
                return Ok(outcome);
            }
        }
        Ok(GrantOutcome::NameTaken)
    }

    /// Grants and states what came of it.
    fn bring_to_life(&self, work: &mut Work<'_, Share>, observed: &Observed) -> Result<(), ServiceError> {
        let (Some(owner), Some(grantee)) = (&observed.owner, &observed.grantee) else { return Ok(()) };
        match self.grant(&work.resource, owner, grantee)? {
            GrantOutcome::Granted(target) => {
                let status = &mut work.resource.status;
                status.owner_id = Some(owner.status.tenant_id);
                status.grantee_id = Some(grantee.status.tenant_id);
                status.path = Some(target.to_string());
                let message = format!("live at {}:{target}", grantee.name());
                work.state("Active", Truth::True, "Granted", message);
            }
            GrantOutcome::NameTaken => {
                let message =
                    format!("'{}' has something else under that name; give another path", grantee.name());
                work.state("Active", Truth::False, "NameTaken", message);
            }
            GrantOutcome::Refused(sentence) => work.state("Active", Truth::False, "Refused", sentence),
        }
        Ok(())
    }

    fn check_shareable(&self, share: &Resource<Share>, observed: &Observed) -> Result<(), ServiceError> {
        let Some(owner) = &observed.owner else { return Ok(()) };
        self.0.services.map.shareable(TenantId(owner.status.tenant_id), &owner_path(share)?)
    }
}

/// The owner's name for what is shared.
fn owner_path(share: &Resource<Share>) -> Result<LogicalPath, ServiceError> {
    LogicalPath::parse(share.spec.from.path.as_bytes())
        .map_err(|error| ServiceError::Invalid(error.to_string()))
}

/// The owner asked for something that cannot be shared.
fn not_shareable(mut work: Work<'_, Share>, error: ServiceError) -> Result<Next, ReconcileError> {
    let (truth, _) = super::verdict(&error);
    work.state("Active", truth, "NotShareable", error.to_string());
    work.save()?;
    Err(error.into())
}

/// States how the share ended, and what taking it back reached.
fn state_end(work: &mut Work<'_, Share>, end: End, receipt: Option<Receipt>) {
    let (now, hard) = (work.context.now(), work.resource.spec.hard_revoke);
    let reached = receipt.unwrap_or_default();
    let receipt = work.resource.status.receipt.get_or_insert_with(|| ShareReceipt {
        at: now.into(),
        mounts_dropped: reached.mounts_dropped,
        mounts_unreached: reached.mounts_unreached,
        last_lease_ends: reached.last_lease_ends.map(Into::into),
        hard: false,
        processes_replaced: 0,
    });
    // What was revoked softly before can be revoked hard later.
    if hard && !receipt.hard {
        (receipt.hard, receipt.processes_replaced) = (true, reached.processes_replaced);
    }
    let (condition, message) = match end {
        End::Revoked => ("Revoked", "taken back by its owner"),
        End::Expired => ("Expired", "its time is over"),
        End::TenantGone => ("Revoked", "one of its tenants is gone"),
    };
    work.state("Active", Truth::False, condition, message);
    work.state(condition, Truth::True, condition, message);
}

impl Reconciler for ShareReconciler {
    fn kind(&self) -> Kind {
        Kind::Share
    }

    fn reconcile(&self, name: &str) -> Result<Next, ReconcileError> {
        let Some(mut work) = Work::<Share>::on(&self.0, name)? else { return Ok(Next::Change) };
        let observed = self.observe(&work.resource)?;
        let mut receipt = None;
        for step in plan(&work.resource, &observed) {
            match step {
                Step::CheckShareable => {
                    if let Err(error) = self.check_shareable(&work.resource, &observed) {
                        return not_shareable(work, error);
                    }
                }
                Step::Grant => match self.bring_to_life(&mut work, &observed) {
                    Ok(()) => work.save()?,
                    Err(error) => return work.save_failure(error),
                },
                Step::Revoke { owner, grantee, hard } => {
                    let id = ShareId(work.resource.status.share_id);
                    match self.0.services.map.revoke(&RevokeOrder { id, owner, grantee, hard }) {
                        Ok(reached) => receipt = Some(reached),
                        Err(error) => return work.save_failure(error),
                    }
                }
                Step::End(end) => {
                    state_end(&mut work, end, receipt.take());
                    work.save()?;
                }
                Step::Dropped => {
                    let message =
                        "the other tenant has removed it from its tree; share again to offer it anew";
                    work.state("Active", Truth::False, DROPPED, message);
                    work.save()?;
                }
                Step::Wait { truth, reason, message } => {
                    work.state("Active", truth, reason, message);
                    work.save()?;
                }
                Step::Forget => return work.forget(),
            }
        }
        Ok(appointment(&work.resource, observed.now))
    }
}
