//! Acting as somebody else, for one call.

use rustix::fs::{Gid, Uid};
use rustix::process::getgroups;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum User {
    /// The superuser.
    Root,
    /// User and group 1000, also in group 2000.
    Anna,
    /// User and group 3000.
    Bert,
}

impl User {
    fn ids(self) -> (u32, &'static [u32]) {
        match self {
            User::Root => (0, &[]),
            User::Anna => (1000, &[1000, 2000]),
            User::Bert => (3000, &[3000]),
        }
    }
}

/// The thread acts as somebody else until this is dropped.
pub(super) struct Acting {
    groups: Option<Vec<Gid>>,
}

impl Acting {
    /// From now on this thread acts as `user`.
    pub(super) fn begin(user: User) -> Self {
        if user == User::Root {
            return Self { groups: None };
        }
        let groups = getgroups().expect("groups are known");
        let (id, more) = user.ids();
        let more: Vec<Gid> = more.iter().map(|&group| Gid::from_raw(group)).collect();
        set_thread_groups(&more).expect("root may set groups");
        set_thread_res_gid(None, Gid::from_raw(id), None).expect("root may be any group");
        set_thread_res_uid(None, Uid::from_raw(id), None).expect("root may be anybody");
        Self { groups: Some(groups) }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if let Some(groups) = self.groups.take() {
            set_thread_res_uid(None, Uid::ROOT, None).expect("back to root");
            set_thread_res_gid(None, Gid::ROOT, None).expect("back to root");
            set_thread_groups(&groups).expect("root may set groups");
        }
    }
}
