//! The VMDS controller: the daemon that owns the address map, and `vmdsctl`, which talks to it.
//!
//! Control flows `CLI -> API -> store -> watch -> queue -> reconcile -> services`, and back as status. Reading order:
//! [`resource`] for what can be wanted, [`store`] and [`watch`] for how it is kept and told, [`reconcile`] for how it
//! comes about, [`services`] for what that rests on, [`api`] and [`cli`] for how people reach it, [`daemon`] for how
//! all is put together.

pub mod agent;
pub mod api;
pub mod assemble;
pub mod audit;
pub mod cli;
pub mod config;
pub mod daemon;
mod file_clock;
pub mod housekeeping;
mod import;
pub mod informer;
pub mod lease;
pub mod logging;
pub mod map_service;
pub mod metrics;
pub mod placement;
pub mod pool;
pub mod queue;
pub mod reconcile;
pub mod resource;
pub mod services;
pub mod session;
pub mod share;
pub mod store;
pub mod sweeper;
mod throttle;
pub mod watch;

pub use cli::run_ctl;
pub use daemon::run_controller;
