//! Events, effects and requests in one line each, for the trace of a run that failed.

use freehold_core::{Effect, Event};

use crate::instance::Request;

pub(crate) fn brief(event: &Event) -> String {
    match event {
        Event::Delivered(commands) => {
            let commands: Vec<String> = commands
                .iter()
                .map(|it| match &it.message {
                    Ok(message) => format!("{}:{} {} {}", it.sequence, message.id, message.name, message.command_id),
                    Err(_) => format!("{}:unreadable", it.sequence),
                })
                .collect();
            format!("Delivered {}", commands.join(", "))
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn brief_effect(effect: &Effect) -> String {
    match effect {
        Effect::Publish { claim, messages, .. } => {
            let subjects: Vec<String> = messages.iter().map(|message| message.subject.to_string()).collect();
            format!("Publish under {claim}: {}", subjects.join(", "))
        }
        Effect::Emit(emissions) => format!("Emit {}", emissions.len()),
        other => format!("{other:?}"),
    }
}

pub(crate) fn brief_request(request: &Request) -> String {
    match request {
        Request::Claim { expected, .. } => format!("claim over {expected}"),
        Request::Message { claim, message, .. } => {
            format!("{} under {claim}: {}", message.subject, String::from_utf8_lossy(&message.payload))
        }
        Request::Batch { claim, messages, .. } => {
            let all: Vec<String> = messages
                .iter()
                .map(|message| format!("{}: {}", message.subject, String::from_utf8_lossy(&message.payload)))
                .collect();
            format!("batch under {claim}: {}", all.join("\n                  "))
        }
        Request::Check { decided, .. } => format!("check {}", decided.sequence),
        Request::Purge { below, .. } => format!("purge below {}", below.sequence),
        Request::Emit(emissions) => format!("emit {}", emissions.len()),
    }
}
