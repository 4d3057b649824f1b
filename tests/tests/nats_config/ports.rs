//! Free ports for the ports in the files, reserved over the whole machine while their servers live.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// Above the ports that sandboxes pick, and below those that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 30_000..32_768;
/// What a port stands behind in the files.
const HOST: &str = "127.0.0.1:";

/// The ports of one deployment: for each one in its files another one that is free.
#[derive(Default)]
pub(crate) struct Ports {
    picked: BTreeMap<u16, (u16, File)>,
}

impl Ports {
    /// The port that stands for one in the files; the same one each time.
    pub(crate) fn of(&mut self, written: u16) -> Result<u16> {
        if let Some((port, _)) = self.picked.get(&written) {
            return Ok(*port);
        }
        let (port, lock) = pick()?;
        self.picked.insert(written, (port, lock));
        Ok(port)
    }

    /// A file's text with other ports, and nothing else changed.
    pub(crate) fn rewrite(&mut self, text: &str) -> Result<String> {
        let mut parts = text.split(HOST);
        let mut rewritten = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.len() - part.trim_start_matches(|character: char| character.is_ascii_digit()).len();
            let (port, rest) = part.split_at(digits);
            let port = self.of(port.parse().with_context(|| format!("{HOST}{part}"))?)?;
            rewritten.push_str(&format!("{HOST}{port}{rest}"));
        }
        Ok(rewritten)
    }
}

fn pick() -> Result<(u16, File)> {
    let directory = std::env::temp_dir().join("freehold-nats-config-ports");
    std::fs::create_dir_all(&directory)?;
    let start = rand::random_range(0..PORTS.len());
    for port in PORTS.clone().cycle().skip(start).take(PORTS.len()) {
        let path = directory.join(port.to_string());
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        if file.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok((port, file));
        }
    }
    anyhow::bail!("no port is free")
}
