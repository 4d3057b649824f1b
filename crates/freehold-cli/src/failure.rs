//! How a command ends: its exit code, and errors in one line with all causes and, where there is one, a remedy.

use std::io::{self, Write as _};
use std::process::ExitCode;

use freehold_jetstream::{ConnectError, ProvisionError};
use freehold_sandbox::{SandboxError, ServerError};

/// What a command that was carried out found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is as it should be: 0.
    Yes,
    /// A negative answer, or a difference: 1.
    No,
    /// Nothing differs as far as could be seen, but not everything could be: 2.
    Unknown,
}

/// Prints an error and gives the exit code.
pub(crate) fn exit_code(result: anyhow::Result<Verdict>) -> ExitCode {
    match result {
        Ok(Verdict::Yes) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(1),
        Ok(Verdict::Unknown) => ExitCode::from(2),
        // Whoever reads the output has seen enough, as in `freehold list … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where stderr is closed nobody can be told.
            let _ = writeln!(io::stderr(), "freehold: {}", one_line(&error));
            ExitCode::from(2)
        }
    }
}

/// The error, its causes, each once, and a remedy.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // A cause that its parent has quoted already is not told twice.
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    if let Some(remedy) = error.chain().find_map(remedy) {
        text.push_str(" (");
        text.push_str(remedy);
        text.push(')');
    }
    text
}

fn remedy(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match cause.downcast_ref::<ConnectError>() {
        Some(ConnectError::Refused { .. }) => return Some("is a nats-server running there? Say where with --url"),
        Some(ConnectError::TooOld { .. }) => return Some("update the server"),
        _ => {}
    }
    match cause.downcast_ref::<ProvisionError>() {
        Some(ProvisionError::KindDiffers { .. }) => {
            return Some("a kind has its settings for good: give the same ones");
        }
        Some(ProvisionError::RetentionDiffers { .. }) => return Some("give the same value at every place"),
        Some(ProvisionError::ForeignStream(_)) => return Some("rename or remove that stream"),
        _ => {}
    }
    match cause.downcast_ref::<SandboxError>() {
        Some(SandboxError::Server(ServerError::PortTaken(_))) => {
            return Some("--port chooses the first one of the ports");
        }
        Some(SandboxError::Server(ServerError::DirectoryInUse(_))) => return Some("--data chooses another directory"),
        _ => {}
    }
    None
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.into_iter().any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = anyhow::anyhow!("the disk is full");
        assert_eq!(
            one_line(&inner.context("writing failed").context("writing failed")),
            "writing failed: the disk is full"
        );
    }
}
