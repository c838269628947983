//! Tests of shares: plans, and the reconciler on services that only remember.

use std::time::Duration;

use address_map::clock::Clock;
use serde_json::{Value, json};

use super::plan::KEPT_AFTER_END;
use super::*;
use crate::reconcile::fakes::Fixture;
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
    let both = || Observed { owner: tenant("a"), grantee: tenant("b"), injected: None, now };
    let nobody = Observed { owner: tenant("a"), grantee: None, injected: None, now };
    assert_eq!(plan(&share, &both()), [Step::CheckShareable, Step::Grant]);
    let steps = plan(&share, &nobody);
    let [Step::CheckShareable, Step::Wait { reason: "GranteeMissing", .. }] = &steps[..] else {
        panic!("{steps:?}")
    };

    let revoke = || Step::Revoke { owner: TenantId(1), grantee: TenantId(2), hard: false };
    share.spec.expires = Some(Time::from(now));
    assert_eq!(plan(&share, &both()), [revoke(), Step::End(End::Expired)]);
    share.spec.revoked = true;
    assert_eq!(plan(&share, &both()), [revoke(), Step::End(End::Revoked)]);
    assert_eq!(plan(&share, &nobody), [Step::End(End::Revoked)], "it was never granted");
    share.metadata.deletion_requested = true;
    assert_eq!(plan(&share, &both()), [revoke(), Step::Forget]);
    assert_eq!(plan(&share, &nobody), [Step::Forget]);
}

#[test]
fn plans_for_tenants_that_go() {
    let (fixture, shares) = fixture();
    fixture.apply(Kind::Share, "s", spec());
    shares.reconcile("s").unwrap();
    let (share, now) = (share(&fixture), fixture.clock.now());
    let tenant = |name: &str| Some(fixture.read::<Tenant>(name));
    let revoke = || Step::Revoke { owner: TenantId(1), grantee: TenantId(2), hard: false };
    let both = Observed { owner: tenant("a"), grantee: tenant("b"), injected: None, now };
    assert_eq!(plan(&share, &both), [], "it is as it should be");
    let no_grantee = Observed { owner: tenant("a"), grantee: None, injected: None, now };
    assert_eq!(plan(&share, &no_grantee), [revoke(), Step::End(End::TenantGone)]);
    let another = Observed { owner: tenant("a"), grantee: tenant("a"), injected: None, now };
    assert_eq!(
        plan(&share, &another),
        [revoke(), Step::End(End::TenantGone)],
        "made anew under the old name"
    );
    let no_owner = Observed { owner: None, grantee: tenant("b"), injected: None, now };
    assert_eq!(plan(&share, &no_owner), [Step::End(End::TenantGone)], "its grant went with it");

    let mut revoked = share.clone();
    revoked.spec.revoked = true;
    let mut not_ready = Observed { owner: tenant("a"), grantee: tenant("b"), injected: None, now };
    not_ready.grantee.as_mut().unwrap().status.common.conditions.clear();
    let steps = plan(&revoked, &not_ready);
    assert!(
        matches!(&steps[..], [Step::Revoke { .. }, Step::Wait { .. }]),
        "refused now, complete later: {steps:?}"
    );
    not_ready.grantee.as_mut().unwrap().metadata.deletion_requested = true;
    assert_eq!(
        plan(&revoked, &not_ready),
        [revoke(), Step::End(End::Revoked)],
        "it takes all it has with it"
    );
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
fn what_was_revoked_softly_can_be_revoked_hard_once() {
    let (fixture, shares) = fixture();
    fixture.apply(Kind::Share, "s", spec());
    shares.reconcile("s").unwrap();
    let mut revoked = spec();
    revoked["revoked"] = json!(true);
    fixture.apply(Kind::Share, "s", revoked.clone());
    shares.reconcile("s").unwrap();
    let soft = share(&fixture).status.receipt.unwrap();
    assert_eq!((soft.hard, soft.processes_replaced), (false, 0));
    fixture.calls();
    revoked["hardRevoke"] = json!(true);
    fixture.apply(Kind::Share, "s", revoked);
    for _ in 0..2 {
        shares.reconcile("s").unwrap();
        let hard = share(&fixture).status.receipt.unwrap();
        assert_eq!((hard.at, hard.mounts_dropped), (soft.at, soft.mounts_dropped));
        assert_eq!((hard.hard, hard.processes_replaced), (true, 1));
    }
    assert_eq!(fixture.calls(), ["revoke 1 hard"]);
}

#[test]
fn a_share_that_was_dropped_is_not_granted_again() {
    let (fixture, shares) = fixture();
    fixture.apply(Kind::Share, "s", spec());
    shares.reconcile("s").unwrap();
    let path = LogicalPath::parse(b"/shares/a/train").unwrap();
    fixture.services().map.drop_share(TenantId(2), &path).unwrap();
    fixture.calls();
    shares.reconcile("s").unwrap();
    assert_eq!(active(&fixture), (Truth::False, "Dropped".to_owned()));
    let mut longer = spec();
    longer["expires"] = json!(Time::from(fixture.clock.now() + Duration::from_secs(60)));
    fixture.apply(Kind::Share, "s", longer);
    shares.reconcile("s").unwrap();
    assert_eq!(active(&fixture), (Truth::False, "Dropped".to_owned()));
    assert!(fixture.calls().is_empty());
    let mut revoked = spec();
    revoked["revoked"] = json!(true);
    fixture.apply(Kind::Share, "s", revoked);
    shares.reconcile("s").unwrap();
    assert_eq!(active(&fixture), (Truth::False, "Revoked".to_owned()));
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
