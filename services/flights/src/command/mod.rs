//! What the `flights` command does, one file or directory a subcommand.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod input;
pub(crate) mod load;
pub(crate) mod printer;
pub(crate) mod serve;
