//! What a holder is told and what it wants done: the events and effects of its state machine.

use crate::command::LoggedCommand;
use crate::envelope::{Claim, DecidedCommand};
use crate::flush::{Emission, FlushMessage};
use crate::number::{CommandLogIncarnation, MembersRevision, StreamSequence};

/// What happens to a holder.
#[derive(Debug)]
pub enum Event {
    /// The member list of this revision gives the group to this instance.
    Assigned(MembersRevision),
    /// The member list gives the group to another instance, or to none.
    Unassigned,
    /// The service stops: finish what is under way, log the position, let go.
    Stop,
    /// The copy has applied what [`Holder::awaits`](super::Holder::awaits) named.
    CopyAdvanced,
    /// The log answered a claim.
    Claimed(Result<StreamSequence, PublishFailure>),
    /// The command log was compared with what the copy has decided.
    CommandLogChecked(CommandLogCheck),
    /// The claim's consumer delivered commands, in order.
    Delivered(Vec<LoggedCommand>),
    /// The log answered every message of a [`Effect::Publish`], in their order.
    Published(Result<Vec<StreamSequence>, PublishFailure>),
    /// What a flush asked for has been sent, or could not be.
    Emitted(Result<(), EmitFailure>),
    /// The purge was carried out; one of which that is unknown is tried again later.
    Purged(CommandLogCheck),
    /// Time to log the position, if it moved.
    PositionDue,
    /// The copy has heard of commands on their way to or from this site, or of a record that has moved.
    RoutesChanged,
    /// Time to log again what is on its way to other sites.
    SayAgain,
    /// Nothing was decided for as long as commands are kept behind the position: those that are left may go, though no younger
    /// command tells that the time has passed.
    AuditDue,
    /// The connection, or the claim's consumer, is gone: nothing that was under way is certain.
    Disconnected,
}

/// Why a publish did not certainly succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishFailure {
    /// The log has a newer claim than the publish expected.
    #[error("the log has a newer claim")]
    Refused,
    /// No answer, or an error: the messages may have been stored or not.
    #[error("the publish was not confirmed: {0}")]
    Unknown(String),
}

/// Something could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what a decision asked for could not be sent: {0}")]
pub struct EmitFailure(pub String);

/// What the rewind check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandLogCheck {
    /// The log has the command, with the same id and time.
    Matches,
    /// The log lacks it or has another one there: it was rewound.
    Rewound,
    /// The log did not answer.
    Unknown,
}

/// What a holder wants done.
#[derive(Debug)]
pub enum Effect {
    /// Publish a claim that expects this claim to be the newest; answer with [`Event::Claimed`].
    PublishClaim {
        /// The newest claim that the copy knows; 0 where there is none.
        expected: StreamSequence,
        /// The claim.
        claim: Claim,
    },
    /// Compare the command log with this command; answer with [`Event::CommandLogChecked`].
    CheckCommandLog {
        /// The furthest command that is decided.
        decided: DecidedCommand,
        /// The life of the log that it was read in.
        log: CommandLogIncarnation,
    },
    /// Open a consumer of the group's commands behind this sequence; deliver with [`Event::Delivered`].
    OpenConsumer {
        /// The claim that the consumer belongs to.
        claim: StreamSequence,
        /// Deliver what follows.
        after: StreamSequence,
    },
    /// Publish under the claim; answer with [`Event::Published`].
    Publish {
        /// The claim that each message expects to be the newest.
        claim: StreamSequence,
        /// All or, without batches, each.
        messages: Vec<FlushMessage>,
        /// Whether all must be stored or none, also where publishes are not batched.
        whole: bool,
    },
    /// Send; answer with [`Event::Emitted`].
    Emit(Vec<Emission>),
    /// Check as in [`Effect::CheckCommandLog`] and purge the group's commands below this one, which stays; answer with
    /// [`Event::Purged`].
    Purge {
        /// The furthest command that may be purged up to.
        below: DecidedCommand,
        /// The furthest command that is decided.
        decided: DecidedCommand,
        /// The life of the log that both were read in.
        log: CommandLogIncarnation,
    },
    /// Close the consumer and forget what is under way: its answers no longer matter.
    Release(ReleaseReason),
    /// Read the member list again and tell what it says.
    ReadMembers,
    /// The holder has let go after [`Event::Stop`].
    Stopped,
}

/// Why a holder lets go of what it was doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseReason {
    /// The member list gives the group to another instance.
    #[error("the group was assigned elsewhere")]
    Unassigned,
    /// The service stops.
    #[error("the service stops")]
    Stopping,
    /// A publish was refused or not confirmed.
    #[error(transparent)]
    Publish(PublishFailure),
    /// Something that a decision asked for could not be sent.
    #[error(transparent)]
    Emit(EmitFailure),
    /// The command log is not the one that was read.
    #[error("the command log was rewound")]
    Rewound,
    /// The rewind check got no answer.
    #[error("the command log did not answer")]
    NoAnswer,
    /// Another claim is newer.
    #[error("the group was claimed by another instance")]
    Superseded,
    /// Connection or consumer gone.
    #[error("the connection or the consumer is gone")]
    Disconnected,
    /// The consumer left out or repeated a command.
    #[error("the consumer delivered command {got} behind {last}")]
    OutOfOrder {
        /// The last command that was delivered.
        last: StreamSequence,
        /// The one that came next.
        got: StreamSequence,
    },
}
