//! Shares: granted, ended when revoked or expired, forgotten a day later.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use address_map::ids::{ShareId, TenantId};
use address_map::name::LogicalPath;
use address_map::record::Rights;

use super::{Context, Next, ReconcileError, Reconciler, Work};
use crate::resource::{GrantRights, Kind, Resource, Share, ShareReceipt, Tenant, Truth};
use crate::services::{GrantOrder, GrantOutcome, RevokeOrder, ServiceError};

/// How long a share that has ended can still be looked at.
const KEPT_AFTER_END: Duration = Duration::from_secs(24 * 3600);

/// Longest time between two looks at a share that will end.
const LONGEST_APPOINTMENT: Duration = Duration::from_secs(24 * 3600);

/// Names tried at the grantee when the naming rule's is taken: `data`, `data-2`, ... `data-16`.
const NAMES_TRIED: u32 = 16;

/// What is the case about a share.
#[derive(Debug)]
struct Observed {
    owner: Option<Resource<Tenant>>,
    grantee: Option<Resource<Tenant>>,
    now: SystemTime,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    CheckShareable,
    Grant,
    Revoke { owner: TenantId, grantee: TenantId },
    End(End),
    Wait { truth: Truth, reason: &'static str, message: String },
    Forget,
}

/// How a share ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Revoked,
    Expired,
}

fn plan(share: &Resource<Share>, observed: &Observed) -> Vec<Step> {
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

/// Conditions `Active` whose reason may be told to the owner. Any other reason speaks of the grantee.
pub(crate) const OWNER_SIDE_REASONS: [&str; 6] =
    ["Granted", "NotShareable", "OwnerMissing", "WaitingForOwner", "Revoked", "Expired"];

/// When the share has to be looked at again without a reason.
fn appointment(share: &Resource<Share>, now: SystemTime) -> Next {
    let end = match &share.status.receipt {
        Some(receipt) => Some(receipt.at.system() + KEPT_AFTER_END),
        None => share.spec.expires.map(|at| at.system()),
    };
    let wait = |at: SystemTime| at.duration_since(now).unwrap_or_default().min(LONGEST_APPOINTMENT);
    end.map_or(Next::Change, |at| Next::After(wait(at)))
}

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
        Ok(Observed { owner, grantee, now: self.0.now() })
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

    fn take_back(&self, work: &mut Work<'_, Share>, order: &RevokeOrder) -> Result<(), ServiceError> {
        let receipt = self.0.services.map.revoke(order)?;
        work.resource.status.receipt = Some(ShareReceipt {
            at: self.0.now().into(),
            mounts_dropped: receipt.mounts_dropped,
            mounts_unreached: receipt.mounts_unreached,
            last_lease_ends: receipt.last_lease_ends.map(Into::into),
        });
        Ok(())
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

fn state_end(work: &mut Work<'_, Share>, end: End) {
    let now = work.context.now();
    work.resource.status.receipt.get_or_insert_with(|| ShareReceipt {
        at: now.into(),
        mounts_dropped: 0,
        mounts_unreached: Vec::new(),
        last_lease_ends: None,
    });
    let (condition, message) = match end {
        End::Revoked => ("Revoked", "taken back by its owner"),
        End::Expired => ("Expired", "its time is over"),
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
                Step::Revoke { owner, grantee } => {
                    let id = ShareId(work.resource.status.share_id);
                    if let Err(error) = self.take_back(&mut work, &RevokeOrder { id, owner, grantee }) {
                        return work.save_failure(error);
                    }
                }
                Step::End(end) => {
                    state_end(&mut work, end);
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

#[cfg(test)]
mod tests {
    use address_map::clock::Clock;
    use serde_json::{Value, json};

    use super::super::fakes::Fixture;
    use super::*;
    use crate::resource::Time;

    fn spec() -> Value {
        json!({"from": {"tenant": "a", "path": "/data/train"}, "to": {"tenant": "b"}, "rights": "readOnly"})
    }

    fn fixture() -> (Fixture, ShareReconciler) {
        let fixture = Fixture::new();
        fixture.ready_tenant("a");
        fixture.ready_tenant("b");
        let shares = ShareReconciler(fixture.context());
        (fixture, shares)
    }

    fn share(fixture: &Fixture) -> Resource<Share> {
        fixture.read("s")
    }

    fn active(fixture: &Fixture) -> (Truth, String) {
        let status = share(fixture).status;
        let active = status.common.condition("Active").unwrap();
        (active.status, active.reason.clone())
    }

    #[test]
    fn plans() {
        let (fixture, _) = fixture();
        fixture.apply(Kind::Share, "s", spec());
        let tenant = |name: &str| Some(fixture.read::<Tenant>(name));
        let mut share = share(&fixture);
        let now = fixture.clock.now();
        let both = || Observed { owner: tenant("a"), grantee: tenant("b"), now };
        let nobody = Observed { owner: tenant("a"), grantee: None, now };
        assert_eq!(plan(&share, &both()), [Step::CheckShareable, Step::Grant]);
        let steps = plan(&share, &nobody);
        let [Step::CheckShareable, Step::Wait { reason: "GranteeMissing", .. }] = &steps[..] else {
            panic!("{steps:?}")
        };

        let revoke = || Step::Revoke { owner: TenantId(1), grantee: TenantId(2) };
        share.spec.expires = Some(Time::from(now));
        assert_eq!(plan(&share, &both()), [revoke(), Step::End(End::Expired)]);
        share.spec.revoked = true;
        assert_eq!(plan(&share, &both()), [revoke(), Step::End(End::Revoked)]);
        assert_eq!(plan(&share, &nobody), [Step::End(End::Revoked)], "it was never granted");
        share.status.grantee_id = Some(7);
        let granted_then = Step::Revoke { owner: TenantId(1), grantee: TenantId(7) };
        assert_eq!(plan(&share, &nobody), [granted_then, Step::End(End::Revoked)]);
        share.status.grantee_id = None;
        share.metadata.deletion_requested = true;
        assert_eq!(plan(&share, &both()), [revoke(), Step::Forget]);
    }

    #[test]
    fn a_share_is_granted_by_the_rule_of_the_grantee() {
        let (fixture, shares) = fixture();
        fixture.apply(Kind::Share, "s", spec());
        assert_eq!(shares.reconcile("s").unwrap(), Next::Change);
        let share = share(&fixture);
        assert!(share.is_ready());
        assert_eq!(share.status.path.as_deref(), Some("/shares/a/train"));
        assert_eq!((share.status.owner_id, share.status.grantee_id), (Some(1), Some(2)));
        shares.reconcile("s").unwrap();
        assert_eq!(fixture.calls().len(), 1, "granted once");
    }

    #[test]
    fn a_taken_name_gets_a_number_unless_it_was_asked_for() {
        let (fixture, shares) = fixture();
        fixture.map.taken.lock().push("/shares/a/train".to_owned());
        fixture.apply(Kind::Share, "s", spec());
        shares.reconcile("s").unwrap();
        assert_eq!(share(&fixture).status.path.as_deref(), Some("/shares/a/train-2"));

        let mut wanted = spec();
        wanted["to"]["path"] = json!("/shares/a/train");
        fixture.apply(Kind::Share, "t", wanted);
        shares.reconcile("t").unwrap();
        let reason = fixture.read::<Share>("t").status.common.condition("Active").unwrap().reason.clone();
        assert_eq!(reason, "NameTaken");
    }

    #[test]
    fn revoking_leaves_a_receipt_and_later_nothing() {
        let (fixture, shares) = fixture();
        fixture.apply(Kind::Share, "s", spec());
        shares.reconcile("s").unwrap();
        let mut revoked = spec();
        revoked["revoked"] = json!(true);
        fixture.apply(Kind::Share, "s", revoked);
        assert_eq!(shares.reconcile("s").unwrap(), Next::After(KEPT_AFTER_END));
        let share = share(&fixture);
        assert!(share.status.common.is("Revoked") && !share.is_ready());
        assert_eq!(share.status.receipt.unwrap().mounts_dropped, 2);
        fixture.clock.advance(KEPT_AFTER_END);
        shares.reconcile("s").unwrap();
        assert!(fixture.gone(Kind::Share, "s"));
    }

    #[test]
    fn a_share_ends_when_its_time_is_over_and_stays_so() {
        let (fixture, shares) = fixture();
        let hour = Duration::from_secs(3600);
        let mut expiring = spec();
        expiring["expires"] = json!(Time::from(fixture.clock.now() + hour));
        fixture.apply(Kind::Share, "s", expiring.clone());
        assert_eq!(shares.reconcile("s").unwrap(), Next::After(hour));
        fixture.clock.advance(hour);
        shares.reconcile("s").unwrap();
        assert!(share(&fixture).status.common.is("Expired"));
        assert_eq!(fixture.calls().len(), 2, "granted and revoked");
        expiring["expires"] = json!(Time::from(fixture.clock.now() + hour));
        fixture.apply(Kind::Share, "s", expiring);
        shares.reconcile("s").unwrap();
        assert_eq!(active(&fixture), (Truth::False, "Expired".to_owned()));
    }

    #[test]
    fn the_owner_s_mistake_is_told_before_the_grantee_is_looked_at() {
        let (fixture, shares) = fixture();
        *fixture.map.not_shareable.lock() = Some("there is no /data/train".to_owned());
        let mut unknown = spec();
        unknown["to"]["tenant"] = json!("nobody");
        for wanted in [spec(), unknown] {
            fixture.apply(Kind::Share, "s", wanted);
            assert!(shares.reconcile("s").is_err());
            assert_eq!(active(&fixture), (Truth::False, "NotShareable".to_owned()));
            fixture.forget(Kind::Share, "s");
        }
        assert!(fixture.calls().is_empty());
    }
}
