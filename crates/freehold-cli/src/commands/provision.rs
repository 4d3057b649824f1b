//! `freehold provision`: what a site's servers must have, made once or shown.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use freehold_core::{KindName, KindSettings, Retention, SiteName};
use freehold_jetstream::{Client, PlanStep, ProvisionOptions, plan};

use crate::arguments::ProvisionArguments;
use crate::commands::permissions;
use crate::context::Context;
use crate::failure::Verdict;
use crate::printer;
use crate::settings::Settings;

/// What the steps were at one site.
#[derive(Debug, Serialize)]
struct SiteSteps {
    site: SiteName,
    steps: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    dry_run: bool,
    sites: Vec<SiteSteps>,
}

pub(crate) async fn run(context: &Context, arguments: ProvisionArguments) -> anyhow::Result<Verdict> {
    let dry_run = arguments.dry_run;
    if arguments.permissions {
        return print_permissions(context, &arguments);
    }
    let (targets, options) = options(&context.settings, arguments)?;
    let client = context.connect().await?;
    let mut report = Report { dry_run, sites: Vec::new() };
    for site in &targets {
        let steps = plan(&client.connection().in_domain(site), &options.at(site, &options.sites)).await;
        let steps = steps.with_context(|| format!("site {site} at {}", context.url()))?.steps;
        report.sites.push(SiteSteps { site: site.clone(), steps: steps.iter().map(PlanStep::to_string).collect() });
    }
    if !dry_run {
        carry_out(&client, &targets, &options).await?;
    }
    if context.json {
        printer::json(&report)?;
        return Ok(Verdict::Yes);
    }
    let mut table = printer::table_of(&["site", if dry_run { "would do" } else { "done" }]);
    for SiteSteps { site, steps } in &report.sites {
        if steps.is_empty() {
            table.add_row([site.as_str(), "no changes"]);
        }
        for step in steps {
            table.add_row([site.as_str(), step]);
        }
    }
    printer::table(&table)?;
    Ok(Verdict::Yes)
}

fn print_permissions(context: &Context, arguments: &ProvisionArguments) -> anyhow::Result<Verdict> {
    let configured = &context.settings.sites;
    let sites = if arguments.sites.is_empty() { configured } else { &arguments.sites };
    let site = arguments.site.as_ref().or(context.settings.site.as_ref());
    let targets = site.map_or_else(|| sites.clone(), |site| vec![site.clone()]);
    ensure!(!targets.is_empty(), "no site is named: give --site or --sites");
    for target in &targets {
        let roles = permissions::roles(target, sites);
        if context.json {
            printer::json(&serde_json::json!({ "site": target, "roles": roles }))?;
        } else {
            permissions::print(target, &roles)?;
        }
    }
    Ok(Verdict::Yes)
}

/// What all sites have in common.
#[derive(Debug, Clone)]
pub(crate) struct SharedOptions {
    pub(crate) sites: Vec<SiteName>,
    pub(crate) kinds: Vec<(KindName, KindSettings)>,
    pub(crate) retention: Retention,
    pub(crate) replicas: Option<usize>,
    pub(crate) max_command_log_bytes: Option<i64>,
    pub(crate) duplicate_window_ms: Option<u64>,
    pub(crate) mirror_consumers: bool,
}

impl SharedOptions {
    /// The options of one site that mirrors these.
    fn at(&self, site: &SiteName, sites: &[SiteName]) -> ProvisionOptions {
        let mut options = ProvisionOptions::new(site.clone(), self.kinds.clone());
        options.sites = sites.to_vec();
        options.retention = self.retention;
        options.replicas = self.replicas.unwrap_or(options.replicas);
        options.max_command_log_bytes = self.max_command_log_bytes.unwrap_or(options.max_command_log_bytes);
        options.mirror_consumers = self.mirror_consumers;
        options.duplicate_window = self.duplicate_window_ms.map_or(options.duplicate_window, Duration::from_millis);
        options
    }
}

/// Makes what is missing at the sites: first the streams that mirrors read, then the mirrors. A mirror of a stream that is
/// not there yet is tried again only after a while.
pub(crate) async fn carry_out(client: &Client, targets: &[SiteName], options: &SharedOptions) -> anyhow::Result<()> {
    let alone = |site: &SiteName| vec![site.clone()];
    for sites_of in [&alone as &dyn Fn(&SiteName) -> Vec<SiteName>, &|_: &SiteName| options.sites.clone()] {
        for site in targets {
            let connection = client.connection().in_domain(site);
            let missing = plan(&connection, &options.at(site, &sites_of(site))).await?;
            missing.carry_out(&connection).await?;
        }
    }
    Ok(())
}

/// Flags above the configuration.
fn options(settings: &Settings, arguments: ProvisionArguments) -> anyhow::Result<(Vec<SiteName>, SharedOptions)> {
    let site = arguments.site.or_else(|| if arguments.sites.is_empty() { settings.site.clone() } else { None });
    let given = |given: Vec<_>, configured: &[_]| if given.is_empty() { configured.to_vec() } else { given };
    let mut sites = given(arguments.sites, &settings.sites);
    if let Some(site) = site.as_ref().filter(|site| !sites.contains(site)) {
        sites.insert(0, site.clone());
    }
    let kinds = if arguments.kinds.is_empty() { settings.kinds.clone() } else { arguments.kinds };
    ensure!(!sites.is_empty(), "no site is named: give --site or --sites");
    ensure!(!kinds.is_empty(), "no kind is named: give --kind");
    let mut groups = KindSettings::default();
    groups.groups = arguments.groups.or(settings.groups).unwrap_or(groups.groups);
    let default = settings.retention();
    let retention = Retention {
        outcomes_ms: arguments.outcomes_ms.unwrap_or(default.outcomes_ms),
        history: arguments.history.unwrap_or(default.history),
    };
    ensure!(retention.history >= 8, "--history is {}: at least 8 updates of a record must be kept", retention.history);
    ensure!(retention.outcomes_ms >= 1_000, "--outcomes-ms is {}: at least 1000", retention.outcomes_ms);
    let replicas = arguments.replicas.or(settings.replicas);
    ensure!(replicas.is_none_or(|count| matches!(count, 1 | 3 | 5)), "--replicas is 1, 3 or 5");
    let shared = SharedOptions {
        kinds: kinds.into_iter().map(|kind| (kind, groups.clone())).collect(),
        retention,
        replicas,
        max_command_log_bytes: arguments.max_command_log_bytes.or(settings.max_command_log_bytes),
        duplicate_window_ms: arguments.duplicate_window_ms.or(settings.duplicate_window_ms),
        mirror_consumers: arguments.mirror_consumers || settings.mirror_consumers,
        sites,
    };
    let targets = site.map_or_else(|| shared.sites.clone(), |site| vec![site]);
    Ok((targets, shared))
}
