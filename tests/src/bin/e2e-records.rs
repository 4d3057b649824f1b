//! The `records` command as its users run it: cargo builds another package's program only for that package's own tests.

fn main() -> anyhow::Result<()> {
    records::main_with(std::env::args_os())
}
