//! Promise: a staging directory that cannot do what files need that are being written is refused before it has any.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tests::{World, detach_all_under, run};

use crate::help::binaries;

/// Size of the disks of these tests, bytes.
const DISK: u64 = 16 << 20;

/// A file system of its own, in memory or in a file; it is unmounted when this is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// One that knows only bytes and names.
    fn plain() -> Self {
        Self::mount(&["-t", "ramfs", "ramfs"])
    }

    /// One made by `mkfs.ext4` with these options.
    fn ext4(options: &[&str]) -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(DISK).unwrap();
        let image = image.path().to_str().unwrap();
        let mut make = Command::new("mkfs.ext4");
        let made = run(make.args(["-q", "-F"]).args(options).arg(image));
        assert!(made.status.success(), "{made}");
        // The file goes with the file system on it.
        Self::mount(&["-o", "loop", image])
    }

    fn mount(what: &[&str]) -> Self {
        let disk = Self(tempfile::Builder::new().prefix("vmds-disk-").tempdir().unwrap());
        let mounted = run(Command::new("mount").args(what).arg(disk.path()));
        assert!(mounted.status.success(), "{mounted}");
        fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o700)).unwrap();
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        detach_all_under(self.path());
    }
}

/// The arguments that add one more pool to the bucket of a world, with this staging directory.
fn add(world: &World, name: &str, staging: &Path) -> Vec<String> {
    let (endpoint, credentials) = (world.objects().endpoint(), world.dir().join("credentials"));
    let credentials = format!("file:{}", credentials.display());
    let bucket = format!("vmds/{name}");
    ["pool", "add", name, "--s3", &bucket, "--endpoint", &endpoint, "--path-style"]
        .into_iter()
        .chain(["--credentials", &credentials, "--staging", staging.to_str().unwrap()])
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_staging_directory_on_a_file_system_that_lacks_something_is_refused_in_a_sentence() {
    let world = World::start_on_objects(binaries());
    let disks = [
        ("plain", Disk::plain(), "has no extended attributes of the kind trusted"),
        ("coarse", Disk::ext4(&["-I", "128", "-b", "4096"]), "does not keep times to the microsecond"),
        ("narrow", Disk::ext4(&["-b", "1024"]), "has no room for extended attributes of 2560 bytes"),
    ];
    for (name, disk, lacks) in &disks {
        world.objects().forget_requests();
        let arguments = add(&world, name, disk.path());
        let told = world.ctl_refuses(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let directory = disk.path().display();
        assert!(
            told.contains(&format!("the file system of the staging directory {directory} {lacks}")),
            "{told}"
        );
        assert!(
            told.contains("name a directory on ext4, XFS, Btrfs or tmpfs as the staging directory"),
            "{told}"
        );
        assert!(world.objects().requests().is_empty(), "nothing was asked of the store");
        let left = fs::read_dir(disk.path()).unwrap().filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().contains("vmds"))
        });
        assert_eq!(left.count(), 0, "nothing is left there");
    }
    let fit = Disk::ext4(&["-b", "4096"]);
    let arguments = add(&world, "fit", fit.path());
    let told = world.ctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(told.contains("pool 'fit' is ready"), "{told}");
}
