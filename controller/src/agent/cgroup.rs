//! Bounds the memory of VMDSes: one control group per mount, with the kernel's own limit on it.
//!
//! Groups are made below the controller's own group, where it may: in the unified hierarchy (version 2) if that has the
//! memory controller, else in the memory hierarchy (version 1), else not at all, and the status of tenants says so.
//! A group is named after its mount, so that a successor of this controller finds it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use address_map::ids::MountEpoch;

/// Where the manager of services puts the controller: a group with limited groups below it can have no processes.
const OWN_LEAF: &str = "controller";
/// How long processes of a group may take to be gone before it is left where it is.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// Which files a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn limit_file(self) -> &'static str {
        match self {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        }
    }

    /// The file with a line `oom_kill <processes>`.
    fn kills_file(self) -> &'static str {
        match self {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        }
    }
}

/// The group that those of mounts are made in.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    dir: PathBuf,
    version: Version,
}

impl Parent {
    /// The controller's own group, in the best hierarchy there is.
    pub(super) fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        if let Some(own) = own_group(&mounts, &groups, Version::Two)
            && let Ok(parent) = Self::delegated(&own)
        {
            return Ok(parent);
        }
        let dir = own_group(&mounts, &groups, Version::One).filter(|dir| dir.is_dir());
        let dir = dir.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the memory controller of control groups is not here")
        })?;
        Ok(Self { dir, version: Version::One })
    }

    /// The unified hierarchy, if the memory of groups below `own` may be limited.
    fn delegated(own: &Path) -> io::Result<Self> {
        let is_leaf = own.file_name().is_some_and(|name| name == OWN_LEAF);
        let dir = if is_leaf { own.parent().unwrap_or(own) } else { own };
        let offered = fs::read_to_string(dir.join("cgroup.controllers"))?;
        if !offered.split_whitespace().any(|controller| controller == "memory") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Refused while there are processes in it. Moving them is the manager's: it must find them again.
        fs::write(dir.join("cgroup.subtree_control"), "+memory")?;
        Ok(Self { dir: dir.to_owned(), version: Version::Two })
    }

    /// The group of a mount, made if there is none yet, with its limit in bytes.
    pub(super) fn group(&self, mount: MountEpoch, limit: u64) -> io::Result<Group> {
        let group = Group { dir: self.path_of(mount), version: self.version };
        make_dir(&group.dir)?;
        // What cannot be limited is of no use.
        group.limit(limit).inspect_err(|_| drop(fs::remove_dir(&group.dir)))?;
        Ok(group)
    }

    /// Removes the group of a mount that a predecessor has left.
    pub(super) fn forget(&self, mount: MountEpoch) {
        Group { dir: self.path_of(mount), version: self.version }.remove();
    }

    fn path_of(&self, mount: MountEpoch) -> PathBuf {
        self.dir.join(format!("vmds-{:016x}", mount.0))
    }
}

/// The control group of one mount: of the VMDS that serves it, and of those before and after it.
#[derive(Debug)]
pub(super) struct Group {
    dir: PathBuf,
    version: Version,
}

impl Group {
    /// Sets the limit, bytes. Less than is used makes the kernel reclaim, and then end the VMDS.
    pub(super) fn limit(&self, bytes: u64) -> io::Result<()> {
        let swap = self.dir.join("memory.swap.max");
        if self.version == Version::Two && swap.exists() {
            // Otherwise what is swapped out would be bounded by nothing.
            fs::write(swap, "0")?;
        }
        fs::write(self.dir.join(self.version.limit_file()), bytes.to_string())
    }

    /// Moves a process into it. What the process has used before stays charged to where it was.
    pub(super) fn enter(&self, pid: u32) -> io::Result<()> {
        // A controller that the kernel must not end makes children that it must not end: they would hang at the limit.
        let score = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
        if fs::read_to_string(&score)?.starts_with('-') {
            fs::write(&score, "0")?;
        }
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }

    /// How many processes were ended because of the limit.
    pub(super) fn kills(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.dir.join(self.version.kills_file()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        self.dir.display().to_string()
    }

    /// Removes it, when the last process in it is gone.
    pub(super) fn remove(&self) {
        let deadline = Instant::now() + REMOVE_DEADLINE;
        while let Err(error) = fs::remove_dir(&self.dir) {
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            if Instant::now() >= deadline {
                tracing::warn!(dir = %self.dir.display(), %error, "cannot remove a control group");
                return;
            }
            thread::sleep(REMOVE_PAUSE);
        }
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// The directory of the group of this process, from its `mountinfo` and `cgroup`.
fn own_group(mounts: &str, groups: &str, version: Version) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let wanted = match version {
            Version::One => controllers.split(',').any(|controller| controller == "memory"),
            Version::Two => controllers.is_empty(),
        };
        wanted.then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let (mut place, mut kind) = (place.split(' ').skip(3), kind.split(' '));
        let (root, point) = (place.next()?, place.next()?);
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let wanted = match version {
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::Two => kind == "cgroup2",
        };
        // A part of the hierarchy may be mounted: the part above it does not exist here.
        let below = Path::new(path).strip_prefix(root).ok()?;
        wanted.then(|| Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        36 31 0:33 /part /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_in_both_hierarchies() {
        let groups = "4:cpu,memory:/a/b\n1:cpu:/\n0::/c\n";
        let found = |groups, version| own_group(MOUNTS, groups, version);
        assert_eq!(found(groups, Version::One), Some("/sys/fs/cgroup/memory/a/b".into()));
        assert_eq!(found(groups, Version::Two), Some("/sys/fs/cgroup/unified/c".into()));
        assert_eq!(found("1:cpu:/\n", Version::One), None);
        assert_eq!(own_group("", groups, Version::One), None);
    }

    /// A directory stands in for a hierarchy of version 2: its files are made by the kernel otherwise.
    #[test]
    fn a_delegated_group_of_version_2_gets_limited_groups_below_it() {
        let root = tempfile::tempdir().unwrap();
        let controllers = root.path().join("cgroup.controllers");
        assert!(Parent::delegated(root.path()).is_err());
        fs::write(&controllers, "cpu pids\n").unwrap();
        assert!(Parent::delegated(root.path()).is_err());
        fs::write(&controllers, "cpu memory pids\n").unwrap();
        let parent = Parent::delegated(&root.path().join(OWN_LEAF)).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("cgroup.subtree_control")).unwrap(), "+memory");
        let group = parent.group(MountEpoch(7), 1 << 20).unwrap();
        assert_eq!(
            fs::read_to_string(root.path().join("vmds-0000000000000007/memory.max")).unwrap(),
            "1048576"
        );
        fs::write(group.dir.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        assert_eq!(group.kills().unwrap(), 2);
    }

    #[test]
    fn a_group_is_made_entered_and_removed() {
        let Ok(parent) = Parent::find() else { return eprintln!("no memory controller here") };
        let group = parent.group(MountEpoch(u64::from(std::process::id())), 32 << 20).unwrap();
        let limit = fs::read_to_string(group.dir.join(parent.version.limit_file())).unwrap();
        assert_eq!(limit.trim(), (32 << 20).to_string());
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        group.enter(child.id()).unwrap();
        let inside = fs::read_to_string(group.dir.join("cgroup.procs")).unwrap();
        assert_eq!(inside.trim(), child.id().to_string());
        assert_eq!(group.kills().unwrap(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
        group.remove();
        assert!(!group.dir.exists());
        parent.forget(MountEpoch(u64::from(std::process::id())));
    }
}
