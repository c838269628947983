//! Promise: names are bytes, and links, renames and special files follow POSIX.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, fstat, linkat, makedev, mkdirat, mknodat, openat,
    renameat_with,
};
use rustix::io::Errno;
use tests::ok;

use crate::help::{assert_errno, assert_unknown, everywhere, names, sh};

#[test]
fn a_name_has_up_to_255_bytes_of_any_kind() {
    everywhere(|dir| {
        let long = "n".repeat(255);
        fs::write(dir.join(&long), "long").unwrap();
        assert_eq!(names(dir), [long.as_str()]);
        fs::remove_file(dir.join(&long)).unwrap();
        assert_errno(fs::write(dir.join("n".repeat(256)), ""), Errno::NAMETOOLONG);
        assert_errno(fs::metadata(dir.join("n".repeat(256))), Errno::NAMETOOLONG);

        let every_byte: Vec<u8> = (1..=255).filter(|&b| b != b'/').collect();
        let odd = [every_byte.as_slice(), b"\xff\xfe not text", b" ", b"...", b"-rf", b"a\nb"];
        for name in odd {
            fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
        }
        let mut listed: Vec<OsString> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        let mut expected: Vec<OsString> = odd.map(|name| OsStr::from_bytes(name).to_owned()).into();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected);
        for name in odd {
            assert_eq!(fs::read(dir.join(OsStr::from_bytes(name))).unwrap(), name);
            fs::remove_file(dir.join(OsStr::from_bytes(name))).unwrap();
        }
        // Names that differ in nothing but case or composition are different names.
        for name in ["case", "CASE", "\u{e9}", "e\u{301}"] {
            fs::write(dir.join(name), name).unwrap();
        }
        assert_eq!(names(dir).len(), 4);
    });
}

#[test]
fn paths_may_be_deeper_than_a_path_can_say() {
    everywhere(|dir| {
        let name = "d".repeat(100);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut here = openat(CWD, dir, flags, Mode::empty()).unwrap();
        for _ in 0..60 {
            mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
            here = openat(&here, &name, flags, Mode::empty()).unwrap();
        }
        let file =
            openat(&here, "leaf", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();
        assert_eq!(rustix::io::write(&file, b"deep"), Ok(4));
        drop((here, file));
        assert_eq!(sh(dir, "find . | wc -l").trim(), "62");
        let deepest = (0..20).fold(dir.to_owned(), |path, _| path.join(&name));
        assert!(deepest.is_dir());
        sh(dir, "rm -r *");
        assert_eq!(names(dir), [""; 0]);
    });
}

#[test]
fn hard_links_are_one_file() {
    everywhere(|dir| {
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("one"), "text").unwrap();
        fs::hard_link(dir.join("one"), dir.join("two")).unwrap();
        fs::hard_link(dir.join("one"), dir.join("sub/three")).unwrap();
        let look = |path: &str| fs::symlink_metadata(dir.join(path)).unwrap();
        assert_eq!((look("one").nlink(), look("two").nlink()), (3, 3));
        assert_eq!((look("one").ino(), look("one").ino()), (look("two").ino(), look("sub/three").ino()));
        fs::write(dir.join("two"), "changed").unwrap();
        assert_eq!(fs::read_to_string(dir.join("sub/three")).unwrap(), "changed");
        // Renaming one name over another of the same file does nothing.
        fs::rename(dir.join("one"), dir.join("two")).unwrap();
        assert_eq!(names(dir), ["one", "sub", "two"]);
        fs::remove_file(dir.join("one")).unwrap();
        fs::remove_file(dir.join("two")).unwrap();
        assert_eq!((look("sub/three").nlink(), look("sub/three").len()), (1, 7));
        assert_errno(fs::hard_link(dir.join("sub"), dir.join("dirlink")), Errno::PERM);
        assert_errno(fs::hard_link(dir.join("sub/three"), dir.join("sub")), Errno::EXIST);
    });
}

#[test]
fn symbolic_links_keep_their_bytes() {
    everywhere(|dir| {
        fs::write(dir.join("file"), "text").unwrap();
        let long = "t".repeat(4095);
        for target in ["file", "/absolute/nowhere", "../up", "\u{fc}", &long] {
            symlink(target, dir.join("link")).unwrap();
            assert_eq!(fs::read_link(dir.join("link")).unwrap(), Path::new(target));
            assert_eq!(fs::symlink_metadata(dir.join("link")).unwrap().len(), target.len() as u64);
            fs::remove_file(dir.join("link")).unwrap();
        }
        symlink("file", dir.join("link")).unwrap();
        assert_eq!(fs::read_to_string(dir.join("link")).unwrap(), "text");
        linkat(CWD, dir.join("link"), CWD, dir.join("second"), AtFlags::empty()).unwrap();
        assert_eq!(fs::symlink_metadata(dir.join("second")).unwrap().nlink(), 2);
        symlink("loop", dir.join("loop")).unwrap();
        assert_errno(fs::read(dir.join("loop")), Errno::LOOP);
    });
}

#[test]
fn pipes_sockets_and_device_nodes_are_kept() {
    everywhere(|dir| {
        mknodat(CWD, dir.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(fs::metadata(dir.join("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(sh(dir, "echo through > pipe & cat pipe; wait"), "through\n");
        // A path of a socket is short: it is bound from within the directory.
        ok(Command::new("python3").current_dir(dir).args([
            "-c",
            "import socket\n\
             s = socket.socket(socket.AF_UNIX); s.bind('sock'); s.listen()\n\
             c = socket.socket(socket.AF_UNIX); c.connect('sock')\n\
             a, _ = s.accept(); c.send(b'hi'); assert a.recv(2) == b'hi'\n",
        ]));
        assert!(fs::metadata(dir.join("sock")).unwrap().file_type().is_socket());
        mknodat(CWD, dir.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3))
            .unwrap();
        let null = fs::metadata(dir.join("null")).unwrap();
        assert!(null.file_type().is_char_device() && null.rdev() == makedev(1, 3));
        mknodat(CWD, dir.join("plain"), FileType::RegularFile, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(fs::read(dir.join("plain")).unwrap(), b"");
        for name in names(dir) {
            fs::remove_file(dir.join(name)).unwrap();
        }
    });
}

#[test]
fn what_is_open_is_known_when_its_name_is_gone() {
    everywhere(|dir| {
        // `cat` asks what its output is.
        assert_eq!(
            sh(dir, "mkfifo pipe; exec 3<>pipe; rm pipe; echo through | cat >&3; head -n 1 <&3"),
            "through\n"
        );
        let names = ["dir", "link", "sock"];
        sh(dir, "mkdir dir; ln -s nowhere link");
        mknodat(CWD, dir.join("sock"), FileType::Socket, Mode::from_raw_mode(0o600), 0).unwrap();
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let open = names.map(|name| rustix::fs::open(dir.join(name), flags, Mode::empty()).unwrap());
        let before = open.each_ref().map(|file| fstat(file).unwrap());
        sh(dir, "rmdir dir; rm link; touch sock2; mv sock2 sock; rm sock");
        for ((name, file), before) in names.iter().zip(&open).zip(&before) {
            let after = fstat(file).unwrap();
            assert_eq!(
                (after.st_ino, after.st_mode, after.st_nlink),
                (before.st_ino, before.st_mode, 0),
                "{name}"
            );
        }
    });
}

#[test]
fn a_server_listens_on_a_socket_in_the_tree() {
    let world = crate::help::world();
    let socket = world.mounted("a").join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let _client = UnixStream::connect(&socket).unwrap();
    listener.accept().unwrap();
}

#[test]
fn renames_replace_refuse_or_exchange() {
    everywhere(|dir| {
        let at = |name: &str| dir.join(name);
        fs::write(at("a"), "A").unwrap();
        fs::write(at("b"), "B").unwrap();
        fs::create_dir_all(at("full/sub")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        let with = |from: &str, to: &str, flags| renameat_with(CWD, at(from), CWD, at(to), flags);

        assert_eq!(with("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
        with("a", "b", RenameFlags::EXCHANGE).unwrap();
        assert_eq!(fs::read_to_string(at("a")).unwrap(), "B");
        with("a", "full", RenameFlags::EXCHANGE).unwrap();
        assert!(at("a/sub").is_dir() && at("full").is_file());
        with("a", "full", RenameFlags::EXCHANGE).unwrap();
        assert_eq!(with("a", "missing", RenameFlags::EXCHANGE), Err(Errno::NOENT));
        with("a", "c", RenameFlags::NOREPLACE).unwrap();
        assert_unknown(&at("a"));

        fs::rename(at("b"), at("c")).unwrap();
        assert_eq!(fs::read_to_string(at("c")).unwrap(), "A");
        assert_errno(fs::rename(at("c"), at("empty")), Errno::ISDIR);
        assert_errno(fs::rename(at("empty"), at("c")), Errno::NOTDIR);
        assert_errno(fs::rename(at("empty"), at("full")), Errno::NOTEMPTY);
        assert_errno(fs::rename(at("full"), at("full/sub/below")), Errno::INVAL);
        assert_errno(fs::rename(at("missing"), at("x")), Errno::NOENT);
        fs::rename(at("full"), at("empty")).unwrap();
        assert!(at("empty/sub").is_dir());
        let links = |name: &str| fs::metadata(at(name)).unwrap().nlink();
        assert_eq!(links("empty"), 3);
        fs::create_dir(at("other")).unwrap();
        fs::rename(at("empty/sub"), at("other/sub")).unwrap();
        assert_eq!((links("empty"), links("other")), (2, 3));
    });
}

#[test]
fn directories_are_made_and_removed_as_posix_says() {
    everywhere(|dir| {
        fs::create_dir(dir.join("d")).unwrap();
        assert_errno(fs::create_dir(dir.join("d")), Errno::EXIST);
        assert_errno(fs::create_dir(dir.join("missing/d")), Errno::NOENT);
        fs::write(dir.join("d/f"), "").unwrap();
        assert_errno(fs::create_dir(dir.join("d/f/g")), Errno::NOTDIR);
        assert_errno(fs::remove_dir(dir.join("d")), Errno::NOTEMPTY);
        assert_errno(fs::remove_dir(dir.join("d/f")), Errno::NOTDIR);
        assert_errno(fs::remove_file(dir.join("d")), Errno::ISDIR);
        assert_errno(fs::remove_dir(dir.join("d/.")), Errno::INVAL);
        assert_errno(fs::remove_dir(dir.join("d/..")), Errno::NOTEMPTY);
        let open = fs::File::open(dir.join("d")).unwrap();
        fs::remove_file(dir.join("d/f")).unwrap();
        fs::remove_dir(dir.join("d")).unwrap();
        let late = openat(&open, "late", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600));
        assert_eq!(late.map(drop), Err(Errno::NOENT));
    });
}
