//! Picks TCP ports that must be known before the server that will listen on them has started.
//!
//! Ports are picked below the range that the system uses for outgoing connections, and stay reserved by a lock file
//! while their server lives: otherwise a port could be taken by anybody while its server is down between a kill and a
//! restart.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use crate::file_lock;

/// Below 32768 (Linux) and 49152 (others), where the ports of outgoing connections begin.
const FIRST_PORT: u16 = 10_000;
const PORT_COUNT: u16 = 20_000;
/// More tries than this mean that something else is wrong.
const MAX_TRIES: u16 = 1_000;

/// A port that no other sandbox on this machine will pick while this lives.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    port: u16,
    /// Holds the reservation; `None` for a port that the caller named.
    _lock: Option<File>,
}

impl ReservedPort {
    /// Picks a port that is free now.
    pub(crate) fn pick() -> io::Result<Self> {
        // One directory for each user: nobody can open the lock files of another.
        let user = std::env::var("USER").unwrap_or_default();
        let directory = std::env::temp_dir().join(format!("freehold-ports-{user}"));
        std::fs::create_dir_all(&directory)?;
        let start = RandomState::new().build_hasher().finish();
        for try_number in 0..MAX_TRIES {
            let offset = (start.wrapping_add(u64::from(try_number) * 7919) % u64::from(PORT_COUNT)) as u16;
            let port = FIRST_PORT + offset;
            let Some(lock) = file_lock::try_lock(&directory.join(port.to_string()))? else { continue };
            if is_free(port) {
                return Ok(Self { port, _lock: Some(lock) });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no free port found in {MAX_TRIES} tries")))
    }

    /// A port that the caller has chosen.
    pub(crate) fn named(port: u16) -> Self {
        Self { port, _lock: None }
    }

    /// The port number.
    pub(crate) fn number(&self) -> u16 {
        self.port
    }
}

/// Whether a server could listen on this port of 127.0.0.1 now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn picked_ports_differ_while_they_are_held() {
        let held: Vec<_> = (0..50).map(|_| ReservedPort::pick().unwrap()).collect();
        let numbers: HashSet<_> = held.iter().map(ReservedPort::number).collect();
        assert_eq!(numbers.len(), held.len());
    }
}
