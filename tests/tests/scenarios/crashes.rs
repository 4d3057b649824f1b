//! Crashes between the steps of a command's life: 1, 2, 3, 4 and 15.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold_sandbox::wait_until;
use freehold_tests::gate::{Answers, Frame, Gate, Toward, Verdict};
use freehold_tests::place::InstanceProcess;
use freehold_tests::workload;
use serde_json::{Value, json};

use crate::given::{Given, SITE, SOON, group_of, records_of_one_group, rejection, token};

/// The id of the command that meets the crash.
pub(crate) const COMMAND: &str = "the-command";
/// A request that comes before the server knows of the instance is lost.
const LATER: Duration = Duration::from_secs(3);

/// Where an instance is killed: everything before the step has happened, and nothing from it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Before {
    CommandIsLogged,
    InstanceKnows,
    DecisionIsLogged,
    LogAnswers,
    StoreCommits,
    Reply,
}

impl Before {
    const ALL: [Self; 6] = [
        Self::CommandIsLogged,
        Self::InstanceKnows,
        Self::DecisionIsLogged,
        Self::LogAnswers,
        Self::StoreCommits,
        Self::Reply,
    ];

    /// Whether a frame is the first sign of the step, for a frame that is about the command or answers what is about it.
    fn begins_with(self, frame: &Frame, logged: bool, decided: bool) -> bool {
        match self {
            Self::CommandIsLogged => frame.toward == Toward::Server && frame.is_command(),
            Self::InstanceKnows => logged || frame.toward == Toward::Instance && frame.is_command(),
            Self::DecisionIsLogged => frame.is_decision(),
            Self::LogAnswers => decided || frame.is_delivery(),
            Self::StoreCommits => frame.is_delivery(),
            Self::Reply => {
                let reply = frame.toward == Toward::Server && frame.subject.starts_with("_INBOX.");
                reply && frame.contains(&format!("Freehold-Command-Id: {COMMAND}"))
            }
        }
    }

    /// What must be there after the crash: the command in its log, the decision in the log, the outcome in the copy.
    fn leaves(self) -> (bool, bool, bool) {
        (self > Self::CommandIsLogged, self > Self::DecisionIsLogged, self > Self::StoreCommits)
    }
}

/// Kills an instance at a step of a command's life, and checks that this is where it was.
pub(crate) async fn crash(
    given: &Given,
    gate: &Gate,
    one: &InstanceProcess,
    before: Before,
    (id, name, body): (&str, &str, &Value),
) -> Result<()> {
    let acked = Arc::new(AtomicBool::new(false));
    let about = format!("\"id\":\"{id}\"");
    let publishes = |family: fn(&Frame) -> bool| {
        let about = about.clone();
        Answers::to(move |frame| family(frame) && frame.contains(&about))
    };
    let (logged, decided) = (publishes(Frame::is_command), publishes(Frame::is_decision));
    let (about, answered) = (about.clone(), Arc::clone(&acked));
    gate.rule(move |frame| {
        let (logged, decided) = (logged.is_one(frame), decided.is_one(frame));
        let concerned = logged || decided || frame.contains(&about) || frame.subject.starts_with("_INBOX.");
        if concerned && before.begins_with(frame, logged, decided) {
            return Verdict::Stall;
        }
        answered.fetch_or(decided, Ordering::Relaxed);
        Verdict::Pass
    });
    let asking = {
        let (client, name, mut body) = (given.client.clone(), name.to_owned(), body.clone());
        body["id"] = json!(id);
        tokio::spawn(async move { workload::send_asking_again(&client, &name, &body, COMMAND, LATER).await })
    };
    gate.caught(1).await.with_context(|| format!("{before:?}"))?;
    if before == Before::StoreCommits {
        let acked = || async { acked.load(Ordering::Relaxed) };
        wait_until("the log's answer has reached the instance", SOON, acked).await?;
    }
    one.process().kill().await?;
    gate.lose_and_lift();
    asking.abort();
    let logged = given.is_logged(id, COMMAND).await?;
    let decided = given.log().await?.decisions(id, COMMAND)?.len();
    let copied = given.outcome_in_copy(&one.name, id, COMMAND)?.is_some();
    let found = (logged, decided == 1, copied);
    ensure!(found == before.leaves(), "{before:?} left (logged, decided, copied) {found:?}");
    Ok(())
}

/// An update in the hands of an instance that dies there; another instance goes on, then the first one again.
async fn an_update_is_applied_once(befores: &[Before]) -> Result<()> {
    let given = Given::one_site().await?;
    let gate = given.gate().await?;
    let mut one = given.process_behind(&gate, "one").await?;
    for (number, before) in befores.iter().enumerate() {
        if number > 0 {
            one.restart().await?;
        }
        let id = format!("{SITE}-{number}");
        crash(&given, &gate, &one, *before, (&id, "add", &json!({ "amount": 1 }))).await?;
        let mut two = given.process("two").await?;
        given.add_is_answered(&id, COMMAND, 1).await?;
        given.add_is_answered(&id, "another", 2).await?;
        two.process().kill().await?;
        one.restart().await?;
        given.add_is_answered(&id, COMMAND, 1).await?;
        given.add_is_answered(&id, "a-third", 3).await?;
        two.restart().await?;
        one.process().kill().await?;
        given.add_is_answered(&id, COMMAND, 1).await?;
        drop(two);
        ensure!(given.log().await?.decisions(&id, COMMAND)?.len() == 1);
    }
    given.log().await?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s01_crash_before_the_store_commit() -> Result<()> {
    an_update_is_applied_once(&[Before::DecisionIsLogged, Before::LogAnswers]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s02_crash_after_the_log_ack_before_the_store_commit() -> Result<()> {
    an_update_is_applied_once(&[Before::StoreCommits]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s03_crash_after_the_commit_before_the_reply() -> Result<()> {
    an_update_is_applied_once(&[Before::Reply]).await
}

/// Three records of one group, decided in one flush: the log stores two of the updates, answers none of them, and never
/// sees the third. The holder must claim again, and decide the third only.
#[tokio::test(flavor = "multi_thread")]
async fn s04_log_ack_lost() -> Result<()> {
    let given = Given::one_site().await?;
    let gate = given.gate().await?;
    let one = given.process_behind(&gate, "one").await?;
    let ids = records_of_one_group("together", 4)?;
    given.add_is_answered(&ids[0], "before", 1).await?;
    let together: Vec<String> = ids[1..].iter().map(|id| token(id)).collect::<Result<_>>()?;
    let unanswered = Mutex::new(HashSet::new());
    gate.rule(move |frame| {
        let place = together.iter().position(|token| frame.subject.ends_with(&format!(".{token}")));
        let mut unanswered = unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        match place {
            Some(place) if frame.is_decision() && unanswered.len() < 3 => {
                unanswered.extend(frame.reply.clone());
                if place == 1 { Verdict::Lose } else { Verdict::Pass }
            }
            _ if frame.toward == Toward::Instance && unanswered.contains(&frame.subject) => Verdict::Lose,
            _ => Verdict::Pass,
        }
    });
    given.gather_while_busy(&one, &ids[0], &ids[1..], COMMAND).await?;
    gate.caught(3).await?;
    for id in &ids[1..] {
        given.add_is_answered(id, COMMAND, 1).await?;
    }
    let log = given.log().await?;
    log.check()?;
    let claims: Vec<_> = log.claims(group_of(&ids[0])?).into_iter().map(|(sequence, _)| sequence).collect();
    let under: Vec<_> = ids[1..].iter().map(|id| log.decided_under(id, COMMAND)).collect::<Result<_>>()?;
    ensure!(claims.len() > 1, "the holder did not claim again: {claims:?}");
    ensure!(under[0] <= under[2] && under[2] < under[1], "decided under {under:?} of {claims:?}");
    Ok(())
}

/// No record ever exists here: only the result messages carry the outcome.
#[tokio::test(flavor = "multi_thread")]
async fn s15_a_rejection_crashed_before_each_step_is_the_same_ever_after() -> Result<()> {
    let given = Given::one_site().await?;
    let gate = given.gate().await?;
    let mut one = given.process_behind(&gate, "one").await?;
    let body = json!({ "amount": 5 });
    for (number, before) in Before::ALL.into_iter().enumerate() {
        let id = format!("{SITE}-{number}");
        crash(&given, &gate, &one, before, (&id, "take", &body)).await?;
        one.restart().await?;
        let first = rejection(&given.tell(&id, "take", COMMAND, &body).await?)?;
        ensure!(rejection(&given.tell(&id, "take", COMMAND, &body).await?)? == first, "{before:?}");
        given.tell(&id, "add", "now-there-is-enough", &json!({ "amount": 50 })).await?;
        one.process().kill().await?;
        one.restart().await?;
        ensure!(rejection(&given.tell(&id, "take", COMMAND, &body).await?)? == first, "{before:?}");
        ensure!(workload::read(&given.client, &id).await?.total == 50, "{before:?}");
        ensure!(given.log().await?.decisions(&id, COMMAND)?.len() == 1, "{before:?}");
    }
    given.log().await?.check()
}
