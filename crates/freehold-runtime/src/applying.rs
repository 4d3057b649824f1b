//! The tasks that fill the copy: an applier for each origin, and the one thread that writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use freehold_core::{GroupCount, Incarnation, KindName, SiteName};
use freehold_jetstream::Connection;
use freehold_store::Store;

use crate::applier::{Applier, OriginHealth};
use crate::config::ServiceConfig;
use crate::confirmations::{Committed, Confirmations};
use crate::copy::{Copy, RouteSignals, Waiters};
use crate::failure::Failure;
use crate::origin_watch::{OriginWatch, Source};
use crate::service::StartError;
use crate::store_thread::{STORE_QUEUE_LENGTH, StoreJob, StoreThread};

/// The tasks that fill the copy.
pub(crate) struct Applying {
    pub(crate) copy: Copy,
    pub(crate) jobs: mpsc::Sender<StoreJob>,
    pub(crate) store_thread: std::thread::JoinHandle<()>,
    pub(crate) readers: JoinSet<()>,
    pub(crate) origins: Vec<(SiteName, watch::Receiver<OriginHealth>)>,
    pub(crate) committed: Arc<Committed>,
}

impl Applying {
    pub(crate) fn start(
        connection: &Connection,
        config: &ServiceConfig,
        group_counts: &Arc<HashMap<KindName, GroupCount>>,
        store: Store,
        log: Incarnation,
        read_at_origin: Option<&SiteName>,
        failures: mpsc::Sender<Failure>,
    ) -> Result<Self, StartError> {
        let (writer, reader) = store.into_parts();
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
        let confirmations = Arc::new(Confirmations::new(config.site.clone(), log, Arc::clone(&committed)));
        let watches: HashMap<_, _> = others.map(|origin| (origin.clone(), Arc::new(OriginWatch::new()))).collect();
        let progress = Arc::new(receivers);
        let origins = Arc::new(watches);
        let routes = Arc::new(RouteSignals::new(group_counts));
        let copy = Copy {
            reader,
            waiters: Arc::clone(&waiters),
            progress,
            origins,
            confirmations,
            routes: Arc::clone(&routes),
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
            committed: Arc::clone(&committed),
            failures,
            suspects: HashSet::new(),
        };
        let store_thread = std::thread::Builder::new().name("freehold-store".to_owned()).spawn(|| thread.run());
        let store_thread = store_thread.map_err(StartError::DataDir)?;
        let (mut readers, mut origins) = (JoinSet::new(), Vec::new());
        for origin in &config.sites {
            let (health, watch_health) = watch::channel(OriginHealth::Opening);
            origins.push((origin.clone(), watch_health));
            if let Some(watch) = copy.origins.get(origin) {
                readers.spawn(Arc::clone(watch).run(connection.clone(), origin.clone()));
            }
            let applier = Applier {
                connection: connection.clone(),
                origin: origin.clone(),
                kinds: kinds.clone(),
                copy: copy.clone(),
                jobs: jobs.clone(),
                health,
                first: if read_at_origin == Some(origin) { Source::Origin } else { Source::Site },
            };
            readers.spawn(applier.run());
        }
        Ok(Self { copy, jobs, store_thread, readers, origins, committed })
    }
}
