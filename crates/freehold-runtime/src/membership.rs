//! Which instances are alive, and which groups are this one's.
//!
//! Each kind has a member list in the site's bucket, changed by compare-and-set. Every member watches over the one behind it
//! in the list: a crashed one has no responder on its private subject, a hung one does not answer. Who is found gone
//! is taken off the list, and the list says who holds its groups from then on. All of this is liveness only: a
//! member that is wrong about the list is refused by the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use freehold_core::subject;
use freehold_core::{
    CopyRead, GroupCount, GroupNumber, KindName, Member, MemberList, MembersRevision, NameTaken, SiteName,
};
use freehold_jetstream::{ApiError, Connection, Members, MembersEntry, Probe};

use crate::copy::Copy;
use crate::group_worker::describe;

/// How often a member looks after the one behind it.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// How long one look waits for an answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// A member that does not answer for this long is hung.
const HUNG_AFTER: Duration = Duration::from_secs(2);
/// Between "no responders" and the second look that confirms it.
const CONFIRM_PAUSE: Duration = Duration::from_millis(20);
/// The list is read at least this often, whatever the watch says.
const READ_INTERVAL: Duration = Duration::from_secs(1);
/// How often a change that lost a compare-and-set is tried again.
const MAX_CHANGE_TRIES: usize = 100;

/// This life of this instance.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) site: SiteName,
    pub(crate) member: Member,
}

impl Identity {
    /// Whether a list gives a group to this life of this instance.
    pub(crate) fn holds(&self, list: &MemberList, group: GroupNumber) -> bool {
        let holder = list.groups.get(usize::from(group.0)).and_then(Option::as_ref);
        holder == Some(&self.member.instance) && list.members.contains(&self.member)
    }

    /// One of the private subjects of this life.
    pub(crate) fn subject(&self, what: &str) -> String {
        private_subject(&self.site, &self.member, what)
    }
}

fn private_subject(site: &SiteName, member: &Member, what: &str) -> String {
    subject::instance(site, &member.instance, &member.nonce, what)
}

/// The newest member list of each kind.
#[derive(Clone)]
pub(crate) struct MemberLists(Arc<HashMap<KindName, watch::Receiver<MemberList>>>);

impl MemberLists {
    /// A watch of a kind's list; one that never changes where the kind is not served.
    pub(crate) fn watch(&self, kind: &KindName) -> watch::Receiver<MemberList> {
        self.0.get(kind).cloned().unwrap_or_else(|| watch::channel(MemberList::empty(GroupCount::DEFAULT)).1)
    }

    /// How many instances serve the kind that most of them serve.
    pub(crate) fn most_members(&self) -> usize {
        self.0.values().map(|list| list.borrow().members.len()).max().unwrap_or_default()
    }
}

/// Why an instance is no member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error(transparent)]
    NameTaken(NameTaken),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the member list of {0} changed too often")]
    Contended(KindName),
    #[error("the copy cannot be read")]
    Store(#[from] freehold_store::Error),
}

/// Keeps this instance on the list of one kind.
pub(crate) struct Membership {
    connection: Connection,
    members: Members,
    identity: Identity,
    kind: KindName,
    groups: GroupCount,
    copy: Copy,
    list: watch::Sender<MemberList>,
}

impl Membership {
    /// One membership a kind, and the lists that they keep.
    pub(crate) fn all(
        connection: &Connection,
        members: &Members,
        identity: &Identity,
        kinds: &[(KindName, GroupCount)],
        copy: &Copy,
    ) -> (Vec<Self>, MemberLists) {
        let mut lists = HashMap::new();
        let mut memberships = Vec::new();
        for (kind, groups) in kinds {
            let (list, watch) = watch::channel(MemberList::empty(*groups));
            lists.insert(kind.clone(), watch);
            memberships.push(Self {
                connection: connection.clone(),
                members: members.clone(),
                identity: identity.clone(),
                kind: kind.clone(),
                groups: *groups,
                copy: copy.clone(),
                list,
            });
        }
        (memberships, MemberLists(Arc::new(lists)))
    }

    /// Joins the list. A life of the same name that is gone or hung is taken off first; one that answers has the name.
    pub(crate) async fn join(&self) -> Result<(), JoinError> {
        let mut silent_since = None;
        loop {
            let joined = self.change(|list, at_least| list.joined(self.identity.member.clone(), at_least)).await;
            let taken = match joined {
                Err(JoinError::NameTaken(taken)) => taken,
                other => return other,
            };
            match self.find(&taken.0, &mut silent_since).await {
                Probe::Alive => return Err(JoinError::NameTaken(taken)),
                Probe::Gone => self.remove(&taken.0, "gone").await?,
                Probe::Silent => tokio::time::sleep(PROBE_INTERVAL).await,
            }
        }
    }

    /// Leaves the list, so that others take the groups at once.
    pub(crate) async fn leave(&self) {
        let left = self.change(|list, at_least| Ok(list.left(&self.identity.member, at_least))).await;
        if let Err(error) = left {
            tracing::warn!(kind = %self.kind, error = describe(&error), "the member list still names this instance");
        }
    }

    /// Follows the list and watches over the next member, until `stop`; then leaves.
    pub(crate) async fn run(self, mut stop: mpsc::Receiver<()>) {
        let mut changes = None;
        let mut probe = tokio::time::interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut read = tokio::time::interval(READ_INTERVAL);
        let mut silent_since = None;
        loop {
            if changes.is_none() {
                changes = self.members.changes(&self.kind).await.ok();
            }
            let changed = async {
                match changes.as_mut() {
                    Some(changes) => changes.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stop.recv() => break,
                change = changed => {
                    if change.is_none() {
                        changes = None;
                    }
                    self.follow().await;
                }
                _ = read.tick() => self.follow().await,
                _ = probe.tick() => self.watch_over(&mut silent_since).await,
            }
        }
        self.leave().await;
    }

    /// Reads the list, and joins again where this instance is off it.
    async fn follow(&self) {
        match self.members.read(&self.kind).await {
            Ok(entry) => {
                let list = entry.list.unwrap_or_else(|| MemberList::empty(self.groups));
                let member = list.members.contains(&self.identity.member);
                self.publish(list);
                if !member {
                    tracing::warn!(kind = %self.kind, "this instance was taken off the member list: joining again");
                    if let Err(error) = self.join().await {
                        tracing::warn!(kind = %self.kind, error = describe(&error), "joining failed");
                    }
                }
            }
            Err(error) => tracing::debug!(kind = %self.kind, error = describe(&error), "the list cannot be read"),
        }
    }

    /// Looks after the member behind this one, and takes it off the list when it is gone or hung.
    async fn watch_over(&self, silent_since: &mut Option<(Member, Instant)>) {
        let list = self.list.borrow().clone();
        let Some(next) = list.watched_by(&self.identity.member) else {
            return;
        };
        if silent_since.as_ref().is_some_and(|(member, _)| member != next) {
            *silent_since = None;
        }
        if self.find(next, silent_since).await == Probe::Gone
            && let Err(error) = self.remove(next, "gone").await
        {
            tracing::warn!(kind = %self.kind, error = describe(&error), "a dead member is still on the list");
        }
    }

    /// Alive, or certainly gone: no responders twice, or no answer for as long as a hung member is given.
    async fn find(&self, member: &Member, silent_since: &mut Option<(Member, Instant)>) -> Probe {
        let subject = private_subject(&self.identity.site, member, "probe");
        match self.ask(&subject).await {
            Probe::Alive => {
                *silent_since = None;
                Probe::Alive
            }
            Probe::Gone => {
                tokio::time::sleep(CONFIRM_PAUSE).await;
                self.connection.probe(subject, PROBE_TIMEOUT).await
            }
            Probe::Silent => {
                let (_, since) = silent_since.get_or_insert_with(|| (member.clone(), Instant::now() - PROBE_TIMEOUT));
                if since.elapsed() >= HUNG_AFTER { Probe::Gone } else { Probe::Silent }
            }
        }
    }

    /// Asks, and asks again where there is no answer soon: what was on its way to a member that died at that moment is answered by nobody.
    async fn ask(&self, subject: &str) -> Probe {
        let first = self.connection.probe(subject.to_owned(), PROBE_TIMEOUT);
        let second = async {
            tokio::time::sleep(PROBE_INTERVAL).await;
            self.connection.probe(subject.to_owned(), PROBE_TIMEOUT - PROBE_INTERVAL).await
        };
        tokio::pin!(first, second);
        tokio::select! {
            found = &mut first => if found == Probe::Silent { second.await } else { found },
            found = &mut second => if found == Probe::Silent { first.await } else { found },
        }
    }

    async fn remove(&self, member: &Member, why: &str) -> Result<(), JoinError> {
        tracing::warn!(kind = %self.kind, instance = %member.instance, why, "taking an instance off the member list");
        self.change(|list, at_least| Ok(list.left(member, at_least))).await
    }

    /// Changes the list by compare-and-set, as often as others are quicker.
    async fn change(
        &self,
        change: impl Fn(&MemberList, MembersRevision) -> Result<MemberList, NameTaken>,
    ) -> Result<(), JoinError> {
        let at_least = self.newest_claimed()?;
        for _ in 0..MAX_CHANGE_TRIES {
            let entry: MembersEntry = self.members.read(&self.kind).await?;
            let before = entry.list.clone().unwrap_or_else(|| MemberList::empty(self.groups));
            let after = change(&before, at_least).map_err(JoinError::NameTaken)?;
            if after == before && entry.list.is_some() {
                self.publish(after);
                return Ok(());
            }
            if self.members.replace(&self.kind, &entry, &after).await? {
                self.publish(after);
                return Ok(());
            }
        }
        Err(JoinError::Contended(self.kind.clone()))
    }

    /// The highest revision that any claim names: a list must pass it to be claimed with.
    fn newest_claimed(&self) -> Result<MembersRevision, freehold_store::Error> {
        let snapshot = self.copy.reader.snapshot()?;
        let mut newest = MembersRevision::default();
        for group in self.groups.groups() {
            let state = snapshot.group(&self.identity.site, &self.kind, group)?;
            newest = newest.max(state.claim.map(|(_, claim)| claim.members).unwrap_or_default());
        }
        Ok(newest)
    }

    /// Tells the workers, never going back to an older list.
    fn publish(&self, list: MemberList) {
        self.list.send_if_modified(|current| {
            let newer = current.revision < list.revision;
            if newer {
                *current = list;
            }
            newer
        });
    }
}
