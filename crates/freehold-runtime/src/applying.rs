//! The tasks that fill the copy: an applier for each origin, and the one thread that writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use freehold_core::{CopyWrite as _, GroupCount, Incarnation, KindName, SiteName, Takeovers};
use freehold_jetstream::{Connection, SitesLog};
use freehold_store::{OriginState, Store};

use crate::applier::{Applier, OriginHealth};
use crate::config::ServiceConfig;
use crate::confirmations::{Committed, Confirmations};
use crate::copy::{Copy, RouteSignals, Waiters};
use crate::failure::Failure;
use crate::loss_care::LossCare;
use crate::losses::{Losses, look};
use crate::origin_watch::{OriginWatch, Source};
use crate::service::StartError;
use crate::store_thread::{STORE_QUEUE_LENGTH, StoreJob, StoreThread};

/// The tasks that fill the copy.
pub(crate) struct Applying {
    pub(crate) copy: Copy,
    pub(crate) jobs: mpsc::Sender<StoreJob>,
    pub(crate) store_thread: std::thread::JoinHandle<()>,
    pub(crate) readers: JoinSet<()>,
    pub(crate) committed: Arc<Committed>,
}

/// What an instance starts from.
pub(crate) struct Basis {
    pub(crate) store: Store,
    /// The life of the own site's log.
    pub(crate) log: Incarnation,
    /// All takeovers that are known.
    pub(crate) takeovers: Takeovers,
    /// The log of this site is read at its origin first.
    pub(crate) read_at_origin: Option<SiteName>,
}

impl Applying {
    pub(crate) async fn start(
        connection: &Connection,
        config: &ServiceConfig,
        group_counts: &Arc<HashMap<KindName, GroupCount>>,
        basis: Basis,
        failures: mpsc::Sender<Failure>,
    ) -> Result<Self, StartError> {
        let Basis { store, log, takeovers, read_at_origin } = basis;
        let here = SitesLog::new(connection.clone(), config.site.clone());
        let mut found = Vec::new();
        for origin in config.sites.iter().filter(|origin| **origin != config.site) {
            found.push((origin.clone(), look(&here, &takeovers, origin).await?));
        }
        let losses = Arc::new(Losses::new(found));
        let (mut writer, reader) = store.into_parts();
        let teach = |tables: &mut freehold_store::Transaction<'_>| {
            let own = tables.origin(&config.site)?;
            tables.put_origin(&config.site, OriginState { incarnation: Some(log.clone()), ..own });
            tables.put_takeovers(&takeovers)
        };
        writer.transact(teach).map_err(StartError::Store)?;
        let snapshot = reader.snapshot().map_err(StartError::Store)?;
        let (mut senders, mut receivers) = (HashMap::new(), HashMap::new());
        for origin in &config.sites {
            let applied = snapshot.origin(origin).map_err(StartError::Store)?.applied;
            let (sender, receiver) = watch::channel(applied);
            senders.insert(origin.clone(), sender);
            receivers.insert(origin.clone(), receiver);
        }
        drop(snapshot);
        let waiters = Arc::new(Waiters::default());
        let others = config.sites.iter().filter(|origin| **origin != config.site);
        let kinds: Vec<_> = group_counts.keys().cloned().collect();
        let committed = Arc::new(Committed::new(others.clone(), &kinds));
        let confirmations = Arc::new(Confirmations::new(config.site.clone(), log.clone(), Arc::clone(&committed)));
        let watches: HashMap<_, _> = others.map(|origin| (origin.clone(), Arc::new(OriginWatch::new()))).collect();
        let progress = Arc::new(receivers);
        let origins = Arc::new(watches);
        let routes = Arc::new(RouteSignals::new(group_counts));
        let (mut health_senders, mut health) = (HashMap::new(), HashMap::new());
        for origin in &config.sites {
            let (sender, receiver) = watch::channel(OriginHealth::Opening);
            health_senders.insert(origin.clone(), sender);
            health.insert(origin.clone(), receiver);
        }
        let copy = Copy {
            reader,
            waiters: Arc::clone(&waiters),
            progress,
            origins,
            confirmations,
            routes: Arc::clone(&routes),
            losses: Arc::clone(&losses),
            health: Arc::new(health),
        };
        let (jobs, queue) = mpsc::channel(STORE_QUEUE_LENGTH);
        let thread = StoreThread {
            writer,
            retention: config.retention(),
            group_counts: Arc::clone(group_counts),
            jobs: queue,
            waiters,
            routes,
            progress: senders,
            site: config.site.clone(),
            life: log.counter(),
            losses,
            committed: Arc::clone(&committed),
            failures,
            suspects: HashSet::new(),
        };
        let store_thread = std::thread::Builder::new().name("freehold-store".to_owned()).spawn(|| thread.run());
        let store_thread = store_thread.map_err(StartError::DataDir)?;
        let mut readers = JoinSet::new();
        for (origin, health) in health_senders {
            if let Some(watch) = copy.origins.get(&origin) {
                let care = LossCare {
                    connection: connection.clone(),
                    site: config.site.clone(),
                    origin: origin.clone(),
                    sites: config.sites.clone(),
                    copy: copy.clone(),
                    jobs: jobs.clone(),
                };
                readers.spawn(care.run());
                readers.spawn(Arc::clone(watch).run(connection.clone(), origin.clone()));
            }
            let first = if read_at_origin.as_ref() == Some(&origin) { Source::Origin } else { Source::Site };
            let applier = Applier {
                connection: connection.clone(),
                site: config.site.clone(),
                origin,
                kinds: kinds.clone(),
                copy: copy.clone(),
                jobs: jobs.clone(),
                health,
                first,
            };
            readers.spawn(applier.run());
        }
        Ok(Self { copy, jobs, store_thread, readers, committed })
    }
}
