//! Whatever comes in: it works or is refused with its stable code, a refusal changes nothing, and the service goes on.
//!
//! Callers here are plain NATS connections: the toolkit's own client would not let most of this out.

#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

#[path = "../packages/mod.rs"]
mod packages;

mod command_log;
mod full_log;
mod headers;
mod ids;
mod overload;
mod place;
mod requests;
mod sizes;
mod start;
