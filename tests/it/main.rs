//! End-to-end tests: real processes, real kernel mounts, real programs. One module per promise.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail right there")]

mod acls;
mod benchmarks;
mod coherence;
mod conformance;
mod crash_both;
mod crash_controller;
mod crash_vmds;
mod documents;
mod durability;
mod files;
mod help;
mod histories;
mod hung_pool;
mod import;
mod import_lazy;
mod isolation;
mod lifecycle;
mod listing;
mod locate;
mod locks;
mod memory;
mod metadata;
mod mounting;
mod names;
mod objects;
mod pool_check;
mod posix;
mod privileges;
mod programs;
mod quota;
mod refusals;
mod resources;
mod scale;
mod share_border;
mod share_end;
mod share_live;
mod share_names;
mod silent_vmds;
mod sqlite;
mod storms;
mod stressors;
mod trust;
mod upgrade;
