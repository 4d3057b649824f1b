//! Takeovers, and what does not count since them.

use crate::copy::CopyWrite;
use crate::envelope::RecordsBody;
use crate::name::SiteName;
use crate::number::{Incarnation, LogTime, StreamSequence};
use crate::subject::RecordsSubject;
use crate::takeover::Takeover;

use super::{Applied, LogMessage};

/// A takeover as its taker's log delivers it.
#[derive(Debug, Clone)]
pub struct TakeoverMessage {
    /// Its place in the log.
    pub sequence: StreamSequence,
    /// When the log took it.
    pub time: LogTime,
    /// What it says.
    pub takeover: Takeover,
}

/// What a takeover means for a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeoverEffect {
    /// The lost site.
    pub lost: SiteName,
    /// The life of its log that has ended.
    pub lost_log: Incarnation,
    /// The copy has applied what lies beyond the cut: it must be made anew.
    pub is_ahead: bool,
}

/// Whether a message lies beyond the cut of a takeover. Where it does not say itself which life of the log it is of, the group's
/// newest claim does: whatever follows a claim was published under it or a later one.
pub(super) fn is_void<T: CopyWrite>(
    tables: &T,
    message: &LogMessage,
    body: Option<&RecordsBody>,
) -> Result<bool, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let takeovers = tables.takeovers()?;
    if !takeovers.may_be_void(origin, message.sequence) {
        return Ok(false);
    }
    let claim = tables.group(origin, kind, *group)?.claim;
    let life = match body {
        Some(RecordsBody::Update(update)) => Some(&update.log),
        Some(RecordsBody::Result(result)) => Some(&result.log),
        Some(RecordsBody::Claim(claim)) => Some(&claim.log),
        Some(RecordsBody::Position(_) | RecordsBody::Attempt(_)) | None => claim.as_ref().map(|(_, claim)| &claim.log),
    };
    Ok(takeovers.is_void(origin, message.sequence, life))
}

/// Applies a takeover that an origin has logged.
pub fn apply_takeover<T: CopyWrite>(
    tables: &mut T,
    origin: &SiteName,
    message: &TakeoverMessage,
) -> Result<Applied, T::Error> {
    if message.sequence <= tables.applied(origin)? {
        return Ok(Applied::default());
    }
    let applied = learn_takeover(tables, message)?;
    tables.put_applied(origin, message.sequence, message.time)?;
    Ok(applied)
}

/// Takes in a takeover, wherever it was heard of: a member that has sealed a log may not be able to read that of the taker.
pub fn learn_takeover<T: CopyWrite>(tables: &mut T, message: &TakeoverMessage) -> Result<Applied, T::Error> {
    let mut takeovers = tables.takeovers()?;
    let Takeover { lost, cut, ballot, .. } = &message.takeover;
    let is_new = takeovers.iter().all(|known| known.lost != *lost || known.ballot != *ballot);
    if !takeovers.note(message.takeover.clone(), message.sequence) {
        return Ok(Applied::default());
    }
    tables.put_takeovers(&takeovers)?;
    let is_ahead = is_new && tables.applied(lost)? > *cut;
    let lost_log = message.takeover.lost_log.clone();
    let takeover = Some(TakeoverEffect { lost: lost.clone(), lost_log, is_ahead });
    Ok(Applied { routes_changed: true, takeover, ..Applied::default() })
}
