//! The store through its public face: what is written is read, what is damaged is refused.

mod copy;
mod damage;
mod expiry;
mod given;
mod opening;
