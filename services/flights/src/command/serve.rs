//! `flights serve`: one instance of the service.

use clap::Args;
use flights::kind_definition;
use freehold::Service;

/// Which instance this is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    instance: records::InstanceArguments,
}

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let config = options.instance.service_config()?;
    Ok(Service::builder("flights", config).kind(kind_definition()).run().await?)
}
