//! `vmdsctl pool`.

use serde_json::json;

use super::args::PoolCommand;
use super::{CliError, Run, output, resources, wait};
use crate::resource::{Kind, Manifest};

pub(super) async fn execute(run: &Run, command: PoolCommand) -> Result<(), CliError> {
    match command {
        PoolCommand::Add { name, posix, host } => {
            let path = std::path::absolute(&posix)
                .map_err(|error| CliError::new(format!("{} is not a path: {error}", posix.display())))?;
            let text =
                path.to_str().ok_or_else(|| CliError::new(format!("{} is not UTF-8", path.display())))?;
            let mut posix = json!({"path": text});
            if let Some(host) = host {
                posix["host"] = json!(host);
            }
            let made = wait::make(run, &Manifest::new(Kind::Pool, &name, json!({"posix": posix}))).await?;
            output::show(run.format, &made, || format!("pool '{name}' is ready: {}\n", path.display()))
        }
        PoolCommand::List => resources::list(run, Kind::Pool).await,
        PoolCommand::Remove { name } => resources::delete(run, Kind::Pool, &name, false, false).await,
    }
}
