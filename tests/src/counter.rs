//! A kind made for tests: a counter that remembers what each client has done to it.
//!
//! Every `add` names its client and the client's own number for it, counted from 1 without gaps. The record keeps the last
//! number of each client and every breach of the order, so that a lost, repeated or reordered command shows in
//! the record itself and not only in the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use freehold_core::{
    Command, DecisionContext, EmittedCommand, HomeRule, Json, Kind, KindDefinition, Never, Record, Rejection,
    TypedCommand, Verdict,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counter {
    /// Sum of all amounts.
    pub total: i64,
    /// Commands that changed the record.
    pub changes: u64,
    /// The last number of each client.
    pub last: BTreeMap<String, u64>,
    /// What should never happen.
    pub breaches: Vec<String>,
    /// Carried along to make the record large.
    #[serde(default)]
    pub ballast: String,
}

impl Record for Counter {
    const KIND: &'static str = "counter";
}

/// What callers get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Total {
    /// The sum behind the command.
    pub total: i64,
    /// The record's changes behind the command.
    pub changes: u64,
}

impl Counter {
    fn reply(&self) -> Total {
        Total { total: self.total, changes: self.changes }
    }
}

/// Adds an amount, in the client's own order.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Add {
    /// What to add.
    pub amount: i64,
    /// Who adds; nothing where the order does not matter.
    #[serde(default)]
    pub client: Option<String>,
    /// The client's own number for this, from 1.
    #[serde(default)]
    pub number: u64,
    /// The rule takes at least this long.
    #[serde(default)]
    pub slow_ms: u64,
}

/// What an instance says in its log when it begins a decision that takes long.
pub const SLOW: &str = "a slow decision";

impl Command for Add {
    const NAME: &'static str = "add";
    type Record = Counter;
    type Reply = Total;
    type Rejection = Never;

    fn decide(self, record: Option<Counter>, context: &DecisionContext<'_>) -> Verdict<Self> {
        let mut counter = record.unwrap_or_default();
        if self.slow_ms > 0 {
            // For tests that wait until a holder is at work.
            tracing::info!(id = %context.id, "{SLOW}");
            std::thread::sleep(Duration::from_millis(self.slow_ms));
        }
        if let Some(client) = self.client {
            let last = counter.last.entry(client.clone()).or_default();
            if self.number != *last + 1 {
                counter.breaches.push(format!("{client}: {} behind {last}", self.number));
            }
            *last = self.number;
        }
        counter.total += self.amount;
        counter.changes += 1;
        let reply = counter.reply();
        Verdict::accept(counter, reply)
    }
}

/// Takes an amount away, if there is enough.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Take {
    /// What to take.
    pub amount: i64,
}

/// There is not enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("there is not enough to take {wanted}")]
pub struct NotEnough {
    wanted: i64,
}

impl Rejection for NotEnough {
    fn code(&self) -> &'static str {
        "not_enough"
    }
}

impl Command for Take {
    const NAME: &'static str = "take";
    type Record = Counter;
    type Reply = Total;
    type Rejection = NotEnough;

    fn decide(self, record: Option<Counter>, _context: &DecisionContext<'_>) -> Verdict<Self> {
        let mut counter = record.unwrap_or_default();
        if counter.total < self.amount {
            return Verdict::reject(NotEnough { wanted: self.amount });
        }
        counter.total -= self.amount;
        counter.changes += 1;
        let reply = counter.reply();
        Verdict::accept(counter, reply)
    }
}

/// `take` as a later release of the service has it: nobody takes more than 10 at a time.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StrictTake {
    /// What to take.
    pub amount: i64,
}

/// More than anybody may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{wanted} is more than the {MOST_TAKEN} that anybody may take")]
pub struct TooMuch {
    wanted: i64,
}

/// The most that the later release lets anybody take.
pub const MOST_TAKEN: i64 = 10;

impl Rejection for TooMuch {
    fn code(&self) -> &'static str {
        "too_much"
    }
}

impl Command for StrictTake {
    const NAME: &'static str = "take";
    type Record = Counter;
    type Reply = Total;
    type Rejection = TooMuch;

    fn decide(self, record: Option<Counter>, _context: &DecisionContext<'_>) -> Verdict<Self> {
        let mut counter = record.unwrap_or_default();
        if self.amount > MOST_TAKEN {
            return Verdict::reject(TooMuch { wanted: self.amount });
        }
        counter.total -= self.amount;
        counter.changes += 1;
        let reply = counter.reply();
        Verdict::accept(counter, reply)
    }
}

/// Deletes the counter.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clear {}

impl Command for Clear {
    const NAME: &'static str = "clear";
    type Record = Counter;
    type Reply = Total;
    type Rejection = Never;

    fn decide(self, record: Option<Counter>, _context: &DecisionContext<'_>) -> Verdict<Self> {
        Verdict::delete(record.unwrap_or_default().reply())
    }
}

/// Makes the record large.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inflate {
    /// How many bytes it is to carry.
    pub bytes: usize,
}

impl Command for Inflate {
    const NAME: &'static str = "inflate";
    type Record = Counter;
    type Reply = Total;
    type Rejection = Never;

    fn decide(self, record: Option<Counter>, _context: &DecisionContext<'_>) -> Verdict<Self> {
        let mut counter = record.unwrap_or_default();
        counter.ballast = "x".repeat(self.bytes);
        counter.changes += 1;
        let reply = counter.reply();
        Verdict::accept(counter, reply)
    }
}

/// Breaks whoever decides it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Poison {
    /// How.
    pub how: Harm,
}

/// What a poisonous command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// The rule panics.
    Panic,
    /// The process ends at once.
    Abort,
}

impl Command for Poison {
    const NAME: &'static str = "poison";
    type Record = Counter;
    type Reply = Total;
    type Rejection = Never;

    fn decide(self, _record: Option<Counter>, _context: &DecisionContext<'_>) -> Verdict<Self> {
        match self.how {
            Harm::Panic => panic!("poisoned"),
            Harm::Abort => std::process::abort(),
        }
    }
}

/// Adds here and asks for the same on another record.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassOn {
    /// What to add.
    pub amount: i64,
    /// The other record.
    pub to: String,
}

impl Command for PassOn {
    const NAME: &'static str = "pass-on";
    type Record = Counter;
    type Reply = Total;
    type Rejection = Never;

    fn decide(self, record: Option<Counter>, context: &DecisionContext<'_>) -> Verdict<Self> {
        let mut counter = record.unwrap_or_default();
        counter.total += self.amount;
        counter.changes += 1;
        let reply = counter.reply();
        let accepted = Verdict::accept(counter, reply);
        let body = Json::from_value(&serde_json::json!({ "amount": self.amount }));
        match (self.to.parse(), body, Add::NAME.parse(), Counter::KIND.parse()) {
            (Ok(id), Ok(body), Ok(name), Ok(kind)) => accepted.emit(EmittedCommand { kind, id, name, body }),
            _ => panic!("{}: {:?} is no record id", context.id, self.to),
        }
    }
}

/// The kind, with home rule "prefix".
pub fn definition() -> KindDefinition {
    let mut definition = Kind::<Counter>::new()
        .command::<Add>()
        .command::<Take>()
        .command::<Clear>()
        .command::<Inflate>()
        .command::<Poison>()
        .command::<PassOn>()
        .build();
    definition.home = HomeRule::Prefix;
    definition
}

/// The kind as a later release of the service has it, with other rules and the same settings.
pub fn strict_definition() -> KindDefinition {
    definition().with(TypedCommand::<StrictTake>::default())
}
