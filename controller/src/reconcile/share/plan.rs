//! What is to be done about a share: pure.

use std::time::{Duration, SystemTime};

use address_map::ids::TenantId;

use super::super::Next;
use crate::resource::{Resource, Share, Tenant, Truth};

/// How long a share that has ended can still be looked at.
pub(super) const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);

/// Longest time between two looks at a share that will end.
const LONGEST_APPOINTMENT: Duration = Duration::from_secs(24 * 3600);

/// What is the case about a share.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) owner: Option<Resource<Tenant>>,
    pub(super) grantee: Option<Resource<Tenant>>,
    pub(super) now: SystemTime,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    CheckShareable,
    Grant,
    Revoke { owner: TenantId, grantee: TenantId },
    End(End),
    Wait { truth: Truth, reason: &'static str, message: String },
    Forget,
}

/// How a share ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Revoked,
    Expired,
}

pub(super) fn plan(share: &Resource<Share>, observed: &Observed) -> Vec<Step> {
    let end = match share.spec.expires {
        _ if share.spec.revoked => Some(End::Revoked),
        Some(at) if at.system() <= observed.now => Some(End::Expired),
        _ => None,
    };
    let over = share.status.receipt.as_ref();
    if share.metadata.deletion_requested {
        let revoke = if over.is_some() { None } else { revoke(share, observed) };
        return revoke.into_iter().chain([Step::Forget]).collect();
    }
    match (over, end) {
        (Some(receipt), _) if receipt.at.system() + KEPT_AFTER_END <= observed.now => vec![Step::Forget],
        // What has ended stays so, even if somebody sets a later time.
        (Some(_), _) => vec![Step::End(if share.spec.revoked { End::Revoked } else { End::Expired })],
        (None, Some(end)) => revoke(share, observed).into_iter().chain([Step::End(end)]).collect(),
        (None, None) if is_settled(share) => Vec::new(),
        (None, None) => plan_grant(share, observed),
    }
}

/// Granted as it is wanted now. It is not granted again then: the grantee may have moved or dropped it since.
fn is_settled(share: &Resource<Share>) -> bool {
    share.is_ready() && share.status.common.observed_generation == share.metadata.generation
}

/// Taking back what was granted, or may have been by a controller that died before it could say so.
fn revoke(share: &Resource<Share>, observed: &Observed) -> Option<Step> {
    let number = |tenant: &Option<Resource<Tenant>>| tenant.as_ref().map(|t| t.status.tenant_id);
    let owner = share.status.owner_id.or_else(|| number(&observed.owner))?;
    let grantee = share.status.grantee_id.or_else(|| number(&observed.grantee))?;
    Some(Step::Revoke { owner: TenantId(owner), grantee: TenantId(grantee) })
}

/// What is wrong on the owner's side is found before the grantee is looked at, so that the owner learns the same
/// whether there is such a grantee or not.
fn plan_grant(share: &Resource<Share>, observed: &Observed) -> Vec<Step> {
    let wait = |truth, reason, message| Step::Wait { truth, reason, message };
    let (from, to) = (&share.spec.from.tenant, &share.spec.to.tenant);
    let usable = |tenant: &Resource<Tenant>| tenant.is_ready() && !tenant.metadata.deletion_requested;
    match &observed.owner {
        None => return vec![wait(Truth::False, "OwnerMissing", format!("there is no tenant '{from}'"))],
        Some(owner) if !usable(owner) => {
            return vec![wait(
                Truth::Unknown,
                "WaitingForOwner",
                format!("the tenant '{from}' is not ready"),
            )];
        }
        Some(_) => {}
    }
    let then = match &observed.grantee {
        None => wait(Truth::False, "GranteeMissing", format!("there is no tenant '{to}'")),
        Some(grantee) if !usable(grantee) => {
            wait(Truth::Unknown, "WaitingForGrantee", format!("the tenant '{to}' is not ready"))
        }
        Some(_) => Step::Grant,
    };
    vec![Step::CheckShareable, then]
}

/// When the share has to be looked at again without a reason.
pub(super) fn appointment(share: &Resource<Share>, now: SystemTime) -> Next {
    let end = match &share.status.receipt {
        Some(receipt) => Some(receipt.at.system() + KEPT_AFTER_END),
        None => share.spec.expires.map(|at| at.system()),
    };
    let wait = |at: SystemTime| at.duration_since(now).unwrap_or_default().min(LONGEST_APPOINTMENT);
    end.map_or(Next::Change, |at| Next::After(wait(at)))
}
