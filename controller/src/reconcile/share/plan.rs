//! What is to be done about a share: pure.

use std::time::{Duration, SystemTime};

use address_map::ids::TenantId;

use super::super::Next;
use crate::resource::{Resource, Share, Tenant, Truth};

/// How long a share that has ended can still be looked at.
pub(super) const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);

/// Longest time between two looks at a share that will end.
const LONGEST_APPOINTMENT: Duration = Duration::from_secs(24 * 3600);

/// The reason of a share that its grantee has dropped.
pub(super) const DROPPED: &str = "Dropped";

/// What is the case about a share.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) owner: Option<Resource<Tenant>>,
    pub(super) grantee: Option<Resource<Tenant>>,
    /// Whether the grantee has it in its tree; `None`: that cannot be known now.
    pub(super) injected: Option<bool>,
    pub(super) now: SystemTime,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    CheckShareable,
    Grant,
    Revoke { owner: TenantId, grantee: TenantId, hard: bool },
    End(End),
    Dropped,
    Wait { truth: Truth, reason: &'static str, message: String },
    Forget,
}

/// How a share ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Revoked,
    Expired,
    TenantGone,
}

pub(super) fn plan(share: &Resource<Share>, observed: &Observed) -> Vec<Step> {
    if let Some(receipt) = &share.status.receipt {
        let kept_until = receipt.at.system() + KEPT_AFTER_END;
        if share.metadata.deletion_requested || kept_until <= observed.now {
            return vec![Step::Forget];
        }
        let ended = Step::End(how_it_ended(share));
        return match share.spec.hard_revoke && !receipt.hard {
            true => take_back(share, observed, ended),
            false => vec![ended],
        };
    }
    if share.metadata.deletion_requested {
        return take_back(share, observed, Step::Forget);
    }
    match end(share, observed) {
        Some(end) => take_back(share, observed, Step::End(end)),
        None if is_dropped(share, observed) => vec![Step::Dropped],
        None if is_settled(share) => Vec::new(),
        None => plan_grant(share, observed),
    }
}

/// Why the share has to end now; `None`: it has not.
fn end(share: &Resource<Share>, observed: &Observed) -> Option<End> {
    let gone = |id: Option<u32>, tenant: &Option<Resource<Tenant>>| {
        id.is_some_and(|id| tenant.as_ref().is_none_or(|tenant| tenant.status.tenant_id != id))
    };
    match share.spec.expires {
        _ if share.spec.revoked => Some(End::Revoked),
        Some(at) if at.system() <= observed.now => Some(End::Expired),
        _ if gone(share.status.owner_id, &observed.owner) => Some(End::TenantGone),
        _ if gone(share.status.grantee_id, &observed.grantee) => Some(End::TenantGone),
        _ => None,
    }
}

/// What has ended stays so, even if somebody sets a later time. An expired share can still be called revoked.
fn how_it_ended(share: &Resource<Share>) -> End {
    if share.spec.revoked {
        End::Revoked
    } else if share.status.common.is("Expired") {
        End::Expired
    } else {
        End::TenantGone
    }
}

/// The grantee has removed it from its tree, or had so before the grantee's tree could not be looked at. It is never
/// forced on the grantee again.
fn is_dropped(share: &Resource<Share>, observed: &Observed) -> bool {
    let known = || share.status.common.condition("Active").is_some_and(|c| c.reason == DROPPED);
    share.status.path.is_some() && observed.injected.map_or_else(known, |injected| !injected)
}

/// Granted as it is wanted now. It is not granted again then: the grantee may have moved it since.
fn is_settled(share: &Resource<Share>) -> bool {
    share.is_ready() && share.status.common.observed_generation == share.metadata.generation
}

/// Takes back what was granted (or may have been, by a controller that died before it could say so), then `finally`.
///
/// While the grantee is not ready its part cannot be undone: the owner's is, from then on every request is refused,
/// and the rest follows when the grantee is ready.
fn take_back(share: &Resource<Share>, observed: &Observed, finally: Step) -> Vec<Step> {
    let Some(owner) = &observed.owner else { return vec![finally] };
    let owner_id = share.status.owner_id.unwrap_or(owner.status.tenant_id);
    let grantee = observed.grantee.as_ref();
    let grantee_id = share.status.grantee_id.or_else(|| grantee.map(|tenant| tenant.status.tenant_id));
    let (Some(grantee_id), true) = (grantee_id, owner_id == owner.status.tenant_id) else {
        // Never granted, or gone together with all that its owner had.
        return vec![finally];
    };
    let (owner, hard) = (TenantId(owner_id), share.spec.hard_revoke);
    let revoke = Step::Revoke { owner, grantee: TenantId(grantee_id), hard };
    match grantee {
        Some(grantee) if grantee.status.tenant_id == grantee_id && may_come_back(grantee) => {
            let message = format!("every use is refused; its name goes when '{}' is ready", grantee.name());
            vec![revoke, Step::Wait { truth: Truth::Unknown, reason: "WaitingForGrantee", message }]
        }
        _ => vec![revoke, finally],
    }
}

/// Not ready now, but not on its way out either: what it holds is not undone by itself.
fn may_come_back(tenant: &Resource<Tenant>) -> bool {
    !tenant.is_ready() && !tenant.metadata.deletion_requested
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
