//! The `vmds-controller` program. Nothing but the library's entry.

fn main() -> std::process::ExitCode {
    controller::run_controller()
}
