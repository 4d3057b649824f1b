//! The `records` command.

fn main() -> anyhow::Result<()> {
    records::main_with(std::env::args_os())
}
