//! One consumer for all groups whose commands an instance decides.
//!
//! nats-server wakes up for each consumer that it delivers to, and each of them wakes up the client: one for all costs it a seventh less
//! for a command with 64 groups (docs/adr/0016-one-consumer-for-all-groups.md). A claim begins with a consumer of its own, behind what is decided. When that
//! has caught up, the group joins the others here: a new consumer takes the place of the one that there was, and begins where
//! nothing of any group is missing. What comes twice is dropped: here what a member is known to have, the rest by whom it comes to
//! ([`crate::command_consumer`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, Fuse, FusedFuture as _};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use freehold_core::{GroupCount, GroupNumber, KindName, SiteName, StreamSequence, subject};

use crate::connection::Connection;
use crate::deliveries::{Deliveries, DeliveryError};
use crate::direct_read::{CHUNK_MESSAGES, StoredMessage};
use crate::error::ApiError;
use crate::records_log::{log_state, newest_message, open_consumer};

/// Where one group wants to join, others may, too: an instance claims many at a time.
const JOIN_PAUSE: Duration = Duration::from_millis(250);
/// How long commands of groups that have left may still come.
const LEAVE_PAUSE: Duration = Duration::from_secs(5);
/// Groups that may wait to join; others ask again later.
const MAX_JOINS: usize = 1_024;
/// Places of the log that may be read again for a group that joins. One that is further behind has not caught up.
const MAX_REPLAYED: u64 = 16_384;
/// Commands that wait for one group. A group that takes none while these come leaves: it must not hold up the others.
pub(crate) const MAX_FED: usize = 32_768;
/// Groups that are looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;
/// How long the consumer may deliver nothing before it is asked whether something waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group, and how many its kind has.
#[derive(Debug, Clone)]
pub struct CommandGroup {
    /// The kind.
    pub kind: KindName,
    /// The group.
    pub group: GroupNumber,
    /// The groups of the kind.
    pub groups: GroupCount,
}

impl CommandGroup {
    pub(crate) fn subject(&self, site: &SiteName) -> String {
        subject::command(site, &self.kind, self.group)
    }
}

/// A group's commands as they come. Ends where it has left, or where the consumer is gone.
pub(crate) type Fed = mpsc::Receiver<StoredMessage>;

/// One consumer for all groups of a command log. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CommandFeed {
    connection: Connection,
    site: SiteName,
    joins: Arc<OnceLock<mpsc::Sender<Wanted>>>,
}

/// A group that the next consumer is for.
struct Wanted {
    group: CommandGroup,
    /// It has everything up to here.
    after: StreamSequence,
    /// Who joins; nothing where the group is here already.
    answer: Option<oneshot::Sender<Fed>>,
}

impl CommandFeed {
    pub(crate) fn new(connection: Connection, site: SiteName) -> Self {
        Self { connection, site, joins: Arc::default() }
    }

    /// Asks to be fed with everything of a group behind `after`. No answer: not now. What comes first may be older.
    pub(crate) fn join(&self, group: CommandGroup, after: StreamSequence) -> oneshot::Receiver<Fed> {
        let (answer, fed) = oneshot::channel();
        let joins = self.joins.get_or_init(|| {
            let (sender, joins) = mpsc::channel(MAX_JOINS);
            tokio::spawn(Feeding::new(self.connection.clone(), self.site.clone()).run(joins));
            sender
        });
        // Where there is no room the answer is dropped.
        let _ = joins.try_send(Wanted { group, after, answer: Some(answer) });
        fed
    }
}

struct Feeding {
    connection: Connection,
    site: SiteName,
    /// By the subject of their commands.
    members: HashMap<String, Member>,
    current: Option<Current>,
    /// Who wants to join.
    waiting: Vec<Wanted>,
    /// When a consumer is opened for those that there are then.
    due: Option<Instant>,
}

struct Member {
    group: CommandGroup,
    sender: mpsc::Sender<StoredMessage>,
    /// It has everything up to here: when another consumer takes the place of this one, that comes again.
    has: StreamSequence,
}

struct Current {
    deliveries: Deliveries,
    /// Everything of its groups up to here was delivered.
    passed: StreamSequence,
}

/// A consumer that was opened, where any group is left, and the groups that it is for.
type Opened = Result<(Option<Current>, Vec<Wanted>), ApiError>;

impl Feeding {
    fn new(connection: Connection, site: SiteName) -> Self {
        Self { connection, site, members: HashMap::new(), current: None, waiting: Vec::new(), due: None }
    }

    /// Runs until nobody can join any more.
    async fn run(mut self, mut joins: mpsc::Receiver<Wanted>) {
        let mut opening: Fuse<BoxFuture<'static, Opened>> = Fuse::terminated();
        loop {
            tokio::select! {
                join = joins.recv() => {
                    let Some(join) = join else { return };
                    self.waiting.push(join);
                    self.open_within(JOIN_PAUSE);
                }
                () = sleep_until(self.due.unwrap_or_else(Instant::now)), if self.due.is_some() && opening.is_terminated() => {
                    self.due = None;
                    opening = self.open().fuse();
                }
                opened = &mut opening => match opened {
                    Ok((current, groups)) => self.go_on_with(current, groups),
                    Err(error) => tracing::debug!(%error, "no consumer for all groups: what there is stays"),
                },
                delivered = next(self.current.as_mut()) => match delivered {
                    Ok(messages) => self.feed(messages),
                    Err(error) => {
                        tracing::debug!(%error, "the consumer for all groups ended");
                        self.current = None;
                        self.members.clear();
                    }
                }
            }
        }
    }

    fn open_within(&mut self, pause: Duration) {
        let by = Instant::now() + pause;
        self.due = Some(self.due.map_or(by, |due| due.min(by)));
    }

    /// Opens a consumer for all that are here and those that want to join.
    fn open(&mut self) -> BoxFuture<'static, Opened> {
        self.members.retain(|_, member| !member.sender.is_closed());
        let passed = self.current.as_ref().map(|current| current.passed).unwrap_or_default();
        let member = |member: &Member| Wanted { group: member.group.clone(), after: passed, answer: None };
        let members = self.members.values().map(member);
        // Who has given up waiting may ask for its group a second time.
        let gives_up = |join: &Wanted| join.answer.as_ref().is_some_and(oneshot::Sender::is_closed);
        let joins = std::mem::take(&mut self.waiting).into_iter().filter(|join| !gives_up(join));
        Box::pin(open(self.connection.clone(), self.site.clone(), members.chain(joins).collect()))
    }

    fn go_on_with(&mut self, current: Option<Current>, groups: Vec<Wanted>) {
        if let Some(before) = std::mem::replace(&mut self.current, current) {
            self.members.values_mut().for_each(|member| member.has = member.has.max(before.passed));
        }
        for Wanted { group, after, answer } in groups {
            let Some(answer) = answer else { continue };
            let (sender, fed) = mpsc::channel(MAX_FED);
            if answer.send(fed).is_ok() {
                self.members.insert(group.subject(&self.site), Member { group, sender, has: after });
            }
        }
    }

    fn feed(&mut self, messages: Vec<StoredMessage>) {
        for message in messages {
            if let Some(current) = self.current.as_mut() {
                current.passed = message.sequence;
            }
            let Some(member) = self.members.get(&message.subject) else {
                self.open_within(LEAVE_PAUSE);
                continue;
            };
            if message.sequence <= member.has {
                continue;
            }
            if let Err(refused) = member.sender.try_send(message) {
                let message = match refused {
                    mpsc::error::TrySendError::Closed(message) => message,
                    mpsc::error::TrySendError::Full(message) => {
                        tracing::info!(subject = message.subject, "a group that takes no commands leaves the others");
                        message
                    }
                };
                self.members.remove(&message.subject);
                self.open_within(LEAVE_PAUSE);
            }
        }
    }
}

/// Opens a consumer for groups. Who wants to join and is too far behind is left out.
async fn open(connection: Connection, site: SiteName, groups: Vec<Wanted>) -> Opened {
    let stream = subject::commands_stream(&site);
    // Before the groups are looked at: what comes later lies behind this.
    let end = log_state(&connection, &stream).await?.last;
    let looks = groups.into_iter().map(async |wanted| {
        let newest = newest_message(&connection, &stream, &wanted.group.subject(&site)).await?;
        // A group has everything up to the end where it has its newest command.
        let has_all = newest.is_none_or(|newest| newest.sequence <= wanted.after.0);
        Ok::<_, ApiError>((if has_all { wanted.after.max(end) } else { wanted.after }, wanted))
    });
    let mut groups: Vec<_> = stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).try_collect().await?;
    // A log that ends before what was read of it has lost something: whoever has read it finds out by itself.
    let may_join = |start: StreamSequence, after| after <= end && end.0.saturating_sub(start.0) <= MAX_REPLAYED;
    groups.retain(|(start, wanted)| wanted.answer.is_none() || may_join(*start, wanted.after));
    let Some(start) = groups.iter().map(|(start, _)| *start).min() else { return Ok((None, Vec::new())) };
    let groups: Vec<_> = groups.into_iter().map(|(_, wanted)| wanted).collect();
    let filters = filters(&site, groups.iter().map(|wanted| &wanted.group));
    let deliveries = Deliveries::of(open_consumer(&connection, &stream, filters, start).await?, PATIENCE).await?;
    tracing::debug!(groups = groups.len(), %start, "a consumer for all groups");
    Ok((Some(Current { deliveries, passed: start }), groups))
}

/// The subjects of groups: one for all groups of a kind, where all are among them. The server is quicker with that than with a list.
fn filters<'a>(site: &SiteName, groups: impl Iterator<Item = &'a CommandGroup>) -> Vec<String> {
    let mut kinds: BTreeMap<&KindName, Vec<&CommandGroup>> = BTreeMap::new();
    for group in groups {
        kinds.entry(&group.kind).or_default().push(group);
    }
    let of_kind = |(kind, groups): (&KindName, Vec<&CommandGroup>)| {
        let has_all = groups.first().is_some_and(|group| groups.len() == usize::from(group.groups.get()));
        if has_all {
            vec![subject::commands_of_kind(site, kind)]
        } else {
            groups.into_iter().map(|group| group.subject(site)).collect()
        }
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

/// What is delivered next; pending for ever where there is no consumer.
async fn next(current: Option<&mut Current>) -> Result<Vec<StoredMessage>, DeliveryError> {
    match current {
        Some(current) => current.deliveries.next(CHUNK_MESSAGES).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_groups_of_a_kind_are_one_subject() {
        let group = |kind: &str, group| CommandGroup {
            kind: kind.parse().unwrap(),
            group: GroupNumber(group),
            groups: GroupCount::new(2).unwrap(),
        };
        let groups = [group("flight", 1), group("gate", 1), group("flight", 0)];
        let filters = filters(&"ewr".parse().unwrap(), groups.iter());
        assert_eq!(filters, ["fh.ewr.cmd.flight.*", "fh.ewr.cmd.gate.1"]);
    }
}
