//! `vmdsctl tenant`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::args::{Format, TenantArguments, TenantCommand};
use super::client::resource_path;
use super::wait::Progress;
use super::{CliError, Run, output, resources, wait};
use crate::api::{StatusReport, UpgradeView};
use crate::resource::{Kind, Manifest, Object, to_value};

pub(super) async fn execute(run: &Run, command: TenantCommand) -> Result<(), CliError> {
    match command {
        TenantCommand::Create(arguments) => create(run, &arguments).await,
        TenantCommand::List => resources::list(run, Kind::Tenant).await,
        TenantCommand::Show { name } => {
            let object: Object = run.client.get(&resource_path(Kind::Tenant, &name)).await?;
            output::show(run.format, &object, || output::describe(&object))
        }
        TenantCommand::Upgrade { name: Some(name), .. } => {
            let upgraded = upgrade(run, &name).await?;
            output::show(run.format, &upgraded, || told(&upgraded))
        }
        TenantCommand::Upgrade { name: None, .. } => upgrade_all(run).await,
        TenantCommand::Delete { name, purge } => {
            resources::delete(run, Kind::Tenant, &name, purge, false).await
        }
    }
}

async fn create(run: &Run, arguments: &TenantArguments) -> Result<(), CliError> {
    let manifest = Manifest::new(Kind::Tenant, &arguments.name, spec(arguments));
    let made = wait::make(run, &manifest).await?;
    output::show(run.format, &made, || {
        let pool = made.status["pool"].as_str().unwrap_or("?");
        let id = &made.status["tenantId"];
        format!("tenant '{}' is ready: number {id}, files go to pool '{pool}'\n", made.name())
    })
}

async fn upgrade(run: &Run, name: &str) -> Result<UpgradeView, CliError> {
    let mut progress = Progress::new(&format!("tenant {name}"));
    progress.tell("its VMDS is being replaced");
    let path = format!("{}/upgrade", resource_path(Kind::Tenant, name));
    run.client.post(&path, &Value::Null, run.timeout).await
}

fn told(upgraded: &UpgradeView) -> String {
    let UpgradeView { tenant, pid_before, pid, generation, .. } = upgraded;
    format!("upgraded '{tenant}': process {pid_before} -> {pid}, generation {generation}\n")
}

/// One after the other; one that fails does not keep the others from it.
async fn upgrade_all(run: &Run) -> Result<(), CliError> {
    let report: StatusReport = run.client.get("/v1/status").await?;
    let tenants: BTreeSet<String> = report.mounts.into_iter().map(|mount| mount.tenant).collect();
    let (mut upgraded, mut failed) = (Vec::new(), 0);
    for name in &tenants {
        match upgrade(run, name).await {
            Ok(done) => {
                if run.format == Format::Table {
                    output::emit(&told(&done))?;
                }
                upgraded.push(done);
            }
            Err(error) => {
                failed += 1;
                eprintln!("not upgraded '{name}': {}", output::harmless(&error.message));
            }
        }
    }
    output::show(run.format, &upgraded, || match tenants.len() {
        0 => "no tenant is mounted\n".to_owned(),
        all => format!("{} of {all} tenants upgraded\n", upgraded.len()),
    })?;
    match failed {
        0 => Ok(()),
        _ => Err(CliError::new(format!("{failed} of {} tenants were not upgraded", tenants.len()))
            .hint("what was said of each is above; those go on as they were")),
    }
}

/// What was typed; the rest is the controller's to fill in.
fn spec(arguments: &TenantArguments) -> Value {
    let mut spec = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        spec.extend(value.map(|value| (key.to_owned(), value)));
    };
    set("pool", arguments.pool.as_ref().map(|pool| json!(pool)));
    set("slaClass", arguments.sla_class.as_ref().map(to_value));
    set("shareNaming", arguments.share_naming.as_ref().map(|rule| json!(rule)));
    set("owners", (!arguments.owners.is_empty()).then(|| json!(arguments.owners)));
    set("memory", arguments.memory.as_ref().map(|bytes| json!(bytes)));
    let quota = json!({"bytes": arguments.quota_bytes, "inodes": arguments.quota_inodes});
    set("quota", Some(quota));
    Value::Object(spec)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Arguments, Command};
    use super::*;

    #[test]
    fn what_was_typed_is_what_is_wished_for() {
        let words =
            "vmdsctl tenant create a --quota-bytes 1KiB --owner 1000 --owner 1001 --sla-class high-security";
        let Ok(Arguments { command: Command::Tenant(TenantCommand::Create(arguments)), .. }) =
            Arguments::try_parse_from(words.split(' '))
        else {
            panic!()
        };
        let expected = json!({
            "slaClass": "highSecurity", "owners": [1000, 1001], "quota": {"bytes": 1024, "inodes": null}
        });
        assert_eq!(spec(&arguments), expected);
        assert!((Kind::Tenant.info().admit)("a", &expected, None).is_ok());
    }
}
