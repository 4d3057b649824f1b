//! The simulated kind: a record is the list of the commands that changed it.

use std::sync::Arc;

use freehold_core::{
    CommandId, CommandMessage, CommandName, Decider, Decision, DecisionContext, EmittedCommand, ErrorCode, GroupCount,
    HomeRule, Json, KindDefinition, KindName, KindSettings, RecordChange, RecordId, Refusal, Rehome, SiteName,
};
use serde::{Deserialize, Serialize};

pub(crate) fn kind() -> KindName {
    "list".parse().unwrap()
}

pub(crate) fn site(index: usize) -> SiteName {
    ["ewr", "jfk", "lga"][index].parse().unwrap()
}

/// The fields of `append`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Append {
    /// Another record to append to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) then: Option<RecordId>,
}

struct AppendRule;

impl Decider for AppendRule {
    fn name(&self) -> CommandName {
        "append".parse().unwrap()
    }

    fn validate(&self, _: &Json) -> Result<(), Refusal> {
        Ok(())
    }

    fn decide(&self, body: &Json, record: Option<&Json>, context: &DecisionContext<'_>) -> Decision {
        let Ok(Append { then }) = body.read() else {
            return Decision::Refused(Refusal::new(ErrorCode::Invalid, "not the fields of append"));
        };
        let mut list: Vec<String> = record.map(|record| record.read().unwrap()).unwrap_or_default();
        list.push(context.command_id.to_string());
        let emitted = |id| EmittedCommand {
            kind: kind(),
            id,
            name: self.name(),
            body: Json::from_value(&Append::default()).unwrap(),
        };
        Decision::Accepted {
            change: RecordChange::Becomes(Json::from_value(&list).unwrap()),
            reply: Json::from_value(&list.len()).unwrap(),
            emits: then.map(emitted).into_iter().collect(),
        }
    }

    fn request_schema(&self) -> serde_json::Value {
        serde_json::Value::Bool(true)
    }

    fn reply_schema(&self) -> serde_json::Value {
        serde_json::Value::Bool(true)
    }
}

pub(crate) fn definition() -> Arc<KindDefinition> {
    let mut definition = KindDefinition::new(kind(), HomeRule::Prefix).with(AppendRule);
    definition.settings = KindSettings { groups: GroupCount::new(1).unwrap(), ..KindSettings::default() };
    Arc::new(definition)
}

pub(crate) fn append(id: &RecordId, command_id: &str, then: Option<RecordId>) -> CommandMessage {
    CommandMessage {
        kind: kind(),
        id: id.clone(),
        name: "append".parse().unwrap(),
        command_id: CommandId::from_caller(command_id).unwrap(),
        if_version: None,
        owner_down: None,
        body: Json::from_value(&Append { then }).unwrap(),
    }
}

pub(crate) fn rehome(id: &RecordId, command_id: &str, to: SiteName) -> CommandMessage {
    CommandMessage {
        name: freehold_core::REHOME_COMMAND.parse().unwrap(),
        body: Json::from_value(&Rehome { to }).unwrap(),
        ..append(id, command_id, None)
    }
}
