//! One life of an instance: what it starts, in which order, and how it ends.
//!
//! Start: connect, provision or check, open the copy (a damaged one is set aside), read the logs up to their ends, join the
//! member lists, work on groups, take requests. Nothing is served before the own site's log is applied. Stop is the reverse.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use freehold_core::{
    CopyRead as _, ErrorCode, FlushContext, GroupCount, HolderOptions, KindDefinition, KindName, Life, LogTime, Member,
    Nonce, SiteName, TakeoverMessage, Takeovers,
};
use freehold_jetstream::{
    ApiError, CommandLog, Connection, FencedConnection, Members, Micro, ProvisionError, ProvisionOptions, RecordsLog,
    plan, read_records_log_facts,
};
use freehold_store::{Options as StoreOptions, Reader, Store};

use crate::admission::Admission;
use crate::adopter::Adopter;
use crate::applier::OriginHealth;
use crate::applying::{Applying, Basis};
use crate::config::ServiceConfig;
use crate::confirmations::Confirmer;
use crate::copy::Copy;
use crate::discovery::micro_options;
use crate::failure::Failure;
use crate::group_worker::{GroupWorker, WorkerContext, describe};
use crate::homecoming::Homecoming;
use crate::instance_api;
use crate::membership::{Identity, JoinError, Membership};
use crate::metrics::{RequestMetrics, tell_copy};
use crate::past::{Past, check_own_log};
use crate::request_handler::{Answer, RequestHandler};
use crate::service::{Service, StartError};
use crate::store_thread::StoreJob;

/// How long a stop may take before what is left is dropped; the next holder goes on from the log.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// The same where no server is there: nothing can be answered, logged or handed over.
const LONE_STOP_PATIENCE: Duration = Duration::from_secs(1);
/// How often the start looks how far the logs are read. A copy of another site that comes no further meanwhile delays it no more.
const CATCH_UP_LOOK: Duration = Duration::from_secs(5);
/// How long JetStream may refuse what the start asks for: a stream that was made a moment ago has no leader yet.
const LEADER_PATIENCE: Duration = Duration::from_secs(10);
/// The pause before it is asked again.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// The pause before a lost connection for publishing is opened again.
const FENCED_PAUSE: Duration = Duration::from_millis(50);

/// Whether the copy is made anew, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rebuild {
    /// It is taken as it is, if it is whole.
    No,
    /// From the streams.
    FromStreams,
    /// This site's log is read at its origin, not from the mirror.
    AtOrigin(SiteName),
}

/// Everything that lives between a start and a stop.
pub(crate) struct Instance {
    identity: Identity,
    reader: Reader,
    connection: Connection,
    failures: mpsc::Receiver<Failure>,
    stop_requests: watch::Sender<bool>,
    stop_workers: watch::Sender<bool>,
    leave: Vec<mpsc::Sender<()>>,
    requests: JoinSet<()>,
    workers: JoinSet<()>,
    memberships: JoinSet<()>,
    /// Appliers, the keeper of the fenced connection, and who follows how full the command log is.
    readers: JoinSet<()>,
    store_thread: std::thread::JoinHandle<()>,
    held: Arc<AtomicUsize>,
}

impl Instance {
    /// Starts; returns when requests are answered.
    pub(crate) async fn start(service: &Service, rebuild: Rebuild, known: &Takeovers) -> Result<Self, StartError> {
        let Service { name, config, definitions } = service;
        let connection = Connection::open(&config.nats, &format!("{name}-{}", config.instance)).await?;
        connection.check_jetstream().await?;
        provision(&connection, config, definitions).await?;
        let facts = read_records_log_facts(&connection, &config.site).await?;
        check_own_log(&connection, config).await?;
        let identity = Identity {
            site: config.site.clone(),
            member: Member { instance: config.instance.clone(), nonce: mint_nonce() },
        };
        let group_counts: Arc<HashMap<KindName, GroupCount>> =
            Arc::new(definitions.iter().map(|(kind, it)| (kind.clone(), it.settings.groups)).collect());

        let (failed, mut failures) = mpsc::channel(1);
        let (store, fresh) = open_store(config, rebuild != Rebuild::No).await?;
        let past = patiently(|| Past::find(&connection, config, &facts, known)).await?;
        let (store, takeovers, is_new) = past.teach(&connection, config, store).await?;
        let fresh = fresh || is_new;
        let incarnation = past.log(&takeovers);
        let read_at_origin = if let Rebuild::AtOrigin(origin) = rebuild { Some(origin) } else { None };
        let basis = Basis { store, log: incarnation.clone(), takeovers: takeovers.clone(), read_at_origin };
        let applying = Applying::start(&connection, config, &group_counts, basis, failed.clone()).await?;
        let reader = applying.copy.reader.clone();
        let Applying { copy, jobs, store_thread, mut readers, committed } = applying;
        let mut diverged = None;
        {
            let caught_up = catch_up(config, &copy);
            tokio::pin!(caught_up);
            loop {
                tokio::select! {
                    () = &mut caught_up => break,
                    Some(failure) = failures.recv() => match failure {
                        Failure::Store(error) => return Err(StartError::Store(error)),
                        other => diverged = Some(other),
                    },
                }
            }
        }
        if let Some(failure) = diverged {
            // Whoever runs the instance hears of it when it has started; a full channel says that it was told already.
            let _ = failed.try_send(failure);
        }

        let kinds: Vec<_> = group_counts.keys().cloned().collect();
        if let Some((takeover, logged_at)) = past.loss(&takeovers) {
            let (connection, site, copy) = (&connection, &config.site, &copy);
            let homecoming = Homecoming { connection, site, kinds: &kinds, copy, takeover, logged_at };
            homecoming.run().await.map_err(|error| StartError::Homecoming(error.into()))?;
            let takeover = Life::after(takeover.clone(), logged_at).accepted();
            let message = TakeoverMessage { sequence: logged_at, time: LogTime(0), takeover };
            // The store thread ends early only when the copy fails, which is reported by itself.
            let _ = jobs.send(StoreJob::Learn(message)).await;
        }

        let members = patiently(|| Members::open(&connection, &config.site)).await?;
        let counts: Vec<_> = group_counts.iter().map(|(kind, count)| (kind.clone(), *count)).collect();
        let (memberships, lists) = Membership::all(&connection, &members, &identity, &counts, &copy);
        instance_api::start(&connection, &identity, &copy).await?;
        for membership in &memberships {
            join(membership).await?;
        }
        if fresh {
            note_missing_outcomes(config, &members, &counts, &jobs).await?;
        }
        drop(jobs);
        copy.confirmations.load(&connection, &config.sites, &kinds).await;
        for confirmer in Confirmer::all(&connection, &identity, &copy, &committed, &lists) {
            readers.spawn(confirmer.run());
        }

        let (stop_workers, stop) = watch::channel(false);
        let (fenced, fenced_watch) = watch::channel(None);
        readers.spawn(keep_fenced(connection.clone(), fenced));
        let context = Arc::new(WorkerContext {
            site: config.site.clone(),
            copy: copy.clone(),
            commands: CommandLog::new(connection.clone(), config.site.clone()).in_life(&incarnation),
            records: RecordsLog::new(connection.clone(), config.site.clone()),
            members,
            lists: lists.clone(),
            identity: identity.clone(),
            group_counts,
            fenced: fenced_watch,
            stop,
            batched: facts.replicas > 1,
            failures: failed,
            held: Arc::new(AtomicUsize::new(0)),
        });
        let mut workers = JoinSet::new();
        for definition in definitions.values() {
            for group in definition.settings.groups.groups() {
                let flush = FlushContext {
                    definition: Arc::clone(definition),
                    site: config.site.clone(),
                    sites: config.sites.clone(),
                    group,
                    log: incarnation.clone(),
                    retention: config.retention(),
                    max_payload_bytes: connection.max_payload_bytes(),
                };
                let options = HolderOptions {
                    flush,
                    instance: config.instance.clone(),
                    nonce: identity.member.nonce.clone(),
                    batched: context.batched,
                    audit_window_ms: config.audit_window_ms,
                };
                workers.spawn(GroupWorker::new(Arc::clone(&context), options).run());
            }
        }
        let mut running = JoinSet::new();
        let mut leave = Vec::new();
        for membership in memberships {
            let (sender, receiver) = mpsc::channel(1);
            leave.push(sender);
            running.spawn(membership.run(receiver));
        }
        let admission = Arc::new(Admission::new(patiently(|| context.commands.room()).await?, lists.most_members()));
        readers.spawn(Arc::clone(&admission).run(context.commands.clone(), lists.clone()));
        let adopter = Adopter {
            connection: connection.clone(),
            site: config.site.clone(),
            member: identity.member.clone(),
            definitions: definitions.values().cloned().collect(),
            copy: copy.clone(),
            commands: context.commands.clone(),
            lists: lists.clone(),
        };
        if config.sites.len() > 1 {
            readers.spawn(adopter.run());
        }
        let handler = Arc::new(RequestHandler {
            site: config.site.clone(),
            definitions: Arc::clone(definitions),
            copy: copy.clone(),
            commands: context.commands.clone(),
            admission,
            records: context.records.clone(),
            connection: connection.clone(),
            sites: config.sites.clone(),
            log: incarnation,
            other_sites: config.sites.len() - 1,
            default_wait: config.default_wait,
            least_wait: config.least_wait,
            decide_timeout: Duration::from_millis(config.decide_timeout_ms),
            max_payload_bytes: connection.max_payload_bytes(),
            metrics: RequestMetrics::new(&config.site, &config.instance, definitions.values()),
        });
        let held = Arc::clone(&context.held);
        let (site, instance) = (config.site.clone(), config.instance.clone());
        readers.spawn(tell_copy(site, instance, config.sites.clone(), copy.clone(), Arc::clone(&held)));
        let options = micro_options(service, &identity, copy, Arc::clone(&held), lists);
        let micro = Micro::start(&connection, options, jiff::Timestamp::now().to_string()).await?;
        let (stop_requests, stop) = watch::channel(false);
        let mut requests = JoinSet::new();
        requests.spawn(serve(micro, handler, config.max_requests, stop));
        tracing::info!(site = %config.site, instance = %config.instance, "ready");
        Ok(Self {
            identity,
            reader,
            connection,
            failures,
            stop_requests,
            stop_workers,
            leave,
            requests,
            workers,
            memberships: running,
            readers,
            store_thread,
            held,
        })
    }

    /// The takeovers that its copy knows of; none where it cannot be read.
    pub(crate) fn takeovers(&self) -> Takeovers {
        self.reader.snapshot().and_then(|snapshot| snapshot.takeovers()).unwrap_or_default()
    }

    /// This life of the instance.
    pub(crate) fn member(&self) -> &Member {
        &self.identity.member
    }

    /// Groups that it holds now.
    pub(crate) fn groups_held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Waits until the instance cannot go on; says why. A connection that reconnects is no reason, but the client's own task
    /// may have ended over bytes that it did not expect.
    pub(crate) async fn failed(&mut self) -> Failure {
        tokio::select! {
            Some(failure) = self.failures.recv() => failure,
            _ = self.requests.join_next() => Failure::Connection,
        }
    }

    /// Takes no more requests, answers those it has, lets go of its groups, leaves.
    pub(crate) async fn stop(mut self) {
        let patience = if self.connection.is_connected() { STOP_PATIENCE } else { LONE_STOP_PATIENCE };
        let deadline = Instant::now() + patience;
        self.stop_requests.send_replace(true);
        drain(&mut self.requests, deadline, "requests").await;
        self.stop_workers.send_replace(true);
        drain(&mut self.workers, deadline, "groups").await;
        for leave in &self.leave {
            // A membership that has ended already has nothing to leave; one that was told already needs no second word.
            let _ = leave.try_send(());
        }
        drain(&mut self.memberships, deadline, "memberships").await;
        self.end().await;
    }

    /// Drops everything at once: the copy cannot be used any more.
    pub(crate) async fn abandon(mut self) {
        for tasks in [&mut self.requests, &mut self.workers, &mut self.memberships] {
            tasks.shutdown().await;
        }
        self.end().await;
    }

    async fn end(mut self) {
        self.readers.shutdown().await;
        if timeout(LONE_STOP_PATIENCE, self.connection.drain()).await.is_err() {
            tracing::debug!("the connection was dropped with what it had buffered");
        }
        // The thread ends when its last applier has; joining it must not block the runtime.
        let joined = tokio::task::spawn_blocking(move || self.store_thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the store thread panicked");
        }
    }
}

/// Waits until the own site's log, this site's mirrors of others, and what the others answer that they have, are applied: a mirror that
/// was made a moment ago is empty. What comes no further for a while is left as it is, but not the own log.
async fn catch_up(config: &ServiceConfig, copy: &Copy) {
    for origin in &config.sites {
        let Some(mut health) = copy.health.get(origin).cloned() else { continue };
        let is_own = *origin == config.site;
        let mut last_seen = copy.progress_of(origin);
        // As of the start: what is logged meanwhile does not put the end off.
        let mut at_origin = None;
        loop {
            let reached = async {
                let reading = health.wait_for(|health| matches!(health, OriginHealth::Reading(_))).await;
                if let Ok(OriginHealth::Reading(last)) = reading.map(|health| *health) {
                    copy.applied(origin, last).await;
                }
                if let Some(watch) = copy.origins.get(origin).filter(|_| copy.losses.of(origin).is_none()) {
                    if at_origin.is_none() {
                        at_origin = watch.first_seen().await;
                    }
                    copy.applied(origin, at_origin.unwrap_or_default()).await;
                }
            };
            if timeout(CATCH_UP_LOOK, reached).await.is_ok() {
                break;
            }
            let applied = copy.progress_of(origin);
            if let OriginHealth::Reading(last) = *health.borrow() {
                tracing::info!(%origin, %applied, of = %last.max(at_origin.unwrap_or_default()), "reading a log");
            }
            if applied == last_seen && !is_own {
                tracing::warn!(%origin, %applied, "starting with an old copy of another site");
                break;
            }
            last_seen = applied;
        }
    }
}

/// A copy that was just rebuilt lacks the outcomes that the log had already dropped. The time up to which they may be
/// missing is the log's, not this machine's: when the log took this instance's own entry in the member list.
async fn note_missing_outcomes(
    config: &ServiceConfig,
    members: &Members,
    counts: &[(KindName, GroupCount)],
    jobs: &mpsc::Sender<StoreJob>,
) -> Result<(), StartError> {
    for (kind, _) in counts.iter().take(1) {
        if let Some(now) = patiently(|| members.changed_at(kind)).await? {
            let time = LogTime(now.0.saturating_sub(config.outcomes_ms));
            let job = StoreJob::OutcomesCompleteFrom { origin: config.site.clone(), time };
            // The store thread ends early only when the copy fails, which is reported by itself.
            let _ = jobs.send(job).await;
        }
    }
    Ok(())
}

async fn provision(
    connection: &Connection,
    config: &ServiceConfig,
    definitions: &HashMap<KindName, Arc<KindDefinition>>,
) -> Result<(), StartError> {
    let kinds = definitions.values().map(|it| (it.name.clone(), it.shared_settings())).collect();
    let options = ProvisionOptions {
        sites: config.sites.clone(),
        retention: config.retention(),
        replicas: config.replicas,
        max_command_log_bytes: config.max_command_log_bytes,
        duplicate_window: Duration::from_millis(config.duplicate_window_ms),
        ..ProvisionOptions::new(config.site.clone(), kinds)
    };
    let missing = plan(connection, &options).await?;
    if config.provision {
        missing.carry_out(connection).await?;
    } else if let Some(step) = missing.steps.first() {
        return Err(ProvisionError::Missing(step.to_string()).into());
    }
    Ok(())
}

/// Opens the copy; one that is damaged is set aside and made anew. Tells whether it is new.
pub(crate) async fn open_store(config: &ServiceConfig, rebuild: bool) -> Result<(Store, bool), StartError> {
    std::fs::create_dir_all(&config.data_dir).map_err(StartError::DataDir)?;
    let path = config.data_dir.join(format!("{}-{}.redb", config.site, config.instance));
    let mut options = StoreOptions::new(path.clone(), config.site.clone(), config.instance.clone());
    options.cache_bytes = config.cache_bytes;
    let opened = tokio::task::spawn_blocking(move || {
        let error = if rebuild {
            "it is not what was logged".to_owned()
        } else {
            match Store::open(&options) {
                Err(error) if error.is_cured_by_rebuilding() => describe(&error),
                other => return other.map_err(StartError::from),
            }
        };
        let aside = Store::set_aside(&path).map_err(StartError::DataDir)?;
        tracing::error!(error, set_aside = %aside.display(), "the copy is rebuilt from the streams");
        Store::open(&options).map_err(StartError::from)
    });
    let store = opened.await.map_err(|error| StartError::DataDir(std::io::Error::other(error)))??;
    let fresh = store.is_fresh();
    Ok((store, fresh))
}

/// Keeps a connection for publishing open: a lost one is thrown away and another opened.
async fn keep_fenced(connection: Connection, fenced: watch::Sender<Option<FencedConnection>>) {
    loop {
        match connection.open_fenced().await {
            Ok(mut open) => {
                fenced.send_replace(Some(open.clone()));
                open.lost().await;
                tracing::warn!("the connection for publishing is lost");
                fenced.send_replace(None);
            }
            Err(error) => tracing::debug!(error = describe(&error), "no connection for publishing"),
        }
        tokio::time::sleep(FENCED_PAUSE).await;
    }
}

/// Takes requests, a bounded number at a time, until `stop`; then answers those that have arrived. Ends at once when the
/// connection is gone for good.
async fn serve(mut micro: Micro, handler: Arc<RequestHandler>, max_requests: usize, mut stop: watch::Receiver<bool>) {
    let free = Arc::new(Semaphore::new(max_requests));
    let mut answering = JoinSet::new();
    let mut draining = false;
    loop {
        let requests = tokio::select! {
            requests = micro.next() => requests,
            () = stopped(&mut stop), if !draining => {
                draining = true;
                micro.drain().await;
                continue;
            }
        };
        let Some(requests) = requests else { break };
        let arrived = Instant::now();
        while answering.try_join_next().is_some() {}
        let mut reads = Vec::new();
        for request in requests {
            let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
                let text = format!("{max_requests} requests are being worked on: nothing was kept");
                handler.metrics.note_refusal(ErrorCode::Busy);
                request.respond(Answer::refuse(ErrorCode::Busy, text).into()).await;
                continue;
            };
            if handler.is_read_of_record(&request) {
                reads.push((request, permit));
                continue;
            }
            let handler = Arc::clone(&handler);
            answering.spawn(async move {
                handler.handle(request, arrived).await;
                drop(permit);
            });
        }
        if !reads.is_empty() {
            let handler = Arc::clone(&handler);
            answering.spawn(async move { handler.handle_reads(reads, arrived).await });
        }
    }
    while draining && answering.join_next().await.is_some() {}
}

/// Returns when the service is told to stop, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Calls again while JetStream refuses or does not answer, for a while.
async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let deadline = Instant::now() + LEADER_PATIENCE;
    loop {
        match call().await {
            Err(error) if Instant::now() < deadline => {
                tracing::debug!(error = describe(&error), "asking JetStream again");
                tokio::time::sleep(LEADER_PAUSE).await;
            }
            answered => return answered,
        }
    }
}

/// Joins a member list; joining twice is joining once.
async fn join(membership: &Membership) -> Result<(), StartError> {
    let joined = patiently(|| async {
        match membership.join().await {
            Err(JoinError::Api(error)) => Err(error),
            other => Ok(other),
        }
    });
    joined.await.map_err(JoinError::Api).and_then(|joined| joined).map_err(StartError::from)
}

async fn drain(tasks: &mut JoinSet<()>, deadline: Instant, what: &str) {
    let done = timeout_at(deadline, async { while tasks.join_next().await.is_some() {} }).await;
    if done.is_err() {
        tracing::warn!(what, left = tasks.len(), "stopping took too long: dropping the rest");
        tasks.shutdown().await;
    }
}

impl From<JoinError> for StartError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::NameTaken(taken) => Self::NameTaken(taken),
            JoinError::Api(error) => Self::Api(error),
            JoinError::Store(error) => Self::Store(error),
            JoinError::Contended(kind) => Self::Contended { kind },
        }
    }
}

/// A ULID is letters and digits, so that it is always a nonce.
fn mint_nonce() -> Nonce {
    let ulid = ulid::Ulid::generate().to_string();
    ulid.parse().unwrap_or_else(|error| panic!("a ULID is a nonce: {error}"))
}
