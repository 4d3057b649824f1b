//! One group's worker: feeds events to the group's [`Holder`] and carries its effects out.
//!
//! The worker never decides anything itself. What it has started and not heard of is forgotten at
//! [`Effect::Release`], so that no late answer reaches a later claim.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll, unfold};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, timeout};

use freehold_core::{
    CommandLogCheck, CommandMessage, DeadLetter, Effect, Emission, EmitFailure, Event, GroupCount, GroupNumber, Holder,
    HolderOptions, KindName, LoggedCommand, MemberList, PublishFailure, SiteName,
};
use freehold_jetstream::{
    AppendError, CommandConsumer, CommandGroup, CommandLog, DeliveryError, FencedConnection, Members, RecordsLog,
};
use freehold_store::Error as StoreError;

use crate::copy::Copy;
use crate::failure::Failure;
use crate::membership::{Identity, MemberLists};

/// Commands that a worker takes in before it has decided them; the consumer holds back the rest.
const MAX_WAITING_COMMANDS: usize = 4_096;
/// How long the position may lag behind what is decided.
const POSITION_PAUSE: Duration = Duration::from_secs(1);
/// The pause before a refused or broken claim is tried again; it doubles with each failure in a row, up to the longest.
const CLAIM_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_CLAIM_PAUSE: Duration = Duration::from_millis(640);
/// How long a claim's consumer may take to open. Where a cluster has lost a server, a request can go to nobody.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a command is emitted again that the full command log did not take.
const EMIT_PAUSE: Duration = Duration::from_millis(200);
/// The pause before the member list is read again where that failed.
const MEMBERS_PAUSE: Duration = Duration::from_millis(200);
/// How often a command that waits for another site's log is looked at.
const SITES_PAUSE: Duration = Duration::from_millis(100);

/// What all workers of an instance share.
pub(crate) struct WorkerContext {
    pub(crate) site: SiteName,
    pub(crate) copy: Copy,
    pub(crate) commands: CommandLog,
    pub(crate) records: RecordsLog,
    pub(crate) members: Members,
    pub(crate) lists: MemberLists,
    pub(crate) identity: Identity,
    pub(crate) group_counts: Arc<HashMap<KindName, GroupCount>>,
    pub(crate) fenced: watch::Receiver<Option<FencedConnection>>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) batched: bool,
    pub(crate) failures: mpsc::Sender<Failure>,
    pub(crate) held: Arc<std::sync::atomic::AtomicUsize>,
}

impl WorkerContext {
    /// The connection to publish on, where there is one.
    fn fenced(&self) -> Option<FencedConnection> {
        self.fenced.borrow().clone()
    }
}

/// Drives one group until the service stops.
pub(crate) struct GroupWorker {
    context: Arc<WorkerContext>,
    kind: KindName,
    group: GroupNumber,
    /// How many the kind has.
    groups: GroupCount,
    holder: Holder,
    audit_window: Duration,
    /// How often what is on its way to other sites is logged again.
    say_again: Duration,
    consumer: Option<CommandConsumer>,
    under_way: FuturesUnordered<BoxFuture<'static, Answer>>,
    stopped: bool,
    holding: bool,
    claim_pause: Duration,
}

enum Answer {
    Event(Event),
    Members(Option<MemberList>),
    Consumer(Result<Box<CommandConsumer>, String>),
}

enum Happening {
    Answer(Answer),
    Commands(Result<Vec<LoggedCommand>, DeliveryError>),
    CopyAdvanced,
    PositionDue,
    AuditDue,
    SayAgain,
    Signal(Signal),
}

#[derive(Debug, Clone, Copy)]
enum Signal {
    Routes,
    Members,
    Connection,
    Stop,
}

impl GroupWorker {
    pub(crate) fn new(context: Arc<WorkerContext>, options: HolderOptions) -> Self {
        Self {
            kind: options.flush.definition.name.clone(),
            group: options.flush.group,
            groups: options.flush.definition.settings.groups,
            audit_window: Duration::from_millis(options.audit_window_ms),
            say_again: Duration::from_millis(options.flush.retention.outcomes_ms / 2),
            holder: Holder::new(options),
            context,
            consumer: None,
            under_way: FuturesUnordered::new(),
            stopped: false,
            holding: false,
            claim_pause: CLAIM_PAUSE,
        }
    }

    /// Runs until the holder has stopped, or the copy cannot be read.
    pub(crate) async fn run(mut self) {
        let mut signals = self.signals();
        let list = self.context.lists.watch(&self.kind);
        let started = Instant::now();
        let mut position_due = started;
        let (mut audit, mut audit_due) = (None, started);
        let mut say_again = started + self.say_again;
        // One for all: it is set anew only when something else is due next.
        let mut alarm = Box::pin(tokio::time::sleep_until(started));
        let mut handled = self.members_event(&list.borrow().clone());
        loop {
            if let Some(event) = handled.take()
                && let Err(error) = self.take(event)
            {
                // One report is enough: the service stops all workers and rebuilds the copy.
                let _ = self.context.failures.try_send(error.into());
                return;
            }
            if self.stopped {
                return;
            }
            let awaits = self.holder.awaits();
            let newest_audit = self.holder.newest_audit();
            if newest_audit.is_some() && newest_audit != audit {
                audit = newest_audit;
                audit_due = Instant::now() + self.audit_window;
            }
            let due = [
                self.holder.position_moved().then_some((position_due, Happening::PositionDue)),
                newest_audit.is_some().then_some((audit_due, Happening::AuditDue)),
                self.holder.has_sent().then_some((say_again, Happening::SayAgain)),
            ];
            let due = due.into_iter().flatten().min_by_key(|(at, _)| *at);
            if let Some((at, _)) = &due
                && alarm.deadline() != *at
            {
                alarm.as_mut().reset(*at);
            }
            let room = self.holder.waiting() < MAX_WAITING_COMMANDS;
            let waits_for_sites = self.holder.waits_for_sites();
            let happening = tokio::select! {
                Some(answer) = self.under_way.next(), if !self.under_way.is_empty() => Happening::Answer(answer),
                commands = next_commands(self.consumer.as_mut()), if room && self.consumer.is_some() =>
                    Happening::Commands(commands),
                () = self.context.copy.applied(&self.context.site, awaits.unwrap_or_default()), if awaits.is_some() =>
                    Happening::CopyAdvanced,
                () = tokio::time::sleep(SITES_PAUSE), if waits_for_sites => Happening::Signal(Signal::Routes),
                Some(signal) = signals.next() => Happening::Signal(signal),
                happening = reached(alarm.as_mut(), due) => happening,
            };
            handled = match happening {
                Happening::Answer(Answer::Event(event)) => Some(event),
                Happening::Answer(Answer::Consumer(Ok(consumer))) => {
                    self.claim_pause = CLAIM_PAUSE;
                    self.consumer = Some(*consumer);
                    None
                }
                Happening::Answer(Answer::Consumer(Err(reason))) => {
                    tracing::warn!(kind = %self.kind, group = %self.group, reason, "no consumer for a claim");
                    Some(Event::Disconnected)
                }
                Happening::Commands(Ok(commands)) => Some(Event::Delivered(commands)),
                Happening::Commands(Err(error)) => {
                    tracing::debug!(kind = %self.kind, group = %self.group, %error, "the command consumer ended");
                    self.consumer = None;
                    Some(Event::Disconnected)
                }
                Happening::Answer(Answer::Members(read)) => {
                    // The list that is watched may have gone on while this one was read.
                    let watched = list.borrow().clone();
                    let newest = read.filter(|read| read.revision > watched.revision).unwrap_or(watched);
                    self.members_event(&newest)
                }
                Happening::CopyAdvanced => Some(Event::CopyAdvanced),
                Happening::SayAgain => {
                    say_again = Instant::now() + self.say_again;
                    Some(Event::SayAgain)
                }
                Happening::PositionDue => {
                    position_due = Instant::now() + POSITION_PAUSE;
                    Some(Event::PositionDue)
                }
                Happening::AuditDue => {
                    audit_due = Instant::now() + self.audit_window.max(POSITION_PAUSE);
                    Some(Event::AuditDue)
                }
                Happening::Signal(Signal::Routes) => Some(Event::RoutesChanged),
                Happening::Signal(Signal::Members) => self.members_event(&list.borrow().clone()),
                Happening::Signal(Signal::Connection) => {
                    if self.context.fenced.borrow().is_some() {
                        self.members_event(&list.borrow().clone())
                    } else {
                        Some(Event::Disconnected)
                    }
                }
                Happening::Signal(Signal::Stop) => Some(Event::Stop),
            };
        }
    }

    /// What seldom happens. Each source stays registered from one turn of the loop to the next.
    fn signals(&self) -> SelectAll<BoxStream<'static, Signal>> {
        let mut stop = self.context.stop.clone();
        let stop = futures::stream::once(async move {
            // Where whoever could say so is gone, the service has stopped.
            let _ = stop.wait_for(|stop| *stop).await;
            Signal::Stop
        });
        let routes = (Arc::clone(&self.context.copy.routes), self.kind.clone(), self.group);
        let routes = unfold(routes, |(routes, kind, group)| async move {
            routes.changed(&kind, group).await;
            Some((Signal::Routes, (routes, kind, group)))
        });
        let members = changes(self.context.lists.watch(&self.kind), Signal::Members);
        let connection = changes(self.context.fenced.clone(), Signal::Connection);
        futures::stream::select_all([stop.boxed(), routes.boxed(), members, connection])
    }

    /// What a member list means for this group. Without a connection to publish on, an assignment waits.
    fn members_event(&self, list: &MemberList) -> Option<Event> {
        if !self.context.identity.holds(list, self.group) {
            return Some(Event::Unassigned);
        }
        self.context.fenced.borrow().is_some().then_some(Event::Assigned(list.revision))
    }

    fn take(&mut self, event: Event) -> Result<(), StoreError> {
        let snapshot = self.context.copy.reader.snapshot()?;
        self.holder.set_unreachable(self.context.copy.unreachable());
        self.holder.set_mirrored(self.context.copy.mirrored());
        let effects = self.holder.handle(event, &snapshot)?;
        drop(snapshot);
        for effect in effects {
            self.carry_out(effect);
        }
        let holds = self.holder.holds().is_some();
        if holds != self.holding {
            self.holding = holds;
            use std::sync::atomic::Ordering::Relaxed;
            let held = &self.context.held;
            let _ = if holds { held.fetch_add(1, Relaxed) } else { held.fetch_sub(1, Relaxed) };
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) {
        let (kind, group) = (self.kind.clone(), self.group);
        let context = Arc::clone(&self.context);
        let answer: BoxFuture<'static, Answer> = match effect {
            Effect::PublishClaim { expected, claim } => {
                let fenced = context.fenced();
                Box::pin(async move {
                    let result = match fenced {
                        Some(fenced) => context.records.claim(&fenced, &kind, group, expected, &claim).await,
                        None => Err(no_connection()),
                    };
                    Answer::Event(Event::Claimed(result))
                })
            }
            Effect::CheckCommandLog { decided, log } => Box::pin(async move {
                let checked = context.commands.check(&decided, log).await;
                Answer::Event(Event::CommandLogChecked(checked))
            }),
            Effect::OpenConsumer { claim, after } => {
                let group = CommandGroup { kind, group, groups: self.groups };
                Box::pin(async move {
                    let opened = timeout(OPEN_TIMEOUT, context.commands.consume(group, claim, after)).await;
                    Answer::Consumer(match opened {
                        Ok(opened) => opened.map(Box::new).map_err(|error| describe(&error)),
                        Err(_) => Err("no answer".to_owned()),
                    })
                })
            }
            Effect::Publish { claim, messages, whole } => {
                let (fenced, whole) = (context.fenced(), context.batched || whole);
                Box::pin(async move {
                    let result = match fenced {
                        Some(fenced) => context.records.publish(&fenced, claim, messages, whole).await,
                        None => Err(no_connection()),
                    };
                    Answer::Event(Event::Published(result))
                })
            }
            Effect::Emit(emissions) => {
                Box::pin(async move { Answer::Event(Event::Emitted(emit(&context, group, emissions).await)) })
            }
            Effect::Purge { below, decided, log } => Box::pin(async move {
                let commands = &context.commands;
                let mut check = commands.check(&decided, log).await;
                if check == CommandLogCheck::Matches {
                    match commands.purge(&kind, group, below.sequence).await {
                        Ok(purged) => tracing::trace!(%kind, %group, purged, "purged decided commands"),
                        Err(error) => {
                            tracing::warn!(%kind, %group, error = describe(&error), "purging failed");
                            check = CommandLogCheck::Unknown;
                        }
                    }
                }
                Answer::Event(Event::Purged(check))
            }),
            Effect::Release(reason) => {
                tracing::debug!(%kind, %group, %reason, "released");
                self.consumer = None;
                self.under_way = FuturesUnordered::new();
                return;
            }
            Effect::ReadMembers => {
                let pause = self.claim_pause;
                self.claim_pause = (2 * pause).min(LONGEST_CLAIM_PAUSE);
                Box::pin(read_members(context, kind, group, pause))
            }
            Effect::Stopped => {
                self.stopped = true;
                return;
            }
        };
        self.under_way.push(answer);
    }
}

/// A signal for each change of what is watched from now on.
fn changes<T: Send + Sync + 'static>(mut watched: watch::Receiver<T>, signal: Signal) -> BoxStream<'static, Signal> {
    watched.mark_unchanged();
    unfold(watched, move |mut watched| async move {
        watched.changed().await.ok()?;
        Some((signal, watched))
    })
    .boxed()
}

/// Returns what is due when the alarm goes off; pending for ever where nothing is.
async fn reached(alarm: Pin<&mut Sleep>, due: Option<(Instant, Happening)>) -> Happening {
    match due {
        Some((_, happening)) => {
            alarm.await;
            happening
        }
        None => std::future::pending().await,
    }
}

async fn next_commands(consumer: Option<&mut CommandConsumer>) -> Result<Vec<LoggedCommand>, DeliveryError> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

async fn read_members(context: Arc<WorkerContext>, kind: KindName, group: GroupNumber, pause: Duration) -> Answer {
    tokio::time::sleep(pause).await;
    loop {
        match context.members.read(&kind).await {
            Ok(entry) => return Answer::Members(entry.list),
            Err(error) => {
                tracing::debug!(%kind, %group, error = describe(&error), "the member list cannot be read");
                tokio::time::sleep(MEMBERS_PAUSE).await;
            }
        }
    }
}

/// Sends what decisions ask for. All of it may be sent again.
async fn emit(context: &WorkerContext, group: GroupNumber, emissions: Vec<Emission>) -> Result<(), EmitFailure> {
    let WorkerContext { commands, group_counts, .. } = context;
    for emission in emissions {
        match emission {
            Emission::DeadLetter(letter) => emit_dead_letter(commands, group, &letter).await?,
            Emission::Command(command) => {
                let count = group_counts
                    .get(&command.kind)
                    .ok_or_else(|| EmitFailure(format!("this service does not know kind {}", command.kind)))?;
                emit_command(commands, count.group_of(&command.id), &command).await?;
            }
        }
    }
    Ok(())
}

/// Waits while the command log is full: other groups go on and are purged, and a new claim would not make room.
async fn emit_command(commands: &CommandLog, group: GroupNumber, command: &CommandMessage) -> Result<(), EmitFailure> {
    loop {
        match commands.append(group, command, None).await {
            Ok(_) => return Ok(()),
            Err(error @ AppendError::Full) => {
                tracing::warn!(kind = %command.kind, %group, %error, "an emitted command waits");
                tokio::time::sleep(EMIT_PAUSE).await;
            }
            Err(error) => return Err(EmitFailure(describe(&error))),
        }
    }
}

async fn emit_dead_letter(commands: &CommandLog, group: GroupNumber, letter: &DeadLetter) -> Result<(), EmitFailure> {
    let reason = letter.change.outcome.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
    tracing::error!(
        kind = %letter.kind, %group, command_id = %letter.change.command_id, reason, "a command could not be processed"
    );
    commands.append_dead_letter(group, letter).await.map_err(|error| EmitFailure(describe(&error)))
}

fn no_connection() -> PublishFailure {
    PublishFailure::Unknown("no connection".to_owned())
}

/// An error with its causes, in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
