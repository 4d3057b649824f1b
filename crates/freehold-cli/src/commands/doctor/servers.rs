//! What only a server's monitoring port tells.

use serde::Deserialize;

use freehold_sandbox::read_monitoring;

use super::{Findings, Weight};

const SYNC: &str = "with the default of 2 minutes a power loss takes what the log took last, unless sites=N has confirmed it: set it to always, \
                    or name the servers' monitoring ports (--monitoring) to have it looked at";

/// `/varz`, the part that matters here.
#[derive(Deserialize)]
struct ServerState {
    server_name: String,
    jetstream: JetStream,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JetStream {
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
    /// In nanoseconds.
    #[serde(default)]
    sync_interval: u64,
}

/// Asks each of these monitoring ports, `host:port`.
pub(super) async fn look_at_servers(addresses: &[String], findings: &mut Findings) {
    if addresses.is_empty() {
        findings.add(Weight::Look, "", "sync_interval", "cannot be seen from here", SYNC);
    }
    for address in addresses {
        match read_monitoring::<ServerState>(address, "/varz").await {
            Ok(ServerState { server_name, jetstream: JetStream { config: Some(config) } }) => {
                let found = match config.sync_always {
                    true => "always".to_owned(),
                    false => format!("{} s", config.sync_interval / 1_000_000_000),
                };
                let what = format!("{server_name}: sync_interval");
                findings.check(config.sync_always, Weight::Look, "", &what, found, SYNC);
            }
            // A hub stores nothing.
            Ok(ServerState { server_name, .. }) => {
                findings.add(Weight::Fine, "", &server_name, "no JetStream", "");
            }
            Err(error) => {
                let mend = "is this the host and port of `http` in the server's configuration?";
                findings.add(Weight::Look, "", &format!("monitoring at {address}"), error.to_string(), mend);
            }
        }
    }
}
