//! What Freehold must survive within a site, one test a scenario, with real nats-servers and real processes.
//!
//! Faults come from outside: processes are killed and paused, servers too, and a gate between an instance and its server
//! loses, delays and cuts what a scenario names (`src/gate.rs`). Each test reads the logs back in the end and checks what
//! must hold of every log (`src/audit.rs`).

#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

mod audit;
mod callers;
mod crashes;
mod exclusive;
mod given;
mod history;
mod poison;
mod retries;
mod rules;
mod servers;
mod sites;
mod store;
