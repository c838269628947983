//! Promise: access control lists are kept, inherited and enforced, and agree with permission bits.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{XattrFlags, getxattr, listxattr, setxattr};
use rustix::io::Errno;
use tests::run;

use crate::help::{everywhere, sh, world};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// The entries of a list as `getfacl` prints them, on one line.
#[track_caller]
fn list(dir: &Path, name: &str) -> String {
    sh(dir, &format!("getfacl -cnE {name}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Whether a shell command succeeds in `dir` for somebody.
fn can(dir: &Path, (uid, gid): (u32, u32), script: &str) -> bool {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).current_dir(dir).uid(uid).gid(gid);
    run(&mut command).status.success()
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn lists_and_permission_bits_follow_each_other() {
    everywhere(|dir| {
        let file = dir.join("file");
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        sh(dir, "setfacl -m u:1234:rw,g:77:r file");
        assert_eq!(list(dir, "file"), "user::rw- user:1234:rw- group::r-- group:77:r-- mask::rw- other::---");
        assert_eq!(mode(&file), 0o660, "the group's bits are the mask");
        sh(dir, "chmod 604 file");
        assert_eq!(list(dir, "file"), "user::rw- user:1234:rw- group::r-- group:77:r-- mask::--- other::r--");
        sh(dir, "chmod g+w,o= file; setfacl -x g:77 file");
        assert_eq!(mode(&file), 0o660, "removing an entry has the mask computed anew");
        // A list that says no more than permission bits do is not kept as one.
        sh(dir, "setfacl -b file");
        assert_eq!(list(dir, "file"), "user::rw- group::r-- other::---");
        assert_eq!(mode(&file), 0o640);
        assert_eq!(listed(&file), Vec::<String>::new());
        sh(dir, "setfacl -m u:1234:rw file");
        assert_eq!(listed(&file), [ACCESS]);
        // Tools carry lists along.
        sh(dir, "cp -a file copy; mkdir sub; mv copy sub/; getfacl -R . > ../facls; setfacl -Rb .");
        assert_eq!(list(dir, "sub/copy"), "user::rw- group::r-- other::---");
        sh(dir, "setfacl --restore=../facls; rm ../facls");
        assert_eq!(list(dir, "sub/copy"), "user::rw- user:1234:rw- group::r-- mask::rw- other::---");
    });
}

fn listed(path: &Path) -> Vec<String> {
    let mut names = vec![0; 4096];
    let count = listxattr(path, &mut names).unwrap();
    let names = names[..count].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

#[test]
fn lists_decide_who_may_do_what() {
    everywhere(|dir| {
        open_to_all(dir);
        fs::write(dir.join("file"), "text").unwrap();
        sh(dir, "chmod 600 file; setfacl -m u:1234:rw,u:1236:-,g:77:r,o:r file");
        let (named, denied, member, other) = ((1234, 1), (1236, 1), (1235, 77), (1237, 1));
        for (who, read, write) in
            [(named, true, true), (denied, false, false), (member, true, false), (other, true, false)]
        {
            assert_eq!(can(dir, who, "cat file"), read, "{who:?} reads");
            assert_eq!(can(dir, who, "echo more >> file"), write, "{who:?} writes");
        }
        // The mask bounds what a named user has; who was let in is thrown out.
        sh(dir, "chmod g=r file");
        assert!(can(dir, named, "cat file") && !can(dir, named, "echo more >> file"));
        sh(dir, "setfacl -x u:1234 file; chmod o= file");
        assert!(!can(dir, named, "cat file"));
        // Directories: passing through, listing, making and removing.
        sh(dir, "mkdir -m 700 sub; echo text > sub/file; chmod 644 sub/file");
        assert!(!can(dir, named, "cat sub/file"));
        sh(dir, "setfacl -m u:1234:x sub");
        assert!(can(dir, named, "cat sub/file") && !can(dir, named, "ls sub"));
        sh(dir, "setfacl -m u:1234:rwx sub");
        assert!(can(dir, named, "ls sub; touch sub/mine; rm sub/file"));
        assert!(!can(dir, other, "ls sub"));
        // Only the owner changes a list, and only within the file system's rules.
        assert!(!can(dir, named, "setfacl -m u:1237:r file"));
        assert!(can(dir, named, "setfacl -m u:1237:r sub/mine") && mode(&dir.join("sub/mine")) & 0o40 != 0);
    });
}

#[test]
fn default_lists_are_inherited_in_place_of_the_umask() {
    everywhere(|dir| {
        sh(dir, "mkdir d plain; setfacl -d -m u::rwx,u:1234:rwx,g::rx,o::r d");
        assert_eq!(mode(&dir.join("d")), 0o755, "a default list says nothing of the directory itself");
        sh(
            dir,
            "umask 077; touch d/file; mkdir d/sub; mkfifo d/pipe; ln -s nowhere d/link; touch plain/file",
        );
        let named = |mask, other| format!("user::rw- user:1234:rwx group::r-x mask::{mask} other::{other}");
        for made in ["d/file", "d/pipe"] {
            assert_eq!(list(dir, made), named("rw-", "r--"), "{made}");
            assert_eq!(mode(&dir.join(made)), 0o664, "{made}");
        }
        let default =
            "default:user::rwx default:user:1234:rwx default:group::r-x default:mask::rwx default:other::r--";
        assert_eq!(
            list(dir, "d/sub"),
            format!("user::rwx user:1234:rwx group::r-x mask::rwx other::r-- {default}")
        );
        assert_eq!(mode(&dir.join("d/sub")), 0o774);
        assert_eq!(mode(&dir.join("plain/file")), 0o600, "without a list the umask holds");
        // What the maker asks for bounds what is inherited.
        sh(
            dir,
            "mkdir -p d/sub/deep; python3 -c \"import os; os.close(os.open('d/sub/deep/f', os.O_CREAT, 0o400))\"",
        );
        assert_eq!(list(dir, "d/sub/deep/f"), "user::r-- user:1234:rwx group::r-x mask::--- other::---");
        // A default list without names leaves permission bits and no list.
        sh(dir, "mkdir bits; setfacl -d -m u::rw,g::r,o::- bits; umask 0; touch bits/file; mkdir bits/sub");
        assert_eq!(mode(&dir.join("bits/file")), 0o640);
        assert_eq!(listed(&dir.join("bits/file")), Vec::<String>::new());
        assert_eq!(listed(&dir.join("bits/sub")), [DEFAULT]);
        sh(dir, "setfacl -k d; touch d/later");
        assert_eq!(listed(&dir.join("d/later")), Vec::<String>::new());
        // A set-group-id directory hands on its bit beside its list.
        sh(dir, "mkdir g; chown 0:777 g; chmod 2775 g; setfacl -d -m u:1234:rx g; mkdir g/sub");
        assert_eq!(mode(&dir.join("g/sub")) & 0o2000, 0o2000);
    });
}

/// An encoded list.
fn encoded(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[test]
fn lists_that_make_no_sense_are_refused() {
    everywhere(|dir| {
        let file = dir.join("file");
        fs::write(&file, "").unwrap();
        let set = |path: &Path, name, bytes: &[u8]| setxattr(path, name, bytes, XattrFlags::empty());
        let minimal = [(1, 6, u32::MAX), (4, 4, u32::MAX), (0x20, 4, u32::MAX)];
        let good = encoded(&minimal);
        assert_eq!(set(&file, ACCESS, &good), Ok(()));
        let mut other_version = good.clone();
        other_version[0] = 3;
        for bad in [
            good[..good.len() - 1].to_vec(),
            encoded(&minimal[..2]),
            encoded(&[minimal[1], minimal[0], minimal[2]]),
            encoded(&[minimal[0], (2, 6, 1000), minimal[1], minimal[2]]),
            encoded(&[(1, 8, u32::MAX), minimal[1], minimal[2]]),
            encoded(&[minimal[0], minimal[0], minimal[1], minimal[2]]),
        ] {
            assert_eq!(set(&file, ACCESS, &bad), Err(Errno::INVAL), "{bad:?}");
        }
        assert_eq!(set(&file, ACCESS, &other_version), Err(Errno::OPNOTSUPP));
        assert_eq!(set(&file, DEFAULT, &good), Err(Errno::ACCESS), "only directories hand on");
        assert_eq!(getxattr(&file, ACCESS, &mut [0; 64][..]), Err(Errno::NODATA));
        assert_eq!(mode(&file), 0o644);
    });
}

#[test]
fn a_list_set_by_an_owner_outside_the_group_takes_the_set_group_id_bit_away() {
    everywhere(|dir| {
        open_to_all(dir);
        for (owner, kept) in [(1234, 0), (777, 0o2000)] {
            sh(dir, "rm -f file; touch file; chown 1234:777 file; chmod 2755 file");
            assert!(can(dir, (1234, owner), "setfacl -m u:1:r file"));
            assert_eq!(mode(&dir.join("file")) & 0o2000, kept, "with group {owner}");
        }
    });
}

#[test]
fn lists_survive_kills() {
    let mut world = world();
    let dir = world.mounted("alice");
    sh(&dir, "touch file; setfacl -m u:1234:r file; mkdir d; setfacl -d -m u:1234:r d");
    let before = (list(&dir, "file"), list(&dir, "d"));
    world.vmds().kill();
    sh(&dir, "touch d/one");
    world.crash_controller();
    assert_eq!((list(&dir, "file"), list(&dir, "d")), before);
    assert_eq!(listed(&dir.join("d/one")), [ACCESS]);
    world.ctl(&["check"]);
}

#[test]
fn lists_hold_and_change_at_once_through_a_share() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    sh(&alice, "mkdir rw ro; echo text > rw/file; echo text > ro/file; chmod 600 rw/file ro/file");
    world.ctl(&["share", "grant", "alice:/rw", "bob:/rw", "--rw"]);
    world.ctl(&["share", "grant", "alice:/ro", "bob:/ro", "--ro"]);
    let reads = |dir: &Path, path: &str| can(dir, (1234, 1), &format!("cat {path}"));
    assert!(!reads(&bob, "rw/file") && !reads(&alice, "rw/file"));
    for (changer, other) in [(&alice, &bob), (&bob, &alice)] {
        for _ in 0..20 {
            sh(changer, "setfacl -m u:1234:r rw/file");
            assert!(reads(other, "rw/file") && reads(changer, "rw/file"));
            assert_eq!(list(other, "rw/file"), list(changer, "rw/file"));
            sh(changer, "setfacl -x u:1234 rw/file");
            assert!(!reads(other, "rw/file") && !reads(changer, "rw/file"));
        }
    }
    // Nor does a VMDS that is killed leave an old list behind in its kernel.
    for (changer, other) in [(&alice, &bob), (&bob, &alice)] {
        sh(changer, "setfacl -m u:1234:r rw/file");
        assert!(reads(&alice, "rw/file") && reads(&bob, "rw/file"));
        world.vmdses().into_iter().for_each(tests::Process::kill);
        sh(changer, "setfacl -x u:1234 rw/file");
        assert!(!reads(other, "rw/file") && !reads(changer, "rw/file"));
    }
    // What the grantee makes inherits the owner's lists.
    sh(&alice, "setfacl -d -m u:1234:r rw");
    sh(&bob, "umask 077; touch rw/new; mkdir rw/sub; touch rw/sub/new");
    for path in ["rw/new", "rw/sub/new"] {
        assert_eq!(list(&alice, path), "user::rw- user:1234:r-- group::r-x mask::r-- other::r--", "{path}");
        assert_eq!(list(&bob, path), list(&alice, path));
    }
    // A read-only share shows lists and refuses to change them.
    sh(&alice, "setfacl -m u:1234:r ro/file");
    assert!(reads(&bob, "ro/file"));
    let any = encoded(&[(1, 6, u32::MAX), (4, 4, u32::MAX), (0x20, 4, u32::MAX)]);
    for path in ["ro", "ro/file"] {
        assert_eq!(setxattr(bob.join(path), ACCESS, &any, XattrFlags::empty()), Err(Errno::ROFS));
        assert_eq!(rustix::fs::removexattr(bob.join(path), ACCESS), Err(Errno::ROFS));
    }
    world.ctl(&["check"]);
}
