//! The `pool` verbs.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{PoolArguments, PoolCommand};
use super::{CliError, Run, output, resources, wait};
use crate::resource::{Kind, Manifest, Pool, S3Spec, to_value};

pub(super) async fn execute(run: &Run, command: PoolCommand) -> Result<(), CliError> {
    match command {
        PoolCommand::Add(arguments) => add(run, *arguments).await,
        PoolCommand::List => resources::list(run, Kind::Pool).await,
        PoolCommand::Show { name } => resources::get(run, Kind::Pool, &name).await,
        PoolCommand::Remove { name } => resources::delete(run, Kind::Pool, &name, false, false).await,
    }
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
    };
    Ok((json!({"s3": to_value(&spec)}), spec.url()))
}

fn full(path: &Path) -> Result<String, CliError> {
    let shown = path.display();
    let full = std::path::absolute(path);
    let full = full.map_err(|error| CliError::new(format!("{shown} is not a path: {error}")))?;
    full.to_str().map(str::to_owned).ok_or_else(|| CliError::new(format!("{shown} is not UTF-8")))
}
