//! The store through its public face: what is written is read, what is damaged is refused.

// The helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod copy;
mod damage;
mod expiry;
mod given;
mod opening;
