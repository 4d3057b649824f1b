//! Command logs of all kinds: every command that the simulated rules know, bodies of all sizes, and what nobody can read.

use freehold_core::{CommandMessage, RecordVersion};
use proptest::prelude::*;

use crate::bench::Setup;
use crate::rules::{Fields, command};

/// Three records at home, one of another site, one without a home.
const IDS: [&str; 5] = ["ewr-a", "ewr-b", "ewr-c", "lga-x", "NOWHERE-1"];

pub(crate) fn setups() -> impl Strategy<Value = Setup> {
    let sizes = prop_oneof![Just(6_000usize), Just(9_000), Just(1 << 20)];
    let histories = prop_oneof![Just(8u64), Just(64)];
    (sizes, histories, any::<bool>()).prop_map(|(max_payload_bytes, history, batched)| Setup {
        max_payload_bytes,
        history,
        batched,
    })
}

/// A command of a record; its id is for the property to give.
pub(crate) fn command_of_any_kind() -> impl Strategy<Value = CommandMessage> {
    let names = prop_oneof![
        3 => Just("create"),
        8 => Just("add"),
        1 => Just("replace"),
        2 => Just("delete"),
        2 => Just("touch"),
        2 => Just("emit"),
        3 => Just("grow"),
        1 => Just("panic"),
        1 => Just("unheard-of"),
    ];
    let pads = prop_oneof![3 => 0usize..200, 1 => 0usize..6_000];
    let versions = prop::option::weighted(0.1, 0u64..6);
    (0..IDS.len() + 3, names, 0i64..120, pads, versions).prop_map(|(id, name, n, pad, version)| {
        let mut fields = Fields { n, ..Fields::default() };
        match name {
            "emit" => (fields.n, fields.to) = (n % 4, IDS[0].parse().ok()),
            "grow" | "panic" => fields.pad = "x\n".repeat(pad / 2),
            _ => {}
        }
        // One record is hot.
        let mut message = command(IDS.get(id).copied().unwrap_or(IDS[0]), name, "?", &fields);
        message.if_version = version.map(RecordVersion);
        message
    })
}

pub(crate) fn with_id(message: CommandMessage, number: usize) -> CommandMessage {
    CommandMessage { command_id: freehold_core::CommandId::from_caller(&format!("c{number}")).unwrap(), ..message }
}

pub(crate) fn payload(message: &CommandMessage) -> String {
    serde_json::to_string(message).unwrap()
}

/// The payloads of a command log, each command with an id of its own.
pub(crate) fn command_logs() -> impl Strategy<Value = Vec<String>> {
    let one = prop_oneof![
        30 => command_of_any_kind().prop_map(Some),
        1 => Just(None),
    ];
    prop::collection::vec(one, 1..40).prop_map(|messages| {
        let payload = |(number, message): (usize, Option<CommandMessage>)| match message {
            Some(message) => payload(&with_id(message, number)),
            None => "{\"kind\":7}".to_owned(),
        };
        messages.into_iter().enumerate().map(payload).collect()
    })
}

/// What happens between two deliveries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pause {
    /// The copy lags: the next flush is decided on what was published.
    None,
    Read,
    /// Another life of the holder claims.
    Claim,
    /// The position is logged, then another life claims.
    PositionAndClaim,
}

/// A way to cut a command log into deliveries.
pub(crate) fn splits() -> impl Strategy<Value = Vec<(usize, Pause)>> {
    let pauses = prop_oneof![
        4 => Just(Pause::None),
        3 => Just(Pause::Read),
        1 => Just(Pause::Claim),
        1 => Just(Pause::PositionAndClaim),
    ];
    prop::collection::vec((1usize..12, pauses), 0..12)
}
