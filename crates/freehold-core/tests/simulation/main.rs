//! The protocol driven through crashes, delays, losses and duplicates.
//!
//! `random` draws everything from a seed (`FREEHOLD_SEED=n` runs one, `FREEHOLD_SEEDS=n` so many) and is judged by the
//! [`oracle::Oracle`], which looks at nothing but the records log.

#![allow(clippy::unwrap_used, reason = "a simulation that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a failing seed is told on stderr")]

mod client;
mod command_log;
mod instance;
mod memory_copy;
mod oracle;
mod random;
mod records_log;
mod rules;
mod seeds;
mod verdict;
mod world;
