//! Promise: the documents name tests that exist and commands that are there.

use std::fs;
use std::path::Path;

use crate::help::names;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|e| panic!("read {path}: {e}"))
}

/// What stands in backticks and looks like `module::test`.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|span| span.split_once("::")).collect()
}

#[test]
fn every_test_that_the_semantics_name_exists() {
    let text = read("docs/SEMANTICS.md");
    let named = named_tests(&text);
    assert!(named.len() > 50, "only {} tests are named", named.len());
    for (module, test) in named {
        let source = read(&format!("tests/it/{module}.rs"));
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "{module}::{test} does not exist");
    }
}

#[test]
fn every_promise_is_in_the_semantics() {
    let text = read("docs/SEMANTICS.md");
    let named = named_tests(&text);
    let mut absent = Vec::new();
    for file in names(&Path::new(ROOT).join("tests/it")) {
        let module = file.strip_suffix(".rs").unwrap();
        if ["main", "help", "documents"].contains(&module) {
            continue;
        }
        let source = read(&format!("tests/it/{file}"));
        let tests = source.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next());
        absent.extend(
            tests.filter(|test| !named.contains(&(module, test))).map(|test| format!("{module}::{test}")),
        );
    }
    assert!(absent.is_empty(), "not named in docs/SEMANTICS.md:\n{}", absent.join("\n"));
}

#[test]
fn the_two_commands_of_the_readme_are_there() {
    let text = read("README.md");
    for (section, command) in [("## Quick start", "deploy/quickstart"), ("## Tests", "tests/run")] {
        let body = text.split_once(section).unwrap().1;
        let block = body.split("```").nth(1).unwrap();
        assert_eq!(block.strip_prefix("sh\n").unwrap().trim(), command, "first code block of {section}");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(Path::new(ROOT).join(command)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o111, 0o111, "{command} can be run");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in
        ["README.md", "docs/SEMANTICS.md", "docs/OPERATIONS.md", "docs/CHANGELOG.md", "docs/ATTACKS.md"]
    {
        let text = read(document);
        let base = Path::new(ROOT).join(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let here = link.starts_with("http") || base.parent().unwrap().join(link).exists();
            assert!(here, "{document} links to {link}");
        }
    }
}
