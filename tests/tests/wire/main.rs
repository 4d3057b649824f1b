//! The wire contract as strangers meet it: the examples of `docs/wire.md`, run from the page with clients in other languages against
//! real services, and what the page promises beside them.

#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

#[path = "../packages/mod.rs"]
mod packages;

mod document;
mod examples;
mod schemas;
mod services;
mod statistics;
