//! `vmdsctl` in a world: run it, and judge how it answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::World;
use super::object_store::POOL;
use crate::process::{Outcome, run};

impl World {
    /// A `vmdsctl` command for this world's controller.
    pub fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binaries.ctl);
        command.arg("--run-dir").arg(self.run_dir()).args(arguments);
        command
    }

    /// Runs `vmdsctl`; it must succeed. Gives what it printed.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let outcome = run(&mut self.ctl_command(arguments));
        assert!(outcome.status.success(), "{outcome}\n--- controller ---\n{}", self.log());
        outcome.stdout
    }

    /// Runs `vmdsctl -o json`; it must succeed. Gives what it printed.
    #[track_caller]
    pub fn ctl_json(&self, arguments: &[&str]) -> Value {
        let printed = self.ctl(&[&["-o", "json"], arguments].concat());
        serde_json::from_str(&printed)
            .unwrap_or_else(|e| panic!("{arguments:?} printed no JSON ({e}):\n{printed}"))
    }

    /// Runs `vmdsctl`; it must refuse with exit code 1 and one sentence that says why, and at most one hint
    /// what to do. Gives both.
    #[track_caller]
    pub fn ctl_refuses(&self, arguments: &[&str]) -> String {
        let outcome = run(&mut self.ctl_command(arguments));
        assert_eq!(outcome.status.code(), Some(1), "{outcome}\n--- controller ---\n{}", self.log());
        sentence(&outcome)
    }

    /// Creates a tenant.
    #[track_caller]
    pub fn tenant(&self, name: &str) {
        self.tenant_with(name, &[]);
    }

    /// Creates a tenant with more options.
    #[track_caller]
    pub fn tenant_with(&self, name: &str, options: &[&str]) {
        let pool: &[&str] = if self.objects.is_some() { &["--pool", POOL] } else { &[] };
        self.ctl(&[&["tenant", "create", name], pool, options].concat());
    }

    /// Mounts a tenant at its mount point of this world.
    #[track_caller]
    pub fn mount(&self, tenant: &str) -> PathBuf {
        let dir = self.mount_point(tenant);
        fs::create_dir_all(&dir).expect("make a mount point");
        self.mount_at(tenant, &dir, &[]);
        dir
    }

    /// Mounts a tenant somewhere, with options.
    #[track_caller]
    pub fn mount_at(&self, tenant: &str, dir: &Path, options: &[&str]) {
        let dir = dir.to_str().expect("test paths are text");
        self.ctl(&[&["mount", tenant, dir], options].concat());
        self.vmdses();
    }

    /// Creates a tenant and mounts it.
    #[track_caller]
    pub fn mounted(&self, tenant: &str) -> PathBuf {
        self.tenant(tenant);
        self.mount(tenant)
    }
}

/// The sentence of a refused command, and the hint below it if there is one; fails the test if it says anything else.
#[track_caller]
fn sentence(outcome: &Outcome) -> String {
    let said = outcome.stderr.trim_end_matches('\n');
    let lines: Vec<&str> = said.lines().collect();
    let good = match lines[..] {
        [error] => error.starts_with("error: "),
        [error, hint] => error.starts_with("error: ") && hint.starts_with("hint: "),
        _ => false,
    };
    assert!(good && !said.contains(char::REPLACEMENT_CHARACTER), "not one sentence and a hint:\n{outcome}");
    said.to_owned()
}
