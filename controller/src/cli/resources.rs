//! Commands that work on any kind, and overviews.

use std::process::ExitCode;
use std::time::Duration;

use super::args::Format;
use super::client::{encoded, resource_path};
use super::typed::TenantPath;
use super::{CliError, Run, output, wait};
use crate::api::{CheckReport, List, LocatedView, StatusReport, WatchChange, WatchLine};
use crate::resource::{Kind, Object};

/// Longest wait for a check: it reads the whole map.
const CHECK_WITHIN: Duration = Duration::from_secs(3600);

pub(super) async fn list(run: &Run, kind: Kind) -> Result<(), CliError> {
    let list: List = run.client.get(&format!("/v1/{}", kind.info().plural)).await?;
    output::show(run.format, &list, || output::resources(kind, &list.items))
}

pub(super) async fn get(run: &Run, kind: Kind, name: &str) -> Result<(), CliError> {
    let object: Object = run.client.get(&resource_path(kind, name)).await?;
    output::show(run.format, &object, || output::describe(&object))
}

pub(super) async fn delete(
    run: &Run,
    kind: Kind,
    name: &str,
    purge: bool,
    lazy: bool,
) -> Result<(), CliError> {
    let query = match (purge, lazy) {
        (true, _) => "?purge=1",
        (_, true) => "?lazy=1",
        _ => "",
    };
    let going = run.client.delete(kind, name, query).await?;
    wait::until_gone(run, &going).await?;
    output::show(run.format, &going, || format!("{kind} '{name}' is gone\n"))
}

pub(super) async fn watch(run: &Run, kind: Kind, from: Option<u64>) -> Result<(), CliError> {
    let from = from.map(|version| format!("&from={version}")).unwrap_or_default();
    let mut changes = run.client.watch(&format!("/v1/{}?watch=1{from}", kind.info().plural)).await?;
    while let Some((raw, line)) = changes.next().await? {
        if line.change == WatchChange::Error {
            let told = line.error.map_or_else(|| "the watch has ended".to_owned(), |error| error.message);
            return Err(CliError::new(told).hint("watch again without --from"));
        }
        match (run.format, told(&line)) {
            (_, None) => {}
            (Format::Json, Some(_)) => output::emit(&(raw + "\n"))?,
            (Format::Yaml, Some(_)) => {
                output::show(Format::Yaml, &line, String::new)?;
                output::emit("---\n")?;
            }
            (Format::Table, Some(text)) => output::emit(&text)?,
        }
    }
    Err(CliError::new("the controller ended the watch").hint("it may be going down; see: vmdsctl status"))
}

/// A change in one line; nothing for what is no change.
fn told(line: &WatchLine) -> Option<String> {
    let object = line.object.as_ref()?;
    let change = match line.change {
        WatchChange::Put => "is",
        WatchChange::Deleted => "gone",
        WatchChange::Bookmark | WatchChange::Error => return None,
    };
    let ready = object.readiness();
    let message = ready.map(|ready| output::harmless(&ready.message)).unwrap_or_default();
    let name = output::harmless(object.name());
    Some(format!(
        "{:<8} {change:<4} {name}  ready: {}  {message}\n",
        line.resource_version,
        output::readiness(object)
    ))
}

pub(super) async fn status(run: &Run) -> Result<(), CliError> {
    let report: StatusReport = run.client.get("/v1/status").await?;
    output::show(run.format, &report, || output::status(&report))
}

pub(super) async fn locate(run: &Run, file: &TenantPath) -> Result<(), CliError> {
    let path = format!("{}/locate?path={}", resource_path(Kind::Tenant, &file.tenant), encoded(&file.path));
    let located: LocatedView = run.client.get(&path).await?;
    output::show(run.format, &located, || output::located(&located))
}

pub(super) async fn check(run: &Run, tenant: Option<&str>) -> Result<ExitCode, CliError> {
    let query = tenant.map(|name| format!("?tenant={}", encoded(name))).unwrap_or_default();
    let path = format!("/v1/check{query}");
    let report: CheckReport = run.client.post(&path, &serde_json::Value::Null, CHECK_WITHIN).await?;
    output::show(run.format, &report, || summary(&report))?;
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(report: &CheckReport) -> String {
    let found = match report.problems.len() {
        0 => "no problems".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    let CheckReport { tenants, inodes, entries, .. } = report;
    let mut text = format!("checked {tenants} tenants, {inodes} inodes, {entries} entries: {found}\n");
    for problem in &report.problems {
        text += &format!("  {}\n", output::harmless(problem));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_summed_up() {
        let mut report = CheckReport { tenants: 2, inodes: 9, entries: 7, problems: Vec::new() };
        assert_eq!(summary(&report), "checked 2 tenants, 9 inodes, 7 entries: no problems\n");
        report.problems.push("inode 7 has no name".to_owned());
        assert_eq!(
            summary(&report),
            "checked 2 tenants, 9 inodes, 7 entries: 1 problem\n  inode 7 has no name\n"
        );
    }
}
