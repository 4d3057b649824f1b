//! What must hold for all inputs, not for chosen ones: ids, assignment, digests, the folding of flushes, repeats and copies.
//!
//! Everything goes through the public face: flushes are decided by a real holder on a [`bench::Bench`], whose two logs take
//! and answer everything at once.

#![allow(clippy::unwrap_used, reason = "a property that cannot be checked has failed")]

mod assignment;
mod bench;
mod commands;
mod copies;
mod digests;
mod folding;
mod ids;
#[allow(dead_code, reason = "shared with the simulation, which uses the rest")]
#[path = "../simulation/memory_copy.rs"]
mod memory_copy;
mod repeats;
#[allow(dead_code, reason = "shared with the simulation, which uses the rest")]
#[path = "../simulation/rules.rs"]
mod rules;
