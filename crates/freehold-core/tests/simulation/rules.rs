//! The simulated kind: counters whose commands do everything that a rule can do, badly included.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use freehold_core::{
    CommandId, CommandMessage, CommandName, Decider, Decision, DecisionContext, EmittedCommand, ErrorCode, GroupCount,
    HomeRule, Json, KindDefinition, KindName, KindSettings, RecordChange, RecordId, RecordVersion, Refusal, SiteName,
};
use serde::{Deserialize, Serialize};

pub(crate) fn site() -> SiteName {
    "ewr".parse().unwrap()
}

pub(crate) fn kind() -> KindName {
    "counter".parse().unwrap()
}

/// Two releases of the service; the new rules reject what the old ones accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    Old,
    New,
}

impl Rules {
    fn most_added(self) -> i64 {
        match self {
            Self::Old => 100,
            Self::New => 50,
        }
    }
}

/// The state of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counter {
    pub(crate) n: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) pad: String,
}

/// The fields of every command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Fields {
    #[serde(default)]
    pub(crate) n: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<RecordId>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) pad: String,
}

pub(crate) const COMMANDS: [&str; 9] =
    ["create", "replace", "add", "delete", "touch", "panic", "abort", "emit", "grow"];

struct Rule {
    name: &'static str,
    rules: Rules,
    aborted: Arc<AtomicBool>,
}

/// The kind as one instance knows it. `aborted` tells that a rule has killed the process.
pub(crate) fn definition(rules: Rules, groups: u16, aborted: &Arc<AtomicBool>) -> KindDefinition {
    let mut definition = KindDefinition::new(kind(), HomeRule::Prefix);
    definition.settings = KindSettings { groups: GroupCount::new(groups).unwrap(), ..KindSettings::default() };
    for name in COMMANDS {
        definition = definition.with(Rule { name, rules, aborted: Arc::clone(aborted) });
    }
    definition
}

fn rejected(reason: &str) -> Decision {
    Decision::Refused(Refusal::new(ErrorCode::Rejected, reason))
}

fn becomes(counter: &Counter) -> Decision {
    accepted(RecordChange::Becomes(Json::from_value(counter).unwrap()), counter.n, Vec::new())
}

fn accepted(change: RecordChange, reply: i64, emits: Vec<EmittedCommand>) -> Decision {
    Decision::Accepted { change, reply: Json::from_value(&reply).unwrap(), emits }
}

impl Decider for Rule {
    fn name(&self) -> CommandName {
        self.name.parse().unwrap()
    }

    fn validate(&self, _: &Json) -> Result<(), Refusal> {
        Ok(())
    }

    fn decide(&self, body: &Json, record: Option<&Json>, _: &DecisionContext<'_>) -> Decision {
        let Ok(fields) = body.read::<Fields>() else {
            return Decision::Refused(Refusal::new(ErrorCode::Invalid, "not the fields of a counter's command"));
        };
        let counter = record.map(|record| record.read::<Counter>().unwrap());
        match (self.name, counter) {
            ("create", Some(_)) => rejected("exists"),
            ("create", None) => becomes(&Counter { n: fields.n, pad: String::new() }),
            ("emit", counter) => {
                let mut counter = counter.unwrap_or_default();
                counter.n += 1;
                let emitted = |to: RecordId| EmittedCommand {
                    kind: kind(),
                    id: to,
                    name: "touch".parse().unwrap(),
                    body: Json::from_value(&Fields::default()).unwrap(),
                };
                let emits = std::iter::repeat_n(fields.to, usize::try_from(fields.n).unwrap()).flatten().map(emitted);
                accepted(RecordChange::Becomes(Json::from_value(&counter).unwrap()), counter.n, emits.collect())
            }
            ("panic", _) => panic!("poison: {}", fields.pad),
            ("abort", _) => {
                self.aborted.store(true, Ordering::SeqCst);
                accepted(RecordChange::Unchanged, 0, Vec::new())
            }
            (_, None) => rejected("missing"),
            ("replace", Some(counter)) => becomes(&Counter { n: fields.n, ..counter }),
            ("add", Some(_)) if fields.n > self.rules.most_added() => rejected("too much"),
            ("add", Some(counter)) => becomes(&Counter { n: counter.n + fields.n, ..counter }),
            ("grow", Some(counter)) => becomes(&Counter { pad: fields.pad, ..counter }),
            ("delete", Some(_)) => accepted(RecordChange::Deleted, 0, Vec::new()),
            (_, Some(counter)) => accepted(RecordChange::Unchanged, counter.n, Vec::new()),
        }
    }

    fn request_schema(&self) -> serde_json::Value {
        serde_json::Value::Bool(true)
    }

    fn reply_schema(&self) -> serde_json::Value {
        serde_json::Value::Bool(true)
    }
}

/// A command for a record, to be refined.
pub(crate) fn command(id: &str, name: &str, command_id: &str, fields: &Fields) -> CommandMessage {
    CommandMessage {
        kind: kind(),
        id: id.parse().unwrap(),
        name: name.parse().unwrap(),
        command_id: CommandId::from_caller(command_id).unwrap(),
        if_version: None::<RecordVersion>,
        owner_down: None,
        body: Json::from_value(fields).unwrap(),
    }
}

/// Panics of the simulated rules would fill the output; all others are shown as ever.
pub(crate) fn silence_poison() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload().downcast_ref::<String>();
            if !text.is_some_and(|text| text.starts_with("poison")) {
                shown(info);
            }
        }));
    });
}
