//! A link between a site and the hub that can be cut: a TCP proxy in this process.
//!
//! Cut means that all connections are closed and new ones are closed at once; both servers go on. It carries bytes and
//! looks at none of them.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::poll::{DeadlinePassed, wait_until};

/// Closing some local connections takes no longer than this.
const CUT_DEADLINE: Duration = Duration::from_secs(5);

/// A proxy in front of the hub's leaf node port. Dropping it cuts the link for good.
#[derive(Debug)]
pub(super) struct Link {
    port: u16,
    state: watch::Sender<State>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// Whether the link carries, and how often it was cut: a connection ends with the next cut, however short.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_cut: bool,
    cut_count: u64,
}

impl Link {
    /// Starts to carry connections to `target`. Needs a tokio runtime that lives as long as the link.
    pub(super) async fn start(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let state = watch::Sender::new(State::default());
        let connections = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, target, state.subscribe(), Arc::clone(&connections)));
        Ok(Self { port, state, connections, task })
    }

    /// Where the site connects instead of at the hub.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections, and every new one until [`heal`](Self::heal). Returns when they are closed.
    pub(super) async fn cut(&self) -> Result<(), DeadlinePassed> {
        self.state.send_modify(|state| {
            state.is_cut = true;
            state.cut_count += 1;
        });
        wait_until("the connections of a cut link to close", CUT_DEADLINE, || async {
            self.connections.load(Ordering::Acquire) == 0
        })
        .await
    }

    /// Carries again.
    pub(super) fn heal(&self) {
        self.state.send_modify(|state| state.is_cut = false);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn accept(listener: TcpListener, target: u16, state: watch::Receiver<State>, connections: Arc<AtomicUsize>) {
    // Aborting this task drops the set, and with it all connections.
    let mut carried = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = carried.join_next() => continue,
        };
        let Ok((inbound, _)) = accepted else { continue };
        let counted = Counted::new(&connections);
        let now = *state.borrow();
        if !now.is_cut {
            carried.spawn(carry(inbound, target, now.cut_count, state.clone(), counted));
        }
    }
}

async fn carry(
    mut inbound: TcpStream,
    target: u16,
    cut_count: u64,
    mut state: watch::Receiver<State>,
    counted: Counted,
) {
    let copy = async {
        let mut outbound = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
        inbound.set_nodelay(true)?;
        outbound.set_nodelay(true)?;
        copy_bidirectional(&mut inbound, &mut outbound).await
    };
    tokio::select! {
        copied = copy => if let Err(error) = copied {
            tracing::debug!(%error, target, "a link's connection ended");
        },
        _ = state.wait_for(|state| state.cut_count != cut_count) => {}
    }
    // Not before the sockets: whoever waits for the count wants them closed.
    drop(inbound);
    drop(counted);
}
