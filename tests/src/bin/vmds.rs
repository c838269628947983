//! The `vmds` binary as the tests run it. Nothing but the library's entry.

fn main() -> std::process::ExitCode {
    vmds::run()
}
