//! The `vmds-controller` binary as the tests run it. Nothing but the library's entry.

fn main() -> std::process::ExitCode {
    controller::run_controller()
}
