//! What the controllers of a world have logged.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::World;

/// What it logs of a VMDS that asks for what no honest one does. All VMDSes are honest unless a test captures one.
const ACCUSATION: &str = "refused what no honest VMDS asks for";

impl World {
    /// What the controller, in its present life, has printed.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What the controller, in its present life, has logged: the fields of each event.
    pub fn logged(&self) -> Vec<Value> {
        events(&self.log())
    }

    /// What any controller of this world has logged of its VMDSes that no honest one gives reason for.
    pub fn accusations(&self) -> Vec<Value> {
        let logs = (1..=self.starts).filter_map(|start| fs::read(self.log_of(start)).ok());
        let events = logs.flat_map(|log| events(&String::from_utf8_lossy(&log)));
        events.filter(|event| event["message"] == ACCUSATION).collect()
    }

    /// The log of the controller that was started last.
    pub(super) fn log_path(&self) -> PathBuf {
        self.log_of(self.starts)
    }

    /// The log of the controller that was started as this one, counted from 1.
    fn log_of(&self, start: u32) -> PathBuf {
        self.dir().join(format!("controller-{start}.log"))
    }
}

/// The events of a log; lines that are none are no JSON.
fn events(log: &str) -> Vec<Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
