//! `vmdsctl tenant`.

use serde_json::{Map, Value, json};

use super::args::{TenantArguments, TenantCommand};
use super::{CliError, Run, output, resources, wait};
use crate::resource::{Kind, Manifest, Object, to_value};

pub(super) async fn execute(run: &Run, command: TenantCommand) -> Result<(), CliError> {
    match command {
        TenantCommand::Create(arguments) => create(run, &arguments).await,
        TenantCommand::List => resources::list(run, Kind::Tenant).await,
        TenantCommand::Show { name } => {
            let object: Object = run.client.get(&super::client::resource_path(Kind::Tenant, &name)).await?;
            output::show(run.format, &object, || output::describe(&object))
        }
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
