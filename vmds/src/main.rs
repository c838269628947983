//! The `vmds` program: see [`vmds::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    vmds::run()
}
