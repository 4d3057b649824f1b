//! The protocol driven through crashes, delays, losses and duplicates.
//!
//! `random` draws everything from a seed (`FREEHOLD_SEED=n` runs one, `FREEHOLD_SEEDS=n` so many); `scenarios` takes one
//! numbered case after the other, step by step. Both are judged by the [`oracle::Oracle`], which looks at nothing but the
//! records log.

#![allow(clippy::unwrap_used, reason = "a simulation that cannot go on has failed")]
#![allow(clippy::print_stderr, reason = "a failing seed is told on stderr")]

mod brief;
mod chance;
mod client;
mod command_log;
mod faults;
mod instance;
mod memory_copy;
mod oracle;
mod progress;
mod random;
mod records_log;
mod rules;
mod scenarios;
mod seeds;
mod verdict;
mod wire;
mod world;
