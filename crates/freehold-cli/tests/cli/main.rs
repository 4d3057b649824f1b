//! The `freehold` command as its users run it: a process, its output and its exit code.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on may panic; only test functions are exempt by themselves"
)]

mod bad_input;
mod bench;
mod dev;
mod doctor;
mod guide;
mod provision;
mod support;
mod verify;
