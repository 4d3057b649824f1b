//! What an operator asks of the members of a deployment when a site is lost: what they know, to seal its log, to take it over.
//!
//! The steps and their order are the operator's tool's (`freehold takeover`); what makes them safe is here and in the logs. Requests
//! and answers are JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use freehold_core::{
    Ballot, CopyRead as _, ErrorCode, Incarnation, LogTime, PublishFailure, Refusal, Seal, SiteName, StreamSequence,
    Takeover, Takeovers, Term,
};
use freehold_jetstream::{ApiError, Request, SitesLog};

use crate::group_worker::describe;
use crate::read_requests::Look;
use crate::request_handler::{Answer, RequestHandler};

/// What a member knows of a site.
pub(crate) const LOSS: &str = "loss";
/// To take no more of a site's log.
pub(crate) const SEAL: &str = "seal";
/// To take a site over whose log all members have sealed.
pub(crate) const TAKE_OVER: &str = "take-over";
/// How often it is looked at.
const CUT_PAUSE: Duration = Duration::from_millis(5);
/// How long the taker's copy may take to come to the cut before it answers all the same.
const CUT_PATIENCE: Duration = Duration::from_secs(5);

/// Asks what a member knows of a site.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossRequest {
    /// The site.
    pub lost: SiteName,
}

/// What a member knows of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossAnswer {
    /// The member.
    pub site: SiteName,
    /// How much of the site's log it has in a stream of its own.
    pub position: StreamSequence,
    /// The furthest that it has seen the site's log, whether it has that or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<StreamSequence>,
    /// How long ago that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ms_ago: Option<u64>,
    /// The highest term that it has heard of.
    pub newest_term: Term,
    /// For whom it has sealed the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_for: Option<Ballot>,
    /// Who has taken the site over, and it has not come back since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_over_by: Option<Ballot>,
}

/// Asks a member to take no more of a site's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealRequest {
    /// The site.
    pub lost: SiteName,
    /// For whom.
    pub ballot: Ballot,
}

/// A member takes no more of a site's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealAnswer {
    /// The member.
    pub site: SiteName,
    /// How much it has.
    pub position: StreamSequence,
    /// The life of the log that it has heard of last.
    pub log: Incarnation,
}

/// Asks a member to take a site over whose log all members have sealed for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeOverRequest {
    /// The site.
    pub lost: SiteName,
    /// The ballot under which the log was sealed.
    pub ballot: Ballot,
    /// What the members answered.
    pub sealed: Vec<SealAnswer>,
}

/// A site was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOverAnswer {
    /// The last message of the lost site's log that counts.
    pub cut: StreamSequence,
    /// When the lost site logged it; nothing where no message of a record lies there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_ms: Option<LogTime>,
    /// Whether this instance has everything up to the cut, and decides.
    pub is_ready: bool,
}

fn read<'a, T: Deserialize<'a>>(request: &'a Request) -> Result<T, Refusal> {
    let invalid = |error| Refusal::new(ErrorCode::Invalid, format!("the request cannot be read: {error}"));
    serde_json::from_slice(request.payload()).map_err(invalid)
}

fn print(answer: &impl Serialize) -> Result<Answer, Refusal> {
    let body = serde_json::to_vec(answer).map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
    Ok(Answer { result: Ok(body.into()), headers: Vec::new() })
}

fn no_answer(error: &ApiError) -> Refusal {
    tracing::warn!(error = describe(error), "a takeover stands still");
    Refusal::new(ErrorCode::Busy, format!("JetStream did not do its part: {}", describe(error)))
}

impl RequestHandler {
    fn sites_log(&self) -> SitesLog {
        SitesLog::new(self.connection.clone(), self.site.clone())
    }

    pub(crate) fn takeovers(&self) -> Result<Takeovers, Refusal> {
        Look::take(self).map(|look| look.takeovers)
    }

    /// The takeover of a site that has not come back since.
    async fn open_takeover(&self, lost: &SiteName) -> Result<Option<Takeover>, Refusal> {
        let mirror = self.sites_log().mirror(lost).await.map_err(|error| no_answer(&error))?;
        let takeovers = self.takeovers()?;
        Ok(takeovers.of(lost).filter(|takeover| takeover.lost_log.counter() >= mirror.lives).cloned())
    }

    /// Returns when the copy has committed a log up to a cut. A copy that cannot be read never has.
    async fn has_applied(&self, lost: &SiteName, cut: StreamSequence) {
        let applied = || self.copy.reader.snapshot().and_then(|snapshot| snapshot.applied(lost));
        while !applied().is_ok_and(|applied| applied >= cut) {
            tokio::time::sleep(CUT_PAUSE).await;
        }
    }

    fn check_lost(&self, lost: &SiteName) -> Result<(), Refusal> {
        let why = match () {
            () if *lost == self.site => format!("{lost} is this site"),
            () if !self.sites.contains(lost) => format!("there is no site {lost}"),
            () => return Ok(()),
        };
        Err(Refusal::new(ErrorCode::Invalid, why))
    }
}

/// Tells what this site knows of another.
pub(crate) async fn loss(handler: &RequestHandler, request: &Request) -> Result<Answer, Refusal> {
    let LossRequest { lost } = read(request)?;
    handler.check_lost(&lost)?;
    let log = handler.sites_log();
    let mirror = log.mirror(&lost).await.map_err(|error| no_answer(&error))?;
    let seal = log.newest_seal(&lost).await.map_err(|error| no_answer(&error))?;
    let seen = handler.copy.origins.get(&lost).and_then(|watch| watch.last_seen());
    let sealed = seal.map(|(_, seal)| seal.ballot);
    let newest_term = handler.takeovers()?.newest_term().max(sealed.as_ref().map(|it| it.term).unwrap_or_default());
    print(&LossAnswer {
        site: handler.site.clone(),
        position: mirror.last,
        last_seen: seen.map(|(sequence, _)| sequence),
        seen_ms_ago: seen.and_then(|(_, ago)| u64::try_from(ago.as_millis()).ok()),
        newest_term,
        sealed_for: sealed.filter(|_| mirror.is_sealed),
        taken_over_by: handler.open_takeover(&lost).await?.map(|takeover| takeover.ballot),
    })
}

/// Takes no more of a site's log. One ballot at a time: a higher one takes the place of a lower one.
pub(crate) async fn seal(handler: &RequestHandler, request: &Request) -> Result<Answer, Refusal> {
    let SealRequest { lost, ballot } = read(request)?;
    handler.check_lost(&lost)?;
    let conflict = |text: String| Err(Refusal::new(ErrorCode::Conflict, text));
    if let Some(Takeover { ballot: Ballot { term, taker }, .. }) = handler.open_takeover(&lost).await? {
        return conflict(format!("{lost} was taken over by {taker} in term {term}"));
    }
    if handler.copy.losses.of(&ballot.taker).is_some() {
        return conflict(format!("{} is itself taken for lost by {}", ballot.taker, handler.site));
    }
    let log = handler.sites_log();
    let sealed = log.newest_seal(&lost).await.map_err(|error| no_answer(&error))?;
    match &sealed {
        Some((_, Seal { ballot: other })) if *other > ballot => {
            let Ballot { term, taker } = other;
            return conflict(format!("{} has sealed the log of {lost} for {taker} in term {term}", handler.site));
        }
        Some((_, Seal { ballot: same })) if *same == ballot => {}
        _ => {
            let expected = sealed.map(|(sequence, _)| sequence).unwrap_or_default();
            match log.seal(&lost, expected, &Seal { ballot }).await {
                Ok(_) => {}
                Err(PublishFailure::Refused) => return conflict("another takeover was quicker".to_owned()),
                Err(PublishFailure::Unknown(why)) => return Err(Refusal::new(ErrorCode::Busy, why)),
            }
        }
    }
    let position = log.freeze(&lost).await.map_err(|error| no_answer(&error))?;
    handler.copy.losses.look_again(&lost);
    let life = log.newest_life_of(&lost).await.map_err(|error| no_answer(&error))?;
    print(&SealAnswer { site: handler.site.clone(), position, log: life })
}

/// Takes a site over: from the message that says so, this site owns what the lost one owned.
pub(crate) async fn take_over(handler: &RequestHandler, request: &Request) -> Result<Answer, Refusal> {
    let TakeOverRequest { lost, ballot, sealed } = read(request)?;
    handler.check_lost(&lost)?;
    let log = handler.sites_log();
    let seal = log.newest_seal(&lost).await.map_err(|error| no_answer(&error))?;
    let Some((sealed_at, _)) = seal.filter(|(_, seal)| seal.ballot == ballot && ballot.taker == handler.site) else {
        return Err(Refusal::new(ErrorCode::Conflict, "this site has not sealed the log for itself in this term"));
    };
    let positions: BTreeMap<_, _> = sealed.iter().map(|answer| (answer.site.clone(), answer.position)).collect();
    let furthest = sealed.iter().max_by_key(|answer| (answer.position, answer.site == handler.site));
    let newest_life = sealed.iter().map(|answer| &answer.log).max_by_key(|log| log.counter());
    let (Some(furthest), Some(lost_log)) = (furthest, newest_life) else {
        return Err(Refusal::new(ErrorCode::Invalid, "no member has sealed the log"));
    };
    let there = SitesLog::new(handler.connection.in_domain(&furthest.site), furthest.site.clone());
    let there = if furthest.site == handler.site { log.clone() } else { there };
    let tail = there.tail(&lost, furthest.position).await.map_err(|error| no_answer(&error))?;
    let cut = furthest.position;
    let takeover = Takeover {
        log: handler.log.clone(),
        ballot,
        lost: lost.clone(),
        lost_log: lost_log.clone(),
        cut,
        sealed: positions,
        adopted: false,
        accepted: false,
    };
    match log.take_over(sealed_at, &takeover).await {
        Ok(()) => {}
        Err(PublishFailure::Refused) => {
            return Err(Refusal::new(ErrorCode::Conflict, "another takeover was quicker: this site has sealed for it"));
        }
        Err(PublishFailure::Unknown(why)) => return Err(Refusal::new(ErrorCode::OutcomeUnknown, why)),
    }
    let is_ready = timeout(CUT_PATIENCE, handler.has_applied(&lost, cut)).await.is_ok();
    let cut_ms = tail.last().map(|message| message.time);
    print(&TakeOverAnswer { cut, cut_ms, is_ready })
}
