//! `freehold takeover`: what a lost site owned passes to another one.
//!
//! ```text
//!  ask every other site what it has ─▶ tell what is kept and what may be lost ─▶ confirm
//!     ─▶ every site seals the lost site's log under one ballot ─▶ the taker logs the takeover
//! ```
//!
//! What makes it safe is in the logs of the sites; this only brings it about, and may be interrupted anywhere.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;

use freehold_core::{Ballot, ErrorCode, KindName, Refusal, SiteName, StreamSequence, Term, subject};
use freehold_jetstream::{Client, SendOptions};
use freehold_runtime::{LossAnswer, LossRequest, SealAnswer, SealRequest, TakeOverAnswer, TakeOverRequest};

use crate::arguments::TakeoverArguments;
use crate::context::Context;
use crate::discovery::discover;
use crate::failure::{Verdict, one_line};
use crate::printer;

/// What is kept and what is lost, as far as the other sites can know.
#[derive(Debug, Serialize)]
struct Extent {
    lost: SiteName,
    by: SiteName,
    /// Everything up to here counts.
    cut: StreamSequence,
    /// When the lost site logged that.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_at: Option<String>,
    /// The furthest that any site has seen of the log.
    last_seen: StreamSequence,
    /// How long ago, in milliseconds; what the lost site has logged since, nobody else can know.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_ms_ago: Option<u64>,
    /// Messages that are certainly missing.
    missing_at_least: u64,
    members: Vec<LossAnswer>,
    without: Vec<SiteName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
    taken_over: bool,
}

impl Extent {
    fn of(lost: SiteName, by: SiteName, members: Vec<LossAnswer>, without: Vec<SiteName>) -> Self {
        let cut = members.iter().map(|member| member.position).max().unwrap_or_default();
        let seen = members.iter().filter_map(|member| Some((member.last_seen?, member.seen_ms_ago)));
        let furthest = seen.max_by_key(|(sequence, ago)| (*sequence, std::cmp::Reverse(*ago)));
        let last_seen = furthest.map(|(sequence, _)| sequence).unwrap_or_default().max(cut);
        let seen_ms_ago = members.iter().filter_map(|member| member.seen_ms_ago).min();
        let missing_at_least = last_seen.0 - cut.0;
        let (cut_at, term) = (None, None);
        Self {
            lost,
            by,
            cut,
            cut_at,
            last_seen,
            seen_ms_ago,
            missing_at_least,
            members,
            without,
            term,
            taken_over: false,
        }
    }

    fn print(&self) -> anyhow::Result<()> {
        let mut table = printer::table_of(&["site", "has the log up to", "has seen it at", "ms ago"]);
        for LossAnswer { site, position, last_seen, seen_ms_ago, .. } in &self.members {
            let seen = last_seen.map_or("never".to_owned(), |sequence| sequence.to_string());
            let ago = seen_ms_ago.map_or("–".to_owned(), |ago| ago.to_string());
            table.add_row([site.to_string(), position.to_string(), seen, ago]);
        }
        printer::table(&table)?;
        let Self { lost, cut, missing_at_least, .. } = self;
        printer::note(format!("kept: everything that {lost} logged up to {cut}"));
        match self.seen_ms_ago {
            Some(ago) if *missing_at_least == 0 => printer::note(format!(
                "missing: nothing that was seen; what {lost} logged since it was last seen, {ago} ms ago, nobody here can know"
            )),
            Some(ago) => printer::note(format!(
                "missing: {missing_at_least} messages that were seen and not mirrored, and what {lost} logged since, {ago} ms ago"
            )),
            None => printer::note(format!("missing: what {lost} logged behind that, which nobody here has seen")),
        }
        if !self.without.is_empty() {
            let names: Vec<_> = self.without.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            printer::note(format!(
                "not asked: {names}. What only {names} has of {lost}'s log is lost, too, and so is what {names} decided on it"
            ));
        }
        Ok(())
    }
}

/// Asks one site.
struct Operator<'a> {
    client: &'a Client,
    kind: KindName,
    options: SendOptions,
}

impl Operator<'_> {
    async fn ask<A: DeserializeOwned>(
        &self,
        site: &SiteName,
        what: &str,
        request: &impl Serialize,
    ) -> anyhow::Result<Result<A, Refusal>> {
        let body = Bytes::from(serde_json::to_vec(request)?);
        let subject = subject::operator(site, &self.kind, what);
        let answer = self.client.request_to(subject, body, &self.options).await;
        let answer = answer.with_context(|| format!("site {site} does not answer"))?;
        Ok(match answer.result {
            Ok(body) => Ok(serde_json::from_slice(&body)?),
            Err(refusal) => Err(refusal),
        })
    }

    /// Asks all; one that does not answer must be left out by the operator.
    async fn ask_all<A: DeserializeOwned>(
        &self,
        sites: &[SiteName],
        what: &str,
        request: &impl Serialize,
    ) -> anyhow::Result<Result<Vec<A>, Refusal>> {
        let answers = join_all(sites.iter().map(|site| self.ask::<A>(site, what, request))).await;
        let mut found = Vec::new();
        for (site, answer) in sites.iter().zip(answers) {
            match answer {
                Ok(Ok(answer)) => found.push(answer),
                Ok(Err(refusal)) => return Ok(Err(refusal)),
                Err(error) => bail!("{}: go on --without {site} if it is lost, too", one_line(&error)),
            }
        }
        Ok(Ok(found))
    }
}

pub(crate) async fn run(context: &Context, arguments: TakeoverArguments) -> anyhow::Result<Verdict> {
    let TakeoverArguments { lost, by, sites, without, kind, yes, dry_run } = arguments;
    ensure!(lost != by, "--lost and --by are the same site");
    ensure!(!without.contains(&by), "--by and --without are the same site");
    let client = context.connect().await?;
    let (kind, sites) = match (kind, sites) {
        (Some(kind), sites) if !sites.is_empty() => (kind, sites),
        (kind, sites) => find_sites(context, &client, kind, sites).await?,
    };
    let members: Vec<_> = sites.into_iter().filter(|site| *site != lost && !without.contains(site)).collect();
    ensure!(members.contains(&by), "site {by} does not answer");
    let options = SendOptions { timeout: context.timeout(), ..SendOptions::default() };
    let operator = Operator { client: &client, kind, options };

    let known = match operator.ask_all::<LossAnswer>(&members, "loss", &LossRequest { lost: lost.clone() }).await? {
        Ok(known) => known,
        Err(refusal) => return context.refused(&refusal),
    };
    if let Some(taken) = known.iter().find_map(|answer| answer.taken_over_by.clone()) {
        let text = format!("{lost} was taken over by {} in term {}", taken.taker, taken.term);
        return context.refused(&Refusal::new(ErrorCode::Conflict, text));
    }
    let term = ballot_term(&known, &by);
    let mut extent = Extent::of(lost.clone(), by.clone(), known, without);
    if !context.json {
        extent.print()?;
    }
    if dry_run {
        if context.json {
            printer::json(&extent)?;
        }
        return Ok(Verdict::Yes);
    }
    if !yes && !confirm(&lost, &by)? {
        printer::note("nothing was done");
        return Ok(Verdict::No);
    }
    let ballot = Ballot { term, taker: by.clone() };
    // The taker seals first: a rival that comes later finds that out before it has asked anybody else.
    let (first, rest): (Vec<_>, Vec<_>) = members.into_iter().partition(|site| *site == by);
    let request = SealRequest { lost: lost.clone(), ballot: ballot.clone() };
    let mut sealed: Vec<SealAnswer> = Vec::new();
    for sites in [first, rest] {
        match operator.ask_all(&sites, "seal", &request).await? {
            Ok(answers) => sealed.extend(answers),
            Err(refusal) => return context.refused(&refusal),
        }
    }
    let request = TakeOverRequest { lost: lost.clone(), ballot, sealed };
    let taken: TakeOverAnswer = match operator.ask(&by, "take-over", &request).await? {
        Ok(taken) => taken,
        Err(refusal) => return context.refused(&refusal),
    };
    extent.cut = taken.cut;
    extent.missing_at_least = extent.last_seen.0.saturating_sub(taken.cut.0);
    extent.cut_at = taken
        .cut_ms
        .and_then(|time| i64::try_from(time.0).ok())
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map(|time| time.to_string());
    extent.term = Some(term);
    extent.taken_over = true;
    if context.json {
        printer::json(&extent)?;
    } else {
        let until = extent.cut_at.map(|time| format!(", logged at {time}")).unwrap_or_default();
        printer::note(format!("{by} owns what {lost} owned, in term {term}. The cut is at {}{until}", taken.cut));
        if !taken.is_ready {
            printer::note(format!("{by} has not read all up to the cut yet: until then commands wait"));
        }
    }
    Ok(Verdict::Yes)
}

/// Higher than all that was heard of, unless this very takeover was begun and not ended.
fn ballot_term(known: &[LossAnswer], by: &SiteName) -> Term {
    let newest = known.iter().map(|answer| answer.newest_term).max().unwrap_or_default();
    let begun = |answer: &LossAnswer| answer.sealed_for.as_ref().is_some_and(|it| it.taker == *by && it.term == newest);
    if known.iter().any(begun) { newest } else { newest.next() }
}

/// The sites that answer, and a kind that they serve.
async fn find_sites(
    context: &Context,
    client: &Client,
    kind: Option<KindName>,
    sites: Vec<SiteName>,
) -> anyhow::Result<(KindName, Vec<SiteName>)> {
    let instances = discover(client).await?;
    let kind = kind.or_else(|| instances.iter().flat_map(|instance| instance.kinds.clone()).min());
    let kind = kind.with_context(|| format!("no instance answers at {}: is one running?", context.url()))?;
    let mut found = if sites.is_empty() { context.settings.sites.clone() } else { sites };
    if found.is_empty() {
        found = instances.into_iter().flat_map(|instance| instance.status.applied.into_keys()).collect();
    }
    found.sort();
    found.dedup();
    Ok((kind, found))
}

fn confirm(lost: &SiteName, by: &SiteName) -> anyhow::Result<bool> {
    ensure!(std::io::stdin().is_terminal(), "there is nobody to ask: give --yes");
    let mut stderr = std::io::stderr();
    write!(
        stderr,
        "{by} takes over what {lost} owns. What {lost} has beyond that does not count any more. Type {lost} to go on: "
    )?;
    stderr.flush()?;
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    Ok(typed.trim() == lost.as_str())
}
