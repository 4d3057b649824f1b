//! Writes nats-server's configuration language. Pure: options in, text out.

use std::fmt::Write;
use std::path::Path;

use super::options::{ClusterOptions, JetStreamOptions, LeafRemote, ServerOptions};

/// How long a server waits before it tries a lost leaf node link again; nats-server's own default is a second.
const LEAF_RECONNECT: &str = "250ms";

/// The ports of one server, all decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) leaf: Option<u16>,
}

/// The directories of one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directories<'a> {
    pub(super) ports_file: &'a Path,
    pub(super) jetstream: &'a Path,
}

/// The whole configuration file.
pub(super) fn render(options: &ServerOptions, ports: Ports, directories: Directories<'_>) -> String {
    let mut text = String::from("# Written by freehold-sandbox at each start.\n");
    line(&mut text, 0, "server_name", quoted(&options.name));
    line(&mut text, 0, "listen", listen(ports.client));
    line(&mut text, 0, "http", quoted("127.0.0.1:-1"));
    line(&mut text, 0, "ports_file_dir", quoted_path(directories.ports_file));
    if let Some(jetstream) = &options.jetstream {
        render_jetstream(&mut text, jetstream, directories.jetstream);
    }
    if ports.leaf.is_some() || !options.leaf_remotes.is_empty() {
        render_leaf_nodes(&mut text, ports.leaf, &options.leaf_remotes);
    }
    if let Some(cluster) = &options.cluster {
        render_cluster(&mut text, cluster);
    }
    text.push_str(&options.extra_config);
    text.push('\n');
    text
}

fn render_jetstream(text: &mut String, jetstream: &JetStreamOptions, store: &Path) {
    text.push_str("jetstream {\n");
    line(text, 1, "store_dir", quoted_path(store));
    if let Some(domain) = &jetstream.domain {
        line(text, 1, "domain", quoted(domain));
    }
    if jetstream.sync_always {
        line(text, 1, "sync_interval", "always");
    }
    if let Some(bytes) = jetstream.max_file_store_bytes {
        line(text, 1, "max_file_store", bytes);
    }
    if let Some(bytes) = jetstream.max_memory_store_bytes {
        line(text, 1, "max_memory_store", bytes);
    }
    text.push_str("}\n");
}

fn render_leaf_nodes(text: &mut String, port: Option<u16>, remotes: &[LeafRemote]) {
    text.push_str("leafnodes {\n");
    if let Some(port) = port {
        line(text, 1, "listen", listen(port));
        // Else the leaf nodes learn the listener's own address and go round the proxy that can cut them off.
        line(text, 1, "no_advertise", true);
    }
    line(text, 1, "reconnect", quoted(LEAF_RECONNECT));
    if !remotes.is_empty() {
        text.push_str("  remotes: [\n");
        for remote in remotes {
            text.push_str("    {\n");
            line(text, 3, "url", quoted(&remote.url));
            line(text, 3, "deny_imports", list(&remote.deny_imports));
            line(text, 3, "deny_exports", list(&remote.deny_exports));
            text.push_str(&remote.extra_config);
            text.push_str("\n    }\n");
        }
        text.push_str("  ]\n");
    }
    text.push_str("}\n");
}

fn render_cluster(text: &mut String, cluster: &ClusterOptions) {
    let routes: Vec<_> = cluster.route_ports.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
    text.push_str("cluster {\n");
    line(text, 1, "name", quoted(&cluster.name));
    line(text, 1, "listen", listen(cluster.port));
    line(text, 1, "no_advertise", true);
    line(text, 1, "routes", list(&routes));
    text.push_str("}\n");
}

fn line(text: &mut String, depth: usize, key: &str, value: impl std::fmt::Display) {
    let indent = depth * 2;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:indent$}{key}: {value}", "");
}

fn listen(port: u16) -> String {
    quoted(&format!("127.0.0.1:{port}"))
}

fn list(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_configuration_reads_as_expected() {
        let mut options = ServerOptions::new("ewr-1", "/data");
        options.jetstream = Some(JetStreamOptions {
            sync_always: true,
            max_file_store_bytes: Some(1 << 30),
            ..JetStreamOptions::in_domain("ewr")
        });
        let mut remote = LeafRemote::new("nats-leaf://127.0.0.1:7422");
        remote.deny_imports.push("fh.ewr.cmd.>".to_owned());
        options.leaf_remotes.push(remote);
        options.cluster = Some(ClusterOptions::new("ewr", 6222, vec![6222, 6223]));
        options.extra_config = "max_payload: 2MB".to_owned();

        let text = render(
            &options,
            Ports { client: 4222, leaf: Some(7422) },
            Directories { ports_file: Path::new("/data/a \"b\"/ports"), jetstream: Path::new("/data/js") },
        );

        assert_eq!(
            text,
            r#"# Written by freehold-sandbox at each start.
server_name: "ewr-1"
listen: "127.0.0.1:4222"
http: "127.0.0.1:-1"
ports_file_dir: "/data/a \"b\"/ports"
jetstream {
  store_dir: "/data/js"
  domain: "ewr"
  sync_interval: always
  max_file_store: 1073741824
}
leafnodes {
  listen: "127.0.0.1:7422"
  no_advertise: true
  reconnect: "250ms"
  remotes: [
    {
      url: "nats-leaf://127.0.0.1:7422"
      deny_imports: ["fh.ewr.cmd.>"]
      deny_exports: []

    }
  ]
}
cluster {
  name: "ewr"
  listen: "127.0.0.1:6222"
  no_advertise: true
  routes: ["nats-route://127.0.0.1:6222", "nats-route://127.0.0.1:6223"]
}
max_payload: 2MB
"#
        );
    }
}
