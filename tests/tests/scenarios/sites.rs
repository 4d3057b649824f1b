//! P4: three sites under load, an instance killed at each; then every copy of every instance is the same.

use anyhow::{Result, ensure};
use freehold_sandbox::Sandbox;
use freehold_tests::audit::RecordsLog;
use freehold_tests::copies;
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::workload::{self, Workload};

use crate::exclusive::progress;
use crate::given::{ASK_AGAIN, SERVICE};

const SITES: [&str; 3] = ["ewr", "jfk", "lax"];
/// Records of each site; each has a client of its own.
const RECORDS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn three_sites_under_load_converge_after_an_instance_is_killed_at_each() -> Result<()> {
    let builder = SITES.iter().fold(Sandbox::builder(), |builder, site| builder.site(*site));
    let sandbox = builder.start().await?;
    let directory = tempfile::tempdir()?;
    let (mut instances, mut clients, mut workloads) = (Vec::new(), Vec::new(), Vec::new());
    for site in SITES {
        for name in ["one", "two"] {
            let mut config = place::config(sandbox.site(site), name, directory.path())?;
            config.sites = SITES.iter().map(|site| site.parse()).collect::<Result<_, _>>()?;
            config.history = 100_000;
            let logs = directory.path().join(site);
            std::fs::create_dir_all(&logs)?;
            instances.push((site, InstanceProcess::start(SERVICE, &config, &logs).await?));
        }
        clients.push(place::client(sandbox.site(site)).await?);
    }
    for (site, client) in SITES.iter().zip(&clients) {
        workloads.push(Workload::start_asking_again(client, site, RECORDS, RECORDS, ASK_AGAIN));
    }
    for (place, workload) in workloads.iter().enumerate() {
        progress(workload, 100).await?;
        let (_, victim) = &mut instances[2 * place];
        victim.process().kill().await?;
        progress(workload, 50).await?;
        victim.restart().await?;
    }
    let mut sent = 0;
    for ((site, client), workload) in SITES.iter().zip(&clients).zip(workloads) {
        progress(&workload, 100).await?;
        sent += workload.finish(client, site).await?;
    }
    let asked: Vec<_> = (0..).zip(&instances).map(|(place, (site, it))| (&clients[place / 2], *site, it)).collect();
    let content = copies::wait_same(&asked, 3 * RECORDS as u64).await?;
    ensure!(content.len() == SITES.len(), "{content:?}");
    for site in SITES {
        RecordsLog::read(&sandbox.site(site).url(), site).await?.check()?;
        // What a caller reads is the same everywhere, too.
        let mut answers = Vec::new();
        for client in &clients {
            answers.push(workload::read(client, &format!("{site}-0")).await?);
        }
        ensure!(answers[0].changes > 0 && answers.windows(2).all(|pair| pair[0] == pair[1]), "{site}: {answers:?}");
    }
    println!("{sent} commands at three sites");
    Ok(())
}
