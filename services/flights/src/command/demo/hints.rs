//! What to try on the sites that `--keep` leaves running.

use std::fmt::Write;

use super::deployment::Deployment;
use super::instance::Instance;
use crate::command::input::Input;

/// Commands to copy.
pub(super) fn what_to_try(deployment: &Deployment, input: &Input) -> String {
    let mut text = String::from("\nEverything goes on running until Ctrl-C.\n");
    // Writing into a string does not fail.
    let _ = write_hints(&mut text, deployment, input);
    text
}

fn write_hints(text: &mut String, deployment: &Deployment, input: &Input) -> std::fmt::Result {
    let urls: Vec<_> = deployment.urls().unwrap_or_default();
    let Some(first) = urls.first().map(|url| url.url.as_str()) else { return Ok(()) };
    let other = urls.last().map_or(first, |url| url.url.as_str());
    for url in &urls {
        let Some(site) = &url.site else { continue };
        let instances = deployment.instances().iter().filter(|instance| instance.site() == site);
        let instance = |it: &Instance| format!("{} (pid {})", it.name(), it.pid());
        writeln!(text, "  {site}  {}  {}", url.url, instances.map(instance).collect::<Vec<_>>().join(", "))?;
    }
    let flight = r#"'{"id":"EWR-20130101-UA1545"}'"#;
    writeln!(
        text,
        "\nRead a flight of ewr at another site, then try to cancel it (it has arrived: rejected), then look back:"
    )?;
    writeln!(text, "  nats -s {other} req freehold.flight.get {flight}")?;
    writeln!(text, "  nats -s {first} req freehold.flight.cancel {flight} -H Freehold-Command-Id:mine")?;
    writeln!(text, "  nats -s {first} req freehold.flight.history {flight}")?;
    writeln!(text, "  nats -s {first} micro info flights")?;
    writeln!(
        text,
        "\nThe same with freehold (cargo run --release --package freehold-cli --), and the proof that all copies are equal:"
    )?;
    writeln!(text, "  freehold get flight EWR-20130101-UA1545 --url {other}")?;
    writeln!(text, "  freehold history flight EWR-20130101-UA1545 --url {first}")?;
    writeln!(text, "  freehold status --url {first}")?;
    let named: Vec<_> = urls.iter().filter_map(|url| Some((url.site.as_ref()?, &url.url))).collect();
    let sites: Vec<_> = named.iter().map(|(site, _)| site.as_str()).collect();
    writeln!(text, "  freehold verify --url {first} --sites {} --kind flight", sites.join(","))?;
    writeln!(text, "\nKill an instance, and load again: nothing is done twice.")?;
    if let Some(instance) = deployment.instances().first() {
        writeln!(text, "  kill -9 {}", instance.pid())?;
    }
    let urls: Vec<_> = named.iter().map(|(site, url)| format!("--url {site}={url}")).collect();
    write!(text, "  cargo run --release --package flights -- load{} {}", input.flag(), urls.join(" "))
}
