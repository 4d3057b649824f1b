//! The built `flights` command against real nats-servers.

mod demo;
mod given;
mod load;
