//! Every subject and stream name of Freehold, built and read in one place. Stored: append-only.

use std::fmt;

use crate::group::GroupNumber;
use crate::id::{RecordId, SubjectToken};
use crate::name::{InstanceName, KindName, SiteName};
use crate::number::StreamSequence;

/// The stream of commands taken at a site.
pub fn commands_stream(site: &SiteName) -> String {
    format!("FH_COMMANDS_{site}")
}

/// The stream of updates, results and control messages of a site; its mirrors have the same name.
pub fn records_stream(site: &SiteName) -> String {
    format!("FH_RECORDS_{site}")
}

/// The stream of commands that could not be processed.
pub fn dead_letter_stream(site: &SiteName) -> String {
    format!("FH_DEADLETTER_{site}")
}

/// The key-value bucket with a site's member lists; its keys are kinds.
pub fn members_bucket(site: &SiteName) -> String {
    format!("FH_MEMBERS_{site}")
}

/// The consumer of a site's records log that was made for another site's mirror of it.
pub fn mirror_consumer(mirroring: &SiteName) -> String {
    format!("FH_MIRROR_{mirroring}")
}

/// The subject on which that consumer delivers.
pub fn mirror_delivery(origin: &SiteName, mirroring: &SiteName) -> String {
    format!("fh.{origin}.mirror.{mirroring}")
}

/// The subject of a group's commands.
pub fn command(site: &SiteName, kind: &KindName, group: GroupNumber) -> String {
    format!("fh.{site}.cmd.{kind}.{group}")
}

/// The subjects of the commands of all groups of a kind.
pub fn commands_of_kind(site: &SiteName, kind: &KindName) -> String {
    format!("fh.{site}.cmd.{kind}.*")
}

/// The subject of a group's dead letters.
pub fn dead_letter(site: &SiteName, kind: &KindName, group: GroupNumber) -> String {
    format!("fh.{site}.dead.{kind}.{group}")
}

/// The private subjects of one life of an instance: `fh.S.ins.<instance>.<nonce>.<what>`. No stream takes them.
pub fn instance(site: &SiteName, instance: &InstanceName, nonce: &crate::name::Nonce, what: &str) -> String {
    format!("fh.{site}.ins.{instance}.{nonce}.{what}")
}

/// The subject on which an operator has something done to a record of a kind by any instance of a site. No stream takes it.
pub fn operator(site: &SiteName, kind: &KindName, what: &str) -> String {
    format!("fh.{site}.adm.{kind}.{what}")
}

/// What a message of the records log is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RecordsTopic {
    /// An update of a record.
    Update(SubjectToken),
    /// A result of a claim; the number grows with the claim's results, so that no limit on a subject pushes one out.
    Result {
        /// The claim.
        claim: StreamSequence,
        /// The claim's result count divided by the history limit.
        page: u64,
    },
    /// A claim of the group.
    Claim,
    /// The group's position.
    Position,
    /// An attempt at a command.
    Attempt,
}

/// The subject of a message in a records log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordsSubject {
    /// The site that publishes there.
    pub site: SiteName,
    /// The kind.
    pub kind: KindName,
    /// The group.
    pub group: GroupNumber,
    /// What the message is about.
    pub topic: RecordsTopic,
}

impl RecordsSubject {
    /// Reads a subject; nothing where it is none of a records log.
    pub fn parse(subject: &str) -> Option<Self> {
        let mut tokens = subject.split('.');
        if tokens.next() != Some("fh") {
            return None;
        }
        let site = tokens.next()?.parse().ok()?;
        let family = tokens.next()?;
        let control = if family == "ctl" { tokens.next()? } else { "" };
        let kind = tokens.next()?.parse().ok()?;
        let group = GroupNumber(tokens.next()?.parse().ok()?);
        let topic = match (family, control) {
            ("rec", _) => RecordsTopic::Update(SubjectToken::decode(tokens.next()?).ok()?.token()),
            ("res", _) => {
                let (claim, page) = tokens.next()?.split_once('-')?;
                RecordsTopic::Result { claim: StreamSequence(claim.parse().ok()?), page: page.parse().ok()? }
            }
            ("ctl", "claim") => RecordsTopic::Claim,
            ("ctl", "pos") => RecordsTopic::Position,
            ("ctl", "try") => RecordsTopic::Attempt,
            _ => return None,
        };
        tokens.next().is_none().then_some(Self { site, kind, group, topic })
    }

    /// The subject of a record's updates.
    pub fn update(site: &SiteName, kind: &KindName, group: GroupNumber, id: &RecordId) -> Self {
        Self { site: site.clone(), kind: kind.clone(), group, topic: RecordsTopic::Update(id.token()) }
    }
}

impl fmt::Display for RecordsSubject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, kind, group, topic } = self;
        match topic {
            RecordsTopic::Update(token) => write!(formatter, "fh.{site}.rec.{kind}.{group}.{token}"),
            RecordsTopic::Result { claim, page } => write!(formatter, "fh.{site}.res.{kind}.{group}.{claim}-{page}"),
            RecordsTopic::Claim => write!(formatter, "fh.{site}.ctl.claim.{kind}.{group}"),
            RecordsTopic::Position => write!(formatter, "fh.{site}.ctl.pos.{kind}.{group}"),
            RecordsTopic::Attempt => write!(formatter, "fh.{site}.ctl.try.{kind}.{group}"),
        }
    }
}

/// The subject on which a site confirms how much of another site's log it has: `fh.S.ctl.copy.K.<origin>`. For each kind apart,
/// since a site can have instances of one kind and none of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConfirmationSubject {
    /// The site that confirms.
    pub site: SiteName,
    /// The kind.
    pub kind: KindName,
    /// Whose log.
    pub origin: SiteName,
}

impl ConfirmationSubject {
    /// Reads a subject; nothing where it is none of a confirmation.
    pub fn parse(subject: &str) -> Option<Self> {
        let (site, rest) = subject.strip_prefix("fh.")?.split_once(".ctl.copy.")?;
        let (kind, origin) = rest.split_once('.')?;
        Some(Self { site: site.parse().ok()?, kind: kind.parse().ok()?, origin: origin.parse().ok()? })
    }
}

impl fmt::Display for ConfirmationSubject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, kind, origin } = self;
        write!(formatter, "fh.{site}.ctl.copy.{kind}.{origin}")
    }
}

/// The subject of takeovers of a site in its taker's records log.
pub fn takeover(taker: &SiteName, lost: &SiteName) -> String {
    format!("fh.{taker}.ctl.fact.{lost}")
}

/// The subject on which a member says for whom it has sealed a site's log.
pub fn seal(member: &SiteName, lost: &SiteName) -> String {
    format!("fh.{member}.ctl.seal.{lost}")
}

/// The subject on which a site begins a new life of its records log.
pub fn life(site: &SiteName) -> String {
    format!("fh.{site}.ctl.life")
}

/// The filter of all takeovers in a site's records log.
pub fn takeovers_filter(taker: &SiteName) -> String {
    format!("fh.{taker}.ctl.fact.*")
}

/// The filter of all seals in a site's records log.
pub fn seals_filter(member: &SiteName) -> String {
    format!("fh.{member}.ctl.seal.*")
}

/// The subject that a sealed mirror takes; nobody publishes there. A stream has at least one.
pub fn sealed_mirror(member: &SiteName, lost: &SiteName) -> String {
    format!("fh.{member}.sealed.{lost}")
}

/// The stream of what a site had decided and taken when it was taken over, beyond the cut.
pub fn stranded_stream(site: &SiteName) -> String {
    format!("FH_STRANDED_{site}")
}

/// The subject of what was stranded of a kind.
pub fn stranded(site: &SiteName, kind: &KindName) -> String {
    format!("fh.{site}.stranded.{kind}")
}

/// What a control message that is no kind's is about: `fh.S.ctl.<what>.<other site>`.
pub fn site_control(subject: &str) -> Option<(SiteControl, SiteName)> {
    let (_, rest) = subject.strip_prefix("fh.")?.split_once(".ctl.")?;
    let (what, other) = rest.split_once('.')?;
    let what = match what {
        "fact" => SiteControl::Takeover,
        "seal" => SiteControl::Seal,
        _ => return None,
    };
    Some((what, other.parse().ok()?))
}

/// The control messages about a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteControl {
    /// It was taken over.
    Takeover,
    /// Its log is sealed.
    Seal,
}

/// The filters by which an applier reads what concerns a kind.
pub fn records_filters(site: &SiteName, kind: &KindName) -> Vec<String> {
    vec![format!("fh.{site}.rec.{kind}.>"), format!("fh.{site}.res.{kind}.>"), format!("fh.{site}.ctl.*.{kind}.>")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_is_read_back() {
        for text in [
            "fh.ewr.rec.flight.7.EWR-1%2E5",
            "fh.ewr.res.flight.63.1234-0",
            "fh.ewr.ctl.claim.flight.0",
            "fh.ewr.ctl.pos.flight.0",
            "fh.ewr.ctl.try.flight.0",
        ] {
            assert_eq!(RecordsSubject::parse(text).unwrap().to_string(), text);
        }
        let confirmation = "fh.jfk.ctl.copy.flight.ewr";
        assert_eq!(ConfirmationSubject::parse(confirmation).unwrap().to_string(), confirmation);
        assert_eq!(RecordsSubject::parse(confirmation), None);
        for bad in
            ["fh.ewr.rec.flight.7", "fh.ewr.rec.flight.7.a.b", "fh.ewr.ctl.other.flight.0", "x.ewr.rec.flight.7.a"]
        {
            assert_eq!(RecordsSubject::parse(bad), None);
        }
    }
}
