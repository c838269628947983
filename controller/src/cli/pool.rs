//! The `pool` verbs.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{PoolArguments, PoolCommand};
use super::client::resource_path;
use super::long::{self, Told};
use super::{CliError, Run, output, resources, wait};
use crate::api::{PoolCheckView, PoolProblemView};
use crate::resource::{DiskCacheSpec, Kind, Manifest, Pool, S3Spec, to_value};

pub(super) async fn execute(run: &Run, command: PoolCommand) -> Result<ExitCode, CliError> {
    match command {
        PoolCommand::Check { name, grace, repair } => return check(run, &name, grace, repair).await,
        PoolCommand::Add(arguments) => add(run, *arguments).await,
        PoolCommand::List => resources::list(run, Kind::Pool).await,
        PoolCommand::Show { name } => resources::get(run, Kind::Pool, &name).await,
        PoolCommand::Remove { name } => resources::delete(run, Kind::Pool, &name, false, false).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

async fn check(run: &Run, name: &str, grace: Duration, repair: bool) -> Result<ExitCode, CliError> {
    let path = format!(
        "{}/check?grace={}&repair={}",
        resource_path(Kind::Pool, name),
        grace.as_secs(),
        u8::from(repair)
    );
    let far = |at: &PoolCheckView| {
        let PoolCheckView { objects, files, problems, .. } = at;
        format!("{objects} objects and {files} files looked at, {problems} problems")
    };
    let told = Told { found: problem, progress: far, done: summary };
    let done: PoolCheckView = long::follow(run, &path, &Value::Null, &format!("pool {name}"), told).await?;
    Ok(if done.problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn problem(problem: &PoolProblemView) -> String {
    let PoolProblemView { problem: kind, tenant, key, inode, path, detail } = problem;
    let file = match (path, inode) {
        (Some(path), _) => format!("  {tenant}:{path}"),
        (None, Some(inode)) => format!("  {tenant}: inode {inode}"),
        (None, None) => format!("  {tenant}"),
    };
    let detail = if detail.is_empty() { String::new() } else { format!("  ({detail})") };
    format!("{kind:<9} {key}{file}{detail}")
}

fn summary(done: &PoolCheckView) -> String {
    let found = match done.problems {
        0 => "no problems".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    let repaired = match done.repaired {
        0 => String::new(),
        many => format!(", {many} objects will be deleted"),
    };
    format!("checked {} objects and {} files: {found}{repaired}", done.objects, done.files)
}

async fn add(run: &Run, arguments: PoolArguments) -> Result<(), CliError> {
    let name = arguments.name.clone();
    let (spec, place) = wanted(arguments)?;
    let made = wait::make(run, &Manifest::new(Kind::Pool, &name, spec)).await?;
    let found = made.typed::<Pool>().ok().and_then(|pool| pool.status.s3);
    let notes = found.iter().flat_map(|can| &can.notes);
    let notes: String = notes.map(|note| format!("note: {}\n", output::harmless(note))).collect();
    output::show(run.format, &made, || format!("pool '{name}' is ready: {place}\n{notes}"))
}

/// The spec that was typed, and where that is.
fn wanted(arguments: PoolArguments) -> Result<(Value, String), CliError> {
    let PoolArguments {
        posix,
        host,
        s3,
        endpoint,
        region,
        path_style,
        credentials,
        staging,
        ca_file,
        lease_seconds,
        disk_cache,
        disk_cache_bytes,
        ..
    } = arguments;
    if let Some(posix) = posix {
        let path = full(&posix)?;
        let mut spec = json!({"path": path});
        if let Some(host) = host {
            spec["host"] = json!(host);
        }
        return Ok((json!({"posix": spec}), path));
    }
    let (Some(bucket), Some(credentials)) = (s3, credentials) else {
        return Err(CliError::new("say what the storage is: --posix, or --s3 and --credentials"));
    };
    let full_path = |path: Option<std::path::PathBuf>| path.map(|path| full(&path)).transpose();
    let spec = S3Spec {
        bucket: bucket.name,
        prefix: bucket.prefix,
        endpoint,
        region,
        path_style,
        credentials,
        staging: full_path(staging)?.map(Into::into),
        ca_file: full_path(ca_file)?.map(Into::into),
        lease_seconds,
        disk_cache: match (full_path(disk_cache)?, disk_cache_bytes) {
            (Some(directory), Some(bytes)) => Some(DiskCacheSpec { directory: directory.into(), bytes }),
            _ => None,
        },
    };
    Ok((json!({"s3": to_value(&spec)}), spec.url()))
}

fn full(path: &Path) -> Result<String, CliError> {
    let shown = path.display();
    let full = std::path::absolute(path);
    let full = full.map_err(|error| CliError::new(format!("{shown} is not a path: {error}")))?;
    full.to_str().map(str::to_owned).ok_or_else(|| CliError::new(format!("{shown} is not UTF-8")))
}
