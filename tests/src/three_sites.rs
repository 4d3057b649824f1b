//! Three sites with instances in processes of their own, and links that can be cut.

use std::path::{Path, PathBuf};

use anyhow::Result;
use freehold::Client;
use freehold_core::SiteName;
use freehold_jetstream::{ProvisionOptions, plan};
use freehold_sandbox::Sandbox;

use crate::copies::{self, Asked};
use crate::counter;
use crate::place::{self, InstanceProcess};

/// The sites.
pub const SITES: [&str; 3] = ["ewr", "jfk", "lga"];

/// The sites, what runs there, and a client of each.
pub struct ThreeSites {
    /// Servers and links.
    pub sandbox: Sandbox,
    /// By site, then in the order in which they were named.
    pub instances: Vec<(&'static str, InstanceProcess)>,
    /// One for each site.
    pub clients: Vec<Client>,
    data: tempfile::TempDir,
}

impl ThreeSites {
    /// Starts instances of these names at each site. `service` is the path of `e2e-service`, which the test knows.
    pub async fn start(service: &str, instances: &[&str]) -> Result<Self> {
        let builder = SITES.iter().fold(Sandbox::builder(), |builder, site| builder.site(*site));
        let sandbox = builder.cuttable(true).start().await?;
        provision(&sandbox).await?;
        let data = tempfile::tempdir()?;
        let names = SITES.iter().map(|site| site.parse()).collect::<Result<Vec<SiteName>, _>>()?;
        let (mut started, mut clients) = (Vec::new(), Vec::new());
        for site in SITES {
            for instance in instances {
                let directory = directory(data.path(), site, instance);
                std::fs::create_dir_all(&directory)?;
                let mut config = place::config(sandbox.site(site), instance, &directory)?;
                config.sites = names.clone();
                started.push((site, InstanceProcess::start(service, &config, &directory).await?));
            }
            clients.push(place::client(sandbox.site(site)).await?);
        }
        Ok(Self { sandbox, instances: started, clients, data })
    }

    /// Kills a site's servers and instances.
    pub async fn kill(&self, site: &str) -> Result<()> {
        for server in self.sandbox.site(site).servers() {
            server.kill().await?;
        }
        self.kill_instances(site).await
    }

    /// Kills a site's instances.
    pub async fn kill_instances(&self, site: &str) -> Result<()> {
        for (_, instance) in self.instances.iter().filter(|(its, _)| *its == site) {
            instance.process().kill().await?;
        }
        Ok(())
    }

    /// Starts a site's servers again.
    pub async fn restart_servers(&self, site: &str) -> Result<()> {
        for server in self.sandbox.site(site).servers() {
            server.restart().await?;
        }
        Ok(())
    }

    /// Starts a site's instances again, and waits until they answer.
    pub async fn restart_instances(&mut self, site: &str) -> Result<()> {
        for (_, instance) in self.instances.iter_mut().filter(|(its, _)| *its == site) {
            instance.restart().await?;
        }
        Ok(())
    }

    /// Starts one instance of a site again, and waits until it answers.
    pub async fn restart_instance(&mut self, site: &str, name: &str) -> Result<()> {
        for (_, instance) in self.instances.iter_mut().filter(|(its, it)| *its == site && it.name == name) {
            instance.restart().await?;
        }
        Ok(())
    }

    /// The file of an instance's copy.
    pub fn copy_file(&self, site: &str, instance: &str) -> PathBuf {
        directory(self.data.path(), site, instance).join(format!("{site}-{instance}.redb"))
    }

    /// Waits until all instances have the same, and as many records over all logs as `records` says, if it does.
    pub async fn all_equal(&self, records: impl Into<Option<u64>>) -> Result<()> {
        self.same(|_| true, records).await
    }

    /// Waits until the instances of one site have the same.
    pub async fn equal_at(&self, site: &str) -> Result<()> {
        self.same(|its| its == site, None).await
    }

    async fn same(&self, wanted: impl Fn(&str) -> bool, records: impl Into<Option<u64>>) -> Result<()> {
        let of_site = |site: &str| SITES.iter().position(|it| *it == site).unwrap_or_default();
        let wanted = self.instances.iter().filter(|(site, _)| wanted(site));
        let asked: Vec<Asked<'_>> = wanted.map(|(site, it)| (&self.clients[of_site(site)], *site, it)).collect();
        copies::wait_same(&asked, records).await.map(|_| ())
    }
}

fn directory(data: &Path, site: &str, instance: &str) -> PathBuf {
    data.join(format!("{site}-{instance}"))
}

/// Makes the streams of all sites, and then their mirrors: a mirror of a stream that is not there yet is tried again only after a
/// while.
async fn provision(sandbox: &Sandbox) -> Result<()> {
    let sites = SITES.iter().map(|site| site.parse()).collect::<Result<Vec<SiteName>, _>>()?;
    let definition = counter::definition();
    for with_mirrors in [false, true] {
        for site in &sites {
            let client = place::client(sandbox.site(site.as_str())).await?;
            let kinds = vec![(definition.name.clone(), definition.shared_settings())];
            let mut options = ProvisionOptions::new(site.clone(), kinds);
            if with_mirrors {
                options.sites.clone_from(&sites);
            }
            plan(client.connection(), &options).await?.carry_out(client.connection()).await?;
        }
    }
    Ok(())
}
