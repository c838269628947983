//! Who calls, and what that caller may see and do.
//!
//! The uid of the peer's process is all that counts; the kernel tells it. Uid 0 is the operator and may do all.
//! Others act for the tenants whose `owners` name them. What they may not see does not exist for them: the answer is
//! the same as for a name that nobody has. The rules are pure functions; nothing here reads or writes.

use serde_json::Value;

use crate::reconcile::share::OWNER_SIDE_REASONS;
use crate::resource::{Kind, Mount, Object, Resource, ResourceType, Share, Tenant, Truth, to_value};

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The uid of the process at the other end.
    pub uid: u32,
}

impl Caller {
    /// Whether it may do all.
    pub fn is_operator(self) -> bool {
        self.uid == 0
    }

    /// Whether it may act for a tenant.
    pub fn owns(self, tenant: &Resource<Tenant>) -> bool {
        self.is_operator() || tenant.spec.owners.contains(&self.uid)
    }

    /// Whether a resource exists for this caller. `owns` answers whether it may act for the tenant of a name.
    pub fn sees(self, object: &Object, owns: impl Fn(&str) -> bool) -> bool {
        if self.is_operator() {
            return true;
        }
        match object.kind {
            Kind::Tenant => object.typed::<Tenant>().is_ok_and(|tenant| self.owns(&tenant)),
            Kind::Mount => object.typed::<Mount>().is_ok_and(|mount| owns(&mount.spec.tenant)),
            Kind::Share => object.typed::<Share>().is_ok_and(|share| owns(&share.spec.from.tenant)),
            Kind::Pool => false,
        }
    }

    /// A resource as this caller may see it.
    pub fn view(self, mut object: Object) -> Object {
        if !self.is_operator() && object.kind == Kind::Share {
            object.status = match object.typed::<Share>() {
                Ok(share) => share_for_owner(share),
                Err(_) => Value::Null,
            };
        }
        object
    }

    /// What this caller may not wish for in a mount, as a sentence; `None`: nothing.
    pub fn refuses_mount(self, spec: &<Mount as ResourceType>::Spec) -> Option<&'static str> {
        let special = spec.suid == Some(true) || spec.dev == Some(true);
        (special && !self.is_operator()).then_some("set-uid programs and devices are for the operator only")
    }

    /// What is wrong with a new share's name for this caller, as a sentence; `None`: nothing.
    ///
    /// Names are shared by all tenants: within its own prefix nobody can find out about another's.
    pub fn refuses_share_name(self, name: &str, owner: &str) -> Option<String> {
        let own = name.strip_prefix(owner).is_some_and(|rest| rest.starts_with('-'));
        (!own && !self.is_operator())
            .then(|| format!("the name of a share of '{owner}' begins with '{owner}-'"))
    }
}

/// The status of a share without what speaks of the grantee: an owner must not learn whether there is one.
fn share_for_owner(share: Resource<Share>) -> Value {
    let mut status = share.status;
    (status.owner_id, status.grantee_id) = (None, None);
    if let Some(active) = status.common.conditions.iter_mut().find(|c| c.kind == "Active")
        && !OWNER_SIDE_REASONS.contains(&active.reason.as_str())
    {
        active.status = Truth::False;
        active.reason = "NotAccepted".to_owned();
        active.message = "the grantee cannot take this share".to_owned();
    }
    to_value(&status)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::fakes::Fixture;

    const OPERATOR: Caller = Caller { uid: 0 };
    const ALICE: Caller = Caller { uid: 1000 };

    fn fixture() -> Fixture {
        let fixture = Fixture::new();
        fixture.apply(Kind::Tenant, "a", json!({"owners": [1000]}));
        fixture.apply(Kind::Tenant, "b", json!({"owners": [2000]}));
        fixture.apply(Kind::Pool, "p", json!({"posix": {"path": "/p"}}));
        for (name, tenant) in [("a", "a"), ("b", "b")] {
            fixture.apply(Kind::Mount, name, json!({"tenant": tenant, "dir": format!("/{name}")}));
        }
        for (name, from, to) in [("a-b", "a", "b"), ("b-a", "b", "a")] {
            let spec =
                json!({"from": {"tenant": from, "path": "/d"}, "to": {"tenant": to}, "rights": "readOnly"});
            fixture.apply(Kind::Share, name, spec);
        }
        fixture
    }

    #[test]
    fn an_owner_sees_its_own_and_nothing_else() {
        let fixture = fixture();
        let seen = |caller: Caller| {
            let owns = |name: &str| {
                fixture.store.read::<Tenant>(name).unwrap().is_some_and(|tenant| caller.owns(&tenant))
            };
            let (_, all) = fixture.store.list(Kind::ALL).unwrap();
            let seen = all.into_iter().filter(|object| caller.sees(object, owns));
            seen.map(|o| format!("{} {}", o.kind, o.name())).collect::<Vec<_>>()
        };
        assert_eq!(seen(OPERATOR).len(), 7);
        assert_eq!(seen(ALICE), ["tenant a", "share a-b", "mount a"]);
        assert!(seen(Caller { uid: 3000 }).is_empty());
    }

    #[test]
    fn an_owner_cannot_tell_an_unwilling_grantee_from_none() {
        let fixture = fixture();
        let with = |truth, reason: &str| {
            let mut share = fixture.read::<Share>("a-b");
            share.status.grantee_id = Some(2);
            share.status.common.state(fixture.clock_now(), "Active", truth, reason, "b said so");
            fixture.store.set_status(&share).unwrap();
            fixture.object(Kind::Share, "a-b")
        };
        let mut views = Vec::new();
        for (truth, reason) in [
            (Truth::False, "GranteeMissing"),
            (Truth::Unknown, "WaitingForGrantee"),
            (Truth::False, "NameTaken"),
            (Truth::Unknown, "Unavailable"),
        ] {
            views.push(ALICE.view(with(truth, reason)).status);
        }
        assert!(views[0].to_string().contains("the grantee cannot take this share"), "{}", views[0]);
        assert!(!views[0].to_string().contains("b said so"));
        assert!(!views[0].to_string().contains("granteeId"));
        for view in &views {
            assert_eq!(view["conditions"][0]["reason"], "NotAccepted");
        }
        assert!(OPERATOR.view(with(Truth::False, "NameTaken")).status.to_string().contains("b said so"));
        assert_eq!(ALICE.view(with(Truth::True, "Granted")).readiness().unwrap().message, "b said so");
    }

    #[test]
    fn only_the_operator_mounts_with_suid_and_devices() {
        let mut spec = fixture().read::<Mount>("a").spec;
        assert_eq!(ALICE.refuses_mount(&spec), None);
        spec.suid = Some(false);
        assert_eq!(ALICE.refuses_mount(&spec), None);
        spec.dev = Some(true);
        assert!(ALICE.refuses_mount(&spec).is_some());
        assert_eq!(OPERATOR.refuses_mount(&spec), None);
    }

    #[test]
    fn share_names_stay_in_the_owner_s_prefix() {
        assert_eq!(ALICE.refuses_share_name("a-x", "a"), None);
        assert!(ALICE.refuses_share_name("b-x", "a").is_some());
        assert!(ALICE.refuses_share_name("ax", "a").is_some());
        assert_eq!(OPERATOR.refuses_share_name("x", "a"), None);
    }
}
