//! The protocol driven through crashes, delays, losses and duplicates: see docs/testing.md and SCENARIOS.
//!
//! `random` draws everything from a seed (`FREEHOLD_SEED=n` runs one, `FREEHOLD_SEEDS=n` so many); `scenarios` tells the
//! numbered stories one by one. Both use the same [`world::World`] and are judged by the same [`oracle::Oracle`], which
//! looks at nothing but the records log.

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
