//! The configurations in nats-config do what they say: each is started from its files, in the way its README says it, the real
//! service runs on it, and what it is to keep out is tried.
//!
//! Only port numbers are rewritten, since the ones in the files may be taken. Nothing is skipped: without a nats-server this fails.

mod cluster_two_sites;
mod deployment;
mod one_site;
mod peer;
mod ports;
mod refusals;
mod roles;
mod secure;
mod secure_two_sites;
mod three_sites;
