//! What an operator does when a site is lost, as requests: the steps of `freehold takeover`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use freehold::runtime::{LossAnswer, LossRequest, SealAnswer, SealRequest, TakeOverAnswer, TakeOverRequest};
use freehold::{Client, SendOptions};
use freehold_core::{Ballot, CommandId, ErrorCode, Refusal, SiteName, subject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::workload;

/// How long moves of records may take.
const SOON: Duration = Duration::from_secs(60);
/// How long one step may take.
const STEP: Duration = Duration::from_secs(10);

/// What was known before, and what came of it.
#[derive(Debug)]
pub struct Taken {
    /// What the members knew.
    pub known: Vec<LossAnswer>,
    /// The ballot.
    pub ballot: Ballot,
    /// The taker's word.
    pub answer: TakeOverAnswer,
}

/// Asks a site; the refusal where it refuses.
pub async fn ask<A: DeserializeOwned>(
    client: &Client,
    site: &str,
    what: &str,
    request: &impl Serialize,
) -> Result<Result<A, Refusal>> {
    let subject = subject::operator(&site.parse()?, &workload::kind(), what);
    let options = SendOptions { timeout: STEP, ..SendOptions::default() };
    let answer = client.request_to(subject, serde_json::to_vec(request)?.into(), &options).await;
    let answer = answer.with_context(|| format!("{what} at {site}"))?;
    Ok(match answer.result {
        Ok(body) => Ok(serde_json::from_slice(&body)?),
        Err(refusal) => Err(refusal),
    })
}

/// What the members know of a lost site, and a ballot for the first of them in a term that is new to them all.
pub async fn ballot(
    client: &Client,
    lost: &SiteName,
    members: &[&str],
) -> Result<Result<(Vec<LossAnswer>, Ballot), Refusal>> {
    let taker = members.first().context("no taker")?.parse()?;
    let known = match ask_each::<LossAnswer>(client, members, "loss", &LossRequest { lost: lost.clone() }).await? {
        Ok(known) => known,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let term = known.iter().map(|answer| answer.newest_term).max().unwrap_or_default().next();
    Ok(Ok((known, Ballot { term, taker })))
}

/// Has members seal a lost site's log.
pub async fn seal(
    client: &Client,
    lost: &SiteName,
    ballot: &Ballot,
    members: &[&str],
) -> Result<Result<Vec<SealAnswer>, Refusal>> {
    let request = SealRequest { lost: lost.clone(), ballot: ballot.clone() };
    ask_each(client, members, "seal", &request).await
}

/// Takes a site over; the members are those that are asked, the taker the first of them.
pub async fn take_over(client: &Client, lost: &str, members: &[&str]) -> Result<Result<Taken, Refusal>> {
    let lost: SiteName = lost.parse()?;
    let (known, ballot) = match ballot(client, &lost, members).await? {
        Ok(known) => known,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let sealed = match seal(client, &lost, &ballot, members).await? {
        Ok(sealed) => sealed,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let request = TakeOverRequest { lost, ballot: ballot.clone(), sealed };
    let answer = ask(client, members[0], "take-over", &request).await?;
    Ok(answer.map(|answer| Taken { known, ballot, answer }))
}

/// Asks sites in turn, up to the first that refuses.
async fn ask_each<A: DeserializeOwned>(
    client: &Client,
    sites: &[&str],
    what: &str,
    request: &impl Serialize,
) -> Result<Result<Vec<A>, Refusal>> {
    let mut answers = Vec::new();
    for site in sites {
        match ask(client, site, what, request).await? {
            Ok(answer) => answers.push(answer),
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    Ok(Ok(answers))
}

/// Gives records back: the right to create them, and each that exists.
pub async fn give_back(client: &Client, from: &str, to: &str, ids: &[String]) -> Result<()> {
    let rights = json!({ "prefix": to, "to": to });
    let records = ids.iter().map(|id| ("rehome", json!({ "id": id, "to": to })));
    for (what, body) in std::iter::once(("rehome-right", rights)).chain(records) {
        let subject = subject::operator(&from.parse()?, &workload::kind(), what);
        let command_id = Some(CommandId::from_caller(&ulid::Ulid::generate().to_string())?);
        let options = SendOptions { command_id, ..SendOptions::default() };
        let deadline = Instant::now() + SOON;
        loop {
            match client.request_to(subject.clone(), body.to_string().into(), &options).await?.result {
                Ok(_) => break,
                Err(refusal) if refusal.code == ErrorCode::OutcomeUnknown && Instant::now() < deadline => {}
                Err(refusal) => anyhow::bail!("{body}: {refusal:?}"),
            }
        }
    }
    Ok(())
}
