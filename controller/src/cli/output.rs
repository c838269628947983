//! How results are written: tables for people, JSON and YAML for programs.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::CliError;
use super::args::Format;
use crate::api::{LocatedView, StatusReport};
use crate::resource::{CredentialsSpec, Kind, Object, Pool, PoolStatus, S3Spec, Tenant, Truth, human_bytes};

/// Writes to standard output. A reader that has seen enough is no error.
pub(super) fn emit(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(format!("the result cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a result: as data, or for people as `table` says.
pub(super) fn show<T: Serialize>(
    format: Format,
    data: &T,
    table: impl FnOnce() -> String,
) -> Result<(), CliError> {
    emit(&rendered(format, data, table)?)
}

fn rendered<T: Serialize>(
    format: Format,
    data: &T,
    table: impl FnOnce() -> String,
) -> Result<String, CliError> {
    let failed =
        |error: &dyn std::fmt::Display| CliError::new(format!("the result cannot be written: {error}"));
    Ok(match format {
        Format::Table => table(),
        Format::Json => serde_json::to_string_pretty(data).map_err(|e| failed(&e))? + "\n",
        Format::Yaml => {
            let text = serde_saphyr::to_string(data).map_err(|e| failed(&e))?;
            if text.ends_with('\n') { text } else { text + "\n" }
        }
    })
}

/// A table: with lines on a terminal, plain columns otherwise.
pub(super) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    draw(headings, rows, io::stdout().is_terminal())
}

fn draw(headings: &[&str], rows: Vec<Vec<String>>, lines: bool) -> String {
    let mut table = Table::new();
    table.load_preset(if lines { presets::UTF8_FULL_CONDENSED } else { presets::NOTHING });
    table.set_header(headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| harmless(&cell)).collect::<Vec<_>>());
    }
    if !lines {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }
    table.trim_fmt() + "\n"
}

/// A text that cannot do anything to a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The table of resources of a kind.
pub(super) fn resources(kind: Kind, objects: &[Object]) -> String {
    draw_resources(kind, objects, io::stdout().is_terminal())
}

fn draw_resources(kind: Kind, objects: &[Object], lines: bool) -> String {
    let info = kind.info();
    let ready = info.ready.to_ascii_uppercase();
    let headings: Vec<&str> = info.columns.iter().copied().chain([ready.as_str()]).collect();
    let row = |object: &Object| {
        let mut row = (info.row)(object).unwrap_or_else(|_| {
            let mut row = vec!["?".to_owned(); info.columns.len()];
            row[0] = object.name().to_owned();
            row
        });
        row.push(readiness(object));
        row
    };
    draw(&headings, objects.iter().map(row).collect(), lines)
}

/// Whether a resource is what it should be, in a word.
pub(super) fn readiness(object: &Object) -> String {
    let deleting = if object.metadata.deletion_requested { ", deleting" } else { "" };
    let state = match object.readiness() {
        None => "pending".to_owned(),
        Some(ready) if ready.status == Truth::True => "yes".to_owned(),
        Some(other) => format!("no ({})", other.reason),
    };
    format!("{state}{deleting}")
}

/// All about a resource.
pub(super) fn describe(object: &Object) -> String {
    let info = object.kind.info();
    let cells = (info.row)(object).unwrap_or_default();
    let mut lines: Vec<(String, String)> =
        info.columns.iter().map(|heading| heading.to_ascii_lowercase()).zip(cells).collect();
    if let Ok(tenant) = object.typed::<Tenant>() {
        let owners: Vec<_> = tenant.spec.owners.iter().map(u32::to_string).collect();
        lines.push(("owners".to_owned(), owners.join(", ")));
        lines.push(("share naming".to_owned(), tenant.spec.share_naming.to_string()));
        lines.push(("mount options".to_owned(), tenant.spec.mount_options.to_string()));
        let shard = tenant.status.shard.map_or_else(|| "-".to_owned(), |shard| shard.to_string());
        lines.push(("shard".to_owned(), shard));
    }
    if let Ok(pool) = object.typed::<Pool>()
        && let Some(s3) = pool.spec.s3()
    {
        lines.extend(bucket(s3, &pool.status));
    }
    lines.push(("created".to_owned(), object.metadata.created.to_string()));
    for condition in object.common().conditions {
        let said =
            format!("{:?} since {}: {}", condition.status, condition.last_transition, condition.message);
        lines.push((condition.kind.to_ascii_lowercase(), said));
    }
    let width = lines.iter().map(|(heading, _)| heading.len()).max().unwrap_or(0);
    lines.iter().map(|(heading, text)| format!("{heading:width$}  {}\n", harmless(text))).collect()
}

/// All about a bucket that is a pool. There is nothing secret to show: credentials are only named.
fn bucket(spec: &S3Spec, status: &PoolStatus) -> Vec<(String, String)> {
    let credentials = match &spec.credentials {
        CredentialsSpec::Env => "the controller's environment".to_owned(),
        CredentialsSpec::Imds => "the role of the machine".to_owned(),
        CredentialsSpec::Profile(profile) => format!("profile {profile}"),
        CredentialsSpec::File { path, profile } => {
            let profile = profile.as_deref().unwrap_or("default");
            format!("{}, profile {profile}", path.display())
        }
    };
    let staging = spec.staging.as_ref().map(|path| path.display().to_string());
    let mut lines = vec![
        ("region", spec.region.clone().unwrap_or_else(|| "-".to_owned())),
        ("credentials", credentials),
        ("staging", staging.unwrap_or_else(|| "below the controller's state".to_owned())),
    ];
    if let Some(cache) = &spec.disk_cache {
        lines.push(("disk cache", cache.directory.display().to_string()));
        let used = status.disk_cache.as_ref().map_or(0, |held| held.bytes_used);
        lines.push(("cached", format!("{} of {}", human_bytes(used), cache.bytes)));
    }
    if let Some(can) = &status.s3 {
        let word = |holds| if holds { "yes" } else { "no" }.to_owned();
        lines.extend([
            ("conditional writes", word(can.conditional_put)),
            ("conditional reads", word(can.conditional_get)),
            ("checks checksums", word(can.checksums)),
            ("copies parts", word(can.multipart_copy)),
            ("versioning", format!("{:?}", can.versioning).to_lowercase()),
            ("clock ahead by", format!("{}s", can.clock_skew_seconds)),
        ]);
        lines.extend(can.notes.iter().map(|note| ("note", note.clone())));
    }
    lines.into_iter().map(|(heading, text)| (heading.to_owned(), text)).collect()
}

/// Where a file is.
pub(super) fn located(located: &LocatedView) -> String {
    let row = |r: &crate::api::RangeView| {
        let path = r.path.as_ref().map_or_else(|| r.key.clone(), |path| path.display().to_string());
        let host = r.host.clone().unwrap_or_else(|| "-".to_owned());
        vec![r.offset.to_string(), r.length.to_string(), r.pool.clone(), path, host]
    };
    let rows = located.ranges.iter().map(row).collect();
    format!("{}, {}\n", located.kind, human_bytes(located.size))
        + &table(&["OFFSET", "LENGTH", "POOL", "ADDRESS", "HOST"], rows)
}

/// The controller at a glance.
pub(super) fn status(report: &StatusReport) -> String {
    draw_status(report, io::stdout().is_terminal())
}

fn draw_status(report: &StatusReport, lines: bool) -> String {
    let up = humantime::format_duration(std::time::Duration::from_secs(report.uptime_seconds));
    let mut text = format!("vmds-controller {}, up {up}\n\n", report.version);
    let count = |(plural, count): (&String, &crate::api::KindCount)| {
        vec![plural.clone(), count.total.to_string(), count.ready.to_string()]
    };
    text += &draw(&["KIND", "TOTAL", "READY"], report.resources.iter().map(count).collect(), lines);
    if !report.mounts.is_empty() {
        let mount = |m: &crate::api::MountView| {
            let pid = m.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let word = |holds| if holds { "yes" } else { "no" }.to_owned();
            let (dir, generation) = (m.dir.display().to_string(), m.generation.to_string());
            vec![dir, m.tenant.clone(), word(m.serving), pid, generation, word(m.taken_over)]
        };
        let rows = report.mounts.iter().map(mount).collect();
        text += "\n";
        text += &draw(&["DIR", "TENANT", "SERVING", "PID", "GENERATION", "TAKEN OVER"], rows, lines);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::api::{KindCount, MountView};

    fn tenant() -> Object {
        serde_json::from_value(json!({
            "apiVersion": "vmds/v1", "kind": "Tenant",
            "metadata": {"name": "alpha", "uid": 1, "resourceVersion": 4, "generation": 1, "createdBy": 0,
                "created": "2031-05-07T12:00:00Z"},
            "spec": {"quota": {"bytes": 10737418240u64}, "owners": [1000]},
            "status": {"tenantId": 1, "shard": 3, "pool": "default", "usage": {"bytes": 1536, "inodes": 2},
                "observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Serving",
                    "message": "the tenant can be mounted", "lastTransition": "2031-05-07T12:00:01Z"}]}
        }))
        .unwrap()
    }

    #[test]
    fn a_plain_table() {
        let mut other = tenant();
        other.metadata.name = "b".to_owned();
        other.metadata.deletion_requested = true;
        other.status["conditions"] = json!([]);
        assert_eq!(
            draw_resources(Kind::Tenant, &[tenant(), other], false),
            "NAME   ID  POOL     USED    QUOTA  INODES  READY\n\
             alpha  1   default  1.5KiB  10GiB  2       yes\n\
             b      1   default  1.5KiB  10GiB  2       pending, deleting\n"
        );
        assert_eq!(draw_resources(Kind::Pool, &[], false), "NAME  ID  PATH  HOST  SIZE  FREE  READY\n");
    }

    #[test]
    fn a_table_with_lines() {
        assert_eq!(
            draw(&["A", "B"], vec![vec!["1".to_owned(), "\u{1b}[2J".to_owned()]], true),
            "┌───┬──────┐\n│ A ┆ B    │\n╞═══╪══════╡\n│ 1 ┆ \u{fffd}[2J │\n└───┴──────┘\n"
        );
    }

    #[test]
    fn all_about_a_tenant() {
        assert_eq!(
            describe(&tenant()),
            "name           alpha\n\
             id             1\n\
             pool           default\n\
             used           1.5KiB\n\
             quota          10GiB\n\
             inodes         2\n\
             owners         1000\n\
             share naming   /shares/{owner}/{name}\n\
             mount options  rw\n\
             shard          3\n\
             created        2031-05-07T12:00:00Z\n\
             ready          True since 2031-05-07T12:00:01Z: the tenant can be mounted\n"
        );
    }

    #[test]
    fn all_about_a_bucket() {
        let pool: Object = serde_json::from_value(json!({
            "apiVersion": "vmds/v1", "kind": "Pool",
            "metadata": {"name": "big", "uid": 1, "resourceVersion": 4, "generation": 1, "createdBy": 0,
                "created": "2031-05-07T12:00:00Z"},
            "spec": {"s3": {"bucket": "data", "prefix": "vmds", "endpoint": "http://store:9000",
                "credentials": {"file": "/etc/vmds/keys"},
                "diskCache": {"directory": "/var/cache/vmds", "bytes": "100GiB"}}},
            "status": {"poolId": 2, "conditions": [],
                "diskCache": {"bytesUsed": 3 << 29, "bytesMax": 100_u64 << 30, "objects": 7}, "s3": {"conditionalPut": true, "conditionalGet": false,
                "etags": "quoted", "multipartCopy": true, "checksums": true, "versioning": "off",
                "clockSkewSeconds": -1, "notes": ["it ignores If-Match"]}}
        }))
        .unwrap();
        assert_eq!(
            describe(&pool),
            "name                big\n\
             id                  2\n\
             path                s3://data/vmds\n\
             host                http://store:9000\n\
             size                -\n\
             free                -\n\
             region              -\n\
             credentials         /etc/vmds/keys, profile default\n\
             staging             below the controller's state\n\
             disk cache          /var/cache/vmds\n\
             cached              1.5GiB of 100GiB\n\
             conditional writes  yes\n\
             conditional reads   no\n\
             checks checksums    yes\n\
             copies parts        yes\n\
             versioning          off\n\
             clock ahead by      -1s\n\
             note                it ignores If-Match\n\
             created             2031-05-07T12:00:00Z\n"
        );
    }

    #[test]
    fn what_is_written_as_data_can_be_read_again() {
        for (format, parse) in [
            (Format::Json, (|text| serde_json::from_str(text).unwrap()) as fn(&str) -> Object),
            (Format::Yaml, |text| serde_saphyr::from_str(text).unwrap()),
        ] {
            let text = rendered(format, &tenant(), String::new).unwrap();
            assert_eq!(parse(&text), tenant(), "{text}");
            assert!(text.ends_with('\n'));
        }
    }

    #[test]
    fn the_controller_at_a_glance() {
        let report = StatusReport {
            version: "0.1.0".to_owned(),
            uptime_seconds: 3661,
            resource_version: 7,
            resources: BTreeMap::from([("mounts".to_owned(), KindCount { total: 1, ready: 1 })]),
            mounts: vec![MountView {
                tenant: "alpha".to_owned(),
                dir: "/mnt/a".into(),
                serving: true,
                pid: Some(42),
                generation: 1,
                taken_over: true,
            }],
        };
        assert_eq!(
            draw_status(&report, false),
            "vmds-controller 0.1.0, up 1h 1m 1s\n\n\
             KIND    TOTAL  READY\n\
             mounts  1      1\n\n\
             DIR     TENANT  SERVING  PID  GENERATION  TAKEN OVER\n\
             /mnt/a  alpha   yes      42   1           yes\n"
        );
    }
}
