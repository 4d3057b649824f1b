//! The `freehold` command as its users run it: cargo builds another package's program only for that package's own tests.

fn main() -> std::process::ExitCode {
    freehold_cli::main()
}
