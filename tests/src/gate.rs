//! A gate between instances and their nats-server: a proxy that understands the protocol's frames and can lose, delay and
//! cut exactly what a test names.
//!
//! Faults that a scenario places "after the log ack and before the commit" are made here, from outside: no instance knows
//! of them. A frame that is lost stands for a message that the network or a client's buffer lost; a pipe that stalls
//! stands for a slow or half-dead connection, and everything behind the stalled frame waits as it would in TCP.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use freehold_sandbox::wait_until;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How long a rule may take to catch what it is meant for.
const CAUGHT: Duration = Duration::from_secs(60);

/// Where a frame is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// From the instance to the server.
    Server,
    /// From the server to the instance.
    Instance,
}

/// A message as it crosses the gate.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Where it is going.
    pub toward: Toward,
    /// Its subject.
    pub subject: String,
    /// Where its answer goes, if it asks for one.
    pub reply: Option<String>,
    /// Headers and payload.
    body: Vec<u8>,
    raw: Vec<u8>,
}

impl Frame {
    /// Whether headers and payload contain a text.
    pub fn contains(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// It is an update or a result on its way to the records log.
    pub fn is_decision(&self) -> bool {
        self.toward == Toward::Server && self.is_record()
    }

    /// The records log delivers an update or a result.
    pub fn is_delivery(&self) -> bool {
        self.toward == Toward::Instance && self.is_record()
    }

    /// It is a command on its way into or out of a command log.
    pub fn is_command(&self) -> bool {
        self.family() == Some("cmd")
    }

    fn is_record(&self) -> bool {
        matches!(self.family(), Some("rec" | "res"))
    }

    /// The third token of the subjects that streams take.
    fn family(&self) -> Option<&str> {
        self.subject.strip_prefix("fh.")?.split('.').nth(1)
    }
}

/// Tells the answers to some requests and publishes from all other answers. Every frame must be shown to it.
pub struct Answers {
    asks: Box<dyn Fn(&Frame) -> bool + Send + Sync>,
    awaited: Mutex<HashSet<String>>,
}

impl Answers {
    /// The answers to what this picks out.
    pub fn to(asks: impl Fn(&Frame) -> bool + Send + Sync + 'static) -> Self {
        Self { asks: Box::new(asks), awaited: Mutex::default() }
    }

    /// Whether this frame is such an answer.
    pub fn is_one(&self, frame: &Frame) -> bool {
        let mut awaited = lock(&self.awaited);
        if frame.toward == Toward::Server && (self.asks)(frame) {
            awaited.extend(frame.reply.clone());
        }
        frame.toward == Toward::Instance && awaited.contains(&frame.subject)
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is lost; what follows goes on.
    Lose,
    /// It waits, and what follows on the same connection in the same direction behind it.
    Stall,
}

type Rule = Arc<dyn Fn(&Frame) -> Verdict + Send + Sync>;

/// What becomes of stalled frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stalled {
    Wait,
    GoOn,
    Vanish,
}

struct Shared {
    /// The rule in force, and its number.
    rule: Mutex<(u64, Rule)>,
    /// The number of the rule in force, and what becomes of the frames that the ones before it have stalled.
    stalled: watch::Sender<(u64, Stalled)>,
    caught: Mutex<Vec<String>>,
    /// Counts up; connections that were opened before are cut.
    cut: watch::Sender<u64>,
    /// Stalled frames that went on.
    late: AtomicUsize,
    /// They go on without what they tell the log to expect.
    unfenced: AtomicBool,
}

/// The gate. Dropping it cuts all connections.
pub struct Gate {
    port: u16,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Gate {
    /// Opens a gate before a server, `nats://host:port`.
    pub async fn open(server: &str) -> Result<Self> {
        let upstream = server.strip_prefix("nats://").unwrap_or(server).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            rule: Mutex::new((0, Arc::new(|_| Verdict::Pass))),
            stalled: watch::channel((0, Stalled::Wait)).0,
            caught: Mutex::default(),
            cut: watch::channel(0).0,
            late: AtomicUsize::new(0),
            unfenced: AtomicBool::new(false),
        });
        let accepting = tokio::spawn(accept(listener, upstream, Arc::clone(&shared))).abort_handle();
        Ok(Self { port, shared, accepting })
    }

    /// Where instances connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Puts a rule in force; what an earlier one has stalled goes on.
    pub fn rule(&self, rule: impl Fn(&Frame) -> Verdict + Send + Sync + 'static) {
        self.set(Arc::new(rule), Stalled::GoOn);
    }

    /// Lifts the rule; what it has stalled goes on.
    pub fn lift(&self) {
        self.set(Arc::new(|_| Verdict::Pass), Stalled::GoOn);
    }

    /// Lifts the rule and cuts all connections; what it has stalled is lost.
    pub fn lose_and_lift(&self) {
        self.set(Arc::new(|_| Verdict::Pass), Stalled::Vanish);
        self.cut();
    }

    /// Cuts the instances' side of all connections. What is stalled on the way to the server waits on and can still arrive.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cut| *cut += 1);
    }

    /// Waits until the rule has lost or stalled so many frames; gives their subjects.
    pub async fn caught(&self, count: usize) -> Result<Vec<String>> {
        let enough = || async { lock(&self.shared.caught).len() >= count };
        let caught = wait_until("the gate catches what it is meant for", CAUGHT, enough).await;
        let subjects = lock(&self.shared.caught).clone();
        caught.with_context(|| format!("caught {subjects:?}"))?;
        Ok(subjects)
    }

    /// From now on stalled publishes go on without what they tell the log to expect: as if nothing guarded the log. For
    /// tests of the tests.
    pub fn unfence_what_is_late(&self) {
        self.shared.unfenced.store(true, Ordering::Relaxed);
    }

    /// Waits until a frame that was stalled has gone on.
    pub async fn late_arrival(&self) -> Result<()> {
        let arrived = || async { self.shared.late.load(Ordering::Relaxed) > 0 };
        Ok(wait_until("what was stalled arrives late", CAUGHT, arrived).await?)
    }

    fn set(&self, rule: Rule, stalled: Stalled) {
        let number = {
            let mut in_force = lock(&self.shared.rule);
            lock(&self.shared.caught).clear();
            *in_force = (in_force.0 + 1, rule);
            in_force.0
        };
        self.shared.stalled.send_replace((number, stalled));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
        self.lose_and_lift();
    }
}

async fn accept(listener: TcpListener, upstream: String, shared: Arc<Shared>) {
    while let Ok((instance, _)) = listener.accept().await {
        // A server that is down shows as a connection that closes at once.
        let Ok(server) = TcpStream::connect(&upstream).await else { continue };
        if instance.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
            continue;
        }
        let (from_instance, to_instance) = instance.into_split();
        let (from_server, to_server) = server.into_split();
        let pipe = |toward| Pipe { toward, shared: Arc::clone(&shared), cut: shared.cut.subscribe() };
        tokio::spawn(pipe(Toward::Server).run(from_instance, to_server));
        tokio::spawn(pipe(Toward::Instance).run(from_server, to_instance));
    }
}

/// One direction of a connection.
struct Pipe {
    toward: Toward,
    shared: Arc<Shared>,
    cut: watch::Receiver<u64>,
}

impl Pipe {
    async fn run(mut self, from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut from = BufReader::with_capacity(1 << 16, from);
        let mut cut = self.cut.clone();
        loop {
            // What an instance has sent before its connection is cut still arrives.
            let frame = tokio::select! {
                biased;
                frame = read_frame(&mut from) => frame,
                _ = cut.changed() => return,
            };
            let Ok(Some(frame)) = frame else { return };
            let Some((raw, delayed)) = self.judge(frame).await else { continue };
            if to.write_all(&raw).await.is_err() {
                return;
            }
            if delayed {
                self.shared.late.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The bytes that go on, if they do, and whether they were stalled before.
    async fn judge(&mut self, frame: Line) -> Option<(Vec<u8>, bool)> {
        let message = match frame {
            Line::Control(raw) => return Some((raw, false)),
            Line::Message { subject, reply, body, raw } => Frame { toward: self.toward, subject, reply, body, raw },
        };
        let mut stalled = self.shared.stalled.subscribe();
        let (in_force, rule) = lock(&self.shared.rule).clone();
        match rule(&message) {
            Verdict::Pass => Some((message.raw, false)),
            Verdict::Lose => {
                lock(&self.shared.caught).push(message.subject);
                None
            }
            Verdict::Stall => {
                lock(&self.shared.caught).push(message.subject);
                let cut = self.cut.clone();
                let fate = stalled.wait_for(|(rule, _)| *rule > in_force).await.map(|fate| fate.1);
                // An instance whose connection was cut hears nothing more; the server still may.
                let gone = self.toward == Toward::Instance && cut.has_changed().unwrap_or(true);
                let mut raw = message.raw;
                if self.shared.unfenced.load(Ordering::Relaxed) {
                    unfence(&mut raw);
                }
                (matches!(fate, Ok(Stalled::GoOn)) && !gone).then_some((raw, true))
            }
        }
    }
}

/// What one side sends.
enum Line {
    Control(Vec<u8>),
    Message { subject: String, reply: Option<String>, body: Vec<u8>, raw: Vec<u8> },
}

/// Reads one frame; nothing at the end.
async fn read_frame(from: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Option<Line>> {
    let mut raw = Vec::new();
    if from.read_until(b'\n', &mut raw).await? == 0 {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&raw).into_owned();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    match words.first().copied() {
        Some(verb @ ("PUB" | "HPUB" | "MSG" | "HMSG")) => {
            let length: usize = words.last().and_then(|word| word.parse().ok()).unwrap_or_default();
            let mut body = vec![0; length + 2];
            from.read_exact(&mut body).await?;
            raw.extend_from_slice(&body);
            let subject = words.get(1).copied().unwrap_or_default().to_owned();
            // The words around it: the verb, the subject, the subscription's number, one or two lengths.
            let (place, words_without) = match verb {
                "PUB" => (2, 3),
                "HPUB" => (2, 4),
                "MSG" => (3, 4),
                _ => (3, 5),
            };
            let reply = words.get(place).filter(|_| words.len() > words_without).map(|word| (*word).to_owned());
            Ok(Some(Line::Message { subject, reply, body, raw }))
        }
        Some("INFO") => Ok(Some(Line::Control(without_other_servers(&line).into_bytes()))),
        _ => Ok(Some(Line::Control(raw))),
    }
}

/// The server's greeting without the addresses of its cluster: an instance must not find a way around the gate.
fn without_other_servers(line: &str) -> String {
    let info = line.trim_start_matches("INFO").trim();
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(info) {
        Ok(mut info) => {
            info.remove("connect_urls");
            format!("INFO {}\r\n", serde_json::Value::Object(info))
        }
        Err(_) => line.to_owned(),
    }
}

/// Gives the headers with the expectations names that mean nothing to the server.
fn unfence(raw: &mut [u8]) {
    let places: Vec<usize> = (0..raw.len()).filter(|place| raw[*place..].starts_with(b"Nats-Expected-")).collect();
    for place in places {
        raw[place] = b'X';
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
