//! `freehold restore`: a site whose log was lost, or put back from an old copy, gets it back from another site's mirror.

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use freehold_jetstream::{MirrorState, SitesLog};

use crate::arguments::RestoreArguments;
use crate::context::Context;
use crate::discovery::discover;
use crate::failure::Verdict;
use crate::printer;

pub(crate) async fn run(context: &Context, arguments: RestoreArguments) -> anyhow::Result<Verdict> {
    let RestoreArguments { site, sites, yes } = arguments;
    let client = context.connect().await?;
    let instances = discover(&client).await?;
    if let Some(instance) = instances.iter().find(|instance| instance.site == site) {
        bail!("instance {} of {site} is running: stop all instances of the site first", instance.name);
    }
    let mut others = if sites.is_empty() { context.settings.sites.clone() } else { sites };
    if others.is_empty() {
        others = instances.iter().map(|instance| instance.site.clone()).collect();
    }
    others.retain(|other| *other != site);
    ensure!(!others.is_empty(), "no other site is known: name --sites");
    let here = SitesLog::new(client.connection().in_domain(&site), site.clone());
    let MirrorState { last: ours, is_restoring, .. } =
        here.mirror(&site).await.with_context(|| format!("site {site}: provision it first"))?;
    let mut furthest = None;
    for other in &others {
        let there = SitesLog::new(client.connection().in_domain(other), other.clone());
        let last = there.mirror(&site).await.with_context(|| format!("site {other}"))?.last;
        if furthest.as_ref().is_none_or(|(most, _)| last > *most) {
            furthest = Some((last, other.clone()));
        }
    }
    let Some((theirs, from)) = furthest.filter(|(theirs, _)| *theirs > ours || is_restoring) else {
        let text = format!("nothing is to be restored: the log of {site} ends at {ours}, and no site has more");
        if context.json {
            printer::json(&json!({ "site": site, "restored": false, "last": ours }))?;
        }
        printer::note(text);
        return Ok(Verdict::Yes);
    };
    if !yes {
        bail!(
            "the log of {site} ends at {ours}, and {from} has it up to {theirs}: with --yes it is removed and made anew from \
             there. What {site} has behind {ours} that {from} does not have is lost"
        );
    }
    let there = SitesLog::new(client.connection().in_domain(&from), from.clone());
    let life = there.newest_life_of(&site).await?;
    let style = ProgressStyle::with_template("restoring {bar:30} {human_pos}/{human_len} messages {per_sec} {eta}");
    let progress = ProgressBar::new(theirs.0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    here.restore(&from, theirs, &life, |have| progress.set_position(have.0)).await?;
    progress.finish_and_clear();
    if context.json {
        printer::json(&json!({ "site": site, "restored": true, "from": from, "last": theirs }))?;
    } else {
        printer::note(format!("the log of {site} is restored from {from}, up to {theirs}: start its instances"));
    }
    Ok(Verdict::Yes)
}
