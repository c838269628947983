//! `vmdsctl mount` and `vmdsctl umount`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::MountArguments;
use super::client::resource_path;
use super::{CliError, Run, output, wait};
use crate::api::ErrorKind;
use crate::resource::{Kind, Manifest, Mount, Object, mount_name};

pub(super) async fn mount(run: &Run, arguments: &MountArguments) -> Result<(), CliError> {
    let made = make(run, arguments).await?;
    let dir = full_path(&arguments.dir)?;
    output::show(run.format, &made, || {
        let status = made.typed::<Mount>().map(|mount| mount.status).unwrap_or_default();
        let options = status.options.map(|options| options.to_string()).unwrap_or_default();
        let pid = status.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        format!("mounted '{}' at {} ({options}{pid})\n", arguments.tenant, dir.display())
    })
}

/// Mounts, or changes the options of a mount if they say so, and waits until it is done.
pub(super) async fn make(run: &Run, arguments: &MountArguments) -> Result<Object, CliError> {
    let dir = full_path(&arguments.dir)?;
    if arguments.options.as_ref().is_some_and(|options| options.remount) {
        return change(run, arguments, &dir).await;
    }
    let path = format!("/v1/mounts?wait={}", run.timeout.as_secs().max(1));
    run.client.post(&path, &spec(arguments, &dir), run.timeout).await
}

/// Changes the options of a mount while it is in use. What cannot be changed stays as it was.
async fn change(run: &Run, arguments: &MountArguments, dir: &Path) -> Result<Object, CliError> {
    let name = mount_name(dir);
    let before: Object =
        run.client.get(&resource_path(Kind::Mount, &name)).await.map_err(|error| unknown(error, dir))?;
    if before.spec["tenant"] != json!(arguments.tenant) {
        return Err(CliError::new(format!("another tenant is mounted at {}", dir.display())));
    }
    let mut wanted = before.spec.clone();
    add_flags(arguments, &mut wanted);
    let wanted = Manifest::new(Kind::Mount, &name, wanted).at_version(before.metadata.resource_version);
    let (_, changed) = run.client.put(Kind::Mount, &name, &wanted).await?;
    let done = wait::until(run, &changed, wait::ready).await;
    if done.as_ref().is_err_and(CliError::is_final) {
        // What could not be had is not wished for any longer.
        run.client.put(Kind::Mount, &name, &Manifest::new(Kind::Mount, &name, before.spec)).await?;
    }
    done
}

/// Flags that were not given are the tenant's to decide.
fn spec(arguments: &MountArguments, dir: &Path) -> Value {
    let mut spec = json!({"tenant": arguments.tenant, "dir": dir});
    add_flags(arguments, &mut spec);
    spec
}

fn add_flags(arguments: &MountArguments, spec: &mut Value) {
    if let Some(options) = &arguments.options {
        options.write_to(spec);
    }
    for (given, field) in [
        (arguments.read_only, "readOnly"),
        (arguments.noexec, "noexec"),
        (arguments.noatime, "noatime"),
        (arguments.suid, "suid"),
        (arguments.dev, "dev"),
    ] {
        if given {
            spec[field] = json!(true);
        }
    }
}

pub(super) async fn umount(run: &Run, dir: &Path, lazy: bool) -> Result<(), CliError> {
    let gone = take_away(run, dir, lazy).await?;
    let dir = full_path(dir)?;
    output::show(run.format, &gone, || format!("unmounted {}\n", dir.display()))
}

/// Unmounts, and waits until it is done.
pub(super) async fn take_away(run: &Run, dir: &Path, lazy: bool) -> Result<Object, CliError> {
    let dir = full_path(dir)?;
    let query = if lazy { "?lazy=1" } else { "" };
    let going = run.client.delete(Kind::Mount, &mount_name(&dir), query).await;
    let going = going.map_err(|error| unknown(error, &dir))?;
    wait::until_gone(run, &going).await?;
    Ok(going)
}

fn unknown(error: CliError, dir: &Path) -> CliError {
    if error.kind == Some(ErrorKind::NotFound) {
        CliError::new(format!("no tenant is mounted at {}", dir.display())).hint("see: vmdsctl get mounts")
    } else {
        error
    }
}

/// The full path of a mount point. Only its parent is looked at: a mount that nobody serves would not answer.
fn full_path(dir: &Path) -> Result<PathBuf, CliError> {
    let wrong = |error: std::io::Error| {
        CliError::new(format!("{} is not a directory's path: {error}", dir.display()))
    };
    let full = std::path::absolute(dir).map_err(wrong)?;
    let plain: PathBuf = full.components().collect();
    let full = match (plain.parent().and_then(|parent| parent.canonicalize().ok()), plain.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => plain,
    };
    if full.to_str().is_none() {
        return Err(CliError::new(format!("{} is not UTF-8; choose another directory", full.display())));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_has_one_name_however_it_is_typed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let link = real.join("link");
        std::fs::create_dir(real.join("sub")).unwrap();
        std::os::unix::fs::symlink(real.join("sub"), &link).unwrap();
        let expected = real.join("sub/m");
        for typed in ["sub/m", "sub/m/", "sub//m", "sub/./m", "link/m"] {
            assert_eq!(full_path(&real.join(typed)).unwrap(), expected, "{typed}");
        }
        assert_eq!(full_path(Path::new("/no/such/m")).unwrap(), Path::new("/no/such/m"));
    }

    #[test]
    fn only_flags_that_were_given_are_sent() {
        let plain = MountArguments::plain("a".to_owned(), "/m".into());
        let arguments = MountArguments { read_only: true, ..plain };
        let expected = json!({"tenant": "a", "dir": "/m", "readOnly": true});
        assert_eq!(spec(&arguments, Path::new("/m")), expected);
    }
}
