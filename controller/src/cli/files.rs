//! `vmdsctl apply`: resources from a file.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::args::Format;
use super::{CliError, Run, output, tell, wait};
use crate::resource::{Kind, Manifest, Object};

/// Largest file, in bytes.
const FILE_MAX: u64 = 64 << 20;
/// Most resources in a file.
const DOCUMENTS_MAX: usize = 100_000;
/// Most values in a resource, on average.
const NODES_PER_DOCUMENT: usize = 64;

/// Applies all resources of a file, also when some of them are refused.
pub(super) async fn apply(run: &Run, file: &Path, wait: bool) -> Result<ExitCode, CliError> {
    let manifests = parse(file, &read(file)?)?;
    let (mut applied, mut failed) = (Vec::new(), false);
    for manifest in &manifests {
        match put(run, manifest).await {
            Ok(object) => applied.push(object),
            Err(error) => {
                failed = true;
                tell(&error);
            }
        }
    }
    if wait {
        for object in &mut applied {
            match wait::until(run, object, wait::ready_in_the_end).await {
                Ok(ready) => *object = ready,
                Err(error) => {
                    failed = true;
                    tell(&error);
                }
            }
        }
    }
    if run.format != Format::Table {
        output::show(run.format, &applied, String::new)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn put(run: &Run, manifest: &Manifest) -> Result<Object, CliError> {
    let (kind, name) = identity(manifest)?;
    let sent = run.client.put(kind, name, manifest).await;
    let (outcome, object) =
        sent.map_err(|error| CliError { message: format!("{kind} {name}: {error}"), ..error })?;
    if run.format == Format::Table {
        output::emit(&format!("{kind} {name} {outcome}\n"))?;
    }
    Ok(object)
}

fn identity(manifest: &Manifest) -> Result<(Kind, &str), CliError> {
    let kind = manifest.kind.ok_or_else(|| CliError::new("a resource in the file has no kind"))?;
    let name = manifest.metadata.name.as_deref();
    Ok((kind, name.ok_or_else(|| CliError::new(format!("a {kind} in the file has no metadata.name")))?))
}

fn read(file: &Path) -> Result<String, CliError> {
    let failed = |error: std::io::Error| CliError::new(format!("{} cannot be read: {error}", file.display()));
    let mut text = String::new();
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(failed)?)
    };
    source.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(CliError::new(format!("{} is larger than {FILE_MAX} bytes", file.display())));
    }
    Ok(text)
}

/// The resources in a text: JSON or YAML documents, each a resource, a list of them, or the answer to `get`.
fn parse(file: &Path, text: &str) -> Result<Vec<Manifest>, CliError> {
    let wrong = |error: &dyn std::fmt::Display| {
        CliError::new(format!("{} is not understood: {error}", file.display()))
    };
    let documents: Vec<Value> = if text.trim_start().starts_with(['{', '[']) {
        vec![serde_json::from_str(text).map_err(|error| wrong(&error))?]
    } else {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_documents: DOCUMENTS_MAX,
                max_nodes: DOCUMENTS_MAX * NODES_PER_DOCUMENT,
                max_events: DOCUMENTS_MAX * NODES_PER_DOCUMENT * 2,
            },
            // `rootMode: 0755` means what it looks like.
            leading_zero_numbers_as_strings: true,
            with_snippet: false,
        };
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| wrong(&error))?
    };
    let mut manifests = Vec::new();
    for document in documents {
        let resources = match document {
            Value::Null => Vec::new(),
            Value::Array(items) => items,
            Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
                match list.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                }
            }
            one => vec![one],
        };
        for resource in resources {
            let manifest = serde_path_to_error::deserialize(resource).map_err(|error| wrong(&error))?;
            identity(&manifest)?;
            manifests.push(manifest);
        }
    }
    if manifests.is_empty() {
        return Err(CliError::new("there is no resource in the file"));
    }
    Ok(manifests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse(Path::new("-"), text).unwrap().into_iter().map(|m| m.metadata.name.unwrap()).collect()
    }

    #[test]
    fn yaml_documents_json_and_lists_are_read() {
        let yaml = "apiVersion: vmds/v1\nkind: Tenant\nmetadata:\n  name: a\nspec:\n  quota:\n    bytes: 1GiB\n---\n\
                    kind: Tenant\nmetadata: {name: b}\n";
        assert_eq!(names(yaml), ["a", "b"]);
        assert_eq!(parse(Path::new("-"), yaml).unwrap()[0].spec["quota"]["bytes"], "1GiB");
        let mode =
            parse(Path::new("-"), "kind: Tenant\nmetadata: {name: a}\nspec: {rootMode: 0755}\n").unwrap();
        assert_eq!(mode[0].spec["rootMode"], "0755");
        let many = "kind: Tenant\nmetadata: {name: a}\n---\n".repeat(3000);
        assert_eq!(parse(Path::new("-"), &many).unwrap().len(), 3000);
        assert_eq!(names(r#"{"kind": "Pool", "metadata": {"name": "p"}, "spec": {}}"#), ["p"]);
        assert_eq!(names("kind: TenantList\nitems:\n- {kind: Tenant, metadata: {name: c}}\n"), ["c"]);
        assert_eq!(names(r#"[{"kind": "Mount", "metadata": {"name": "m"}}]"#), ["m"]);
    }

    #[test]
    fn what_is_no_resource_is_told() {
        for (text, part) in [
            ("", "no resource"),
            ("kind: Tenant\n", "has no metadata.name"),
            ("metadata: {name: a}\n", "has no kind"),
            ("kind: Secret\nmetadata: {name: a}\n", "kind: unknown variant `Secret`"),
            ("kind: Tenant\nmetadata: {name: a}\nspecs: {}\n", "unknown field `specs`"),
            ("apiVersion: vmds/v9\nkind: Tenant\nmetadata: {name: a}\n", "vmds/v9"),
            ("a: [", "not understood"),
            ("{\"a\": [", "not understood"),
        ] {
            let error = parse(Path::new("-"), text).unwrap_err().message;
            assert!(error.contains(part), "{error}");
        }
    }
}
