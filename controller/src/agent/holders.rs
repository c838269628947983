//! Who uses a mount: asked of `/proc`, never of the mount itself, which may not answer.

use std::fs;
use std::path::Path;

use super::mountpoint::MountInfo;

/// Most processes named.
const NAMED_MAX: usize = 10;

/// The processes that keep a mount busy, as `command (pid)`, [`NAMED_MAX`] at most.
pub(super) fn of(mount: &MountInfo) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| uses(*pid, mount)).take(NAMED_MAX).map(describe).collect()
}

fn uses(pid: u32, mount: &MountInfo) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let inside =
        |link: &str| fs::read_link(process.join(link)).is_ok_and(|target| target.starts_with(&mount.dir));
    inside("cwd")
        || inside("root")
        || inside("exe")
        || has_open_file(&process, mount)
        || has_mapping(&process, mount)
}

fn has_open_file(process: &Path, mount: &MountInfo) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fdinfo")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let info = fs::read_to_string(descriptor.path()).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        id.and_then(|id| id.trim().parse().ok()) == Some(mount.id)
    })
}

fn has_mapping(process: &Path, mount: &MountInfo) -> bool {
    let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
    let Some((major, minor)) = mount.device.split_once(':') else { return false };
    let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else { return false };
    let device = format!("{major:02x}:{minor:02x}");
    maps.lines().any(|line| line.split_ascii_whitespace().nth(3) == Some(device.as_str()))
}

fn describe(pid: u32) -> String {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} ({pid})", command.trim())
}
