//! Who decides a command: this site, another one to which it is forwarded, or nobody before something else was read.

use std::collections::BTreeMap;

use crate::command::{CommandMessage, OwnerDown};
use crate::copy::CopyRead;
use crate::envelope::Forward;
use crate::id::RecordId;
use crate::name::SiteName;
use crate::number::{Epoch, StreamSequence};
use crate::outcome::{ErrorCode, ForwardPlace, Refusal};
use crate::routes::{Incoming, MAX_FORWARDS_UNDER_WAY, Source};

use super::pages::{MESSAGE_OVERHEAD_BYTES, forward_bytes};
use super::verdict::Verdict;
use super::{FlushContext, Fold, Planner};

/// Who may create a record that does not exist.
pub(super) struct Home {
    pub(super) owner: SiteName,
    pub(super) epoch: Epoch,
    /// How far the logs of the sites that had the right before must be applied.
    pub(super) moved: BTreeMap<SiteName, StreamSequence>,
}

/// What is to be done with a command whose record and place are known.
pub(super) enum Way {
    Decide,
    Forward {
        to: SiteName,
        epoch: Epoch,
    },
    Return,
    /// Another site's log must be read first, or an earlier command answered.
    Wait,
    Refuse(Refusal),
}

pub(super) enum Repeat {
    No,
    /// What another site has decided is not in a stream of this site yet.
    Wait,
    /// Nothing is left to do.
    Done,
    /// It must be answered once more in the log.
    Of(Verdict),
}

impl<C: CopyRead> Planner<'_, C> {
    /// Whether the command was decided before, or is on its way already.
    pub(super) fn repeated(&mut self, incoming: &Incoming, message: &CommandMessage) -> Result<Repeat, C::Error> {
        let command = &incoming.command;
        let here = self.fold_of.get(&message.id).and_then(|index| self.folds[*index].entry_of(&message.command_id));
        let known = match (here, &incoming.source) {
            (Some(change), _) => Some((change, true)),
            (None, source) => {
                let known = match source {
                    Source::Log => self.view.change(Some(&message.id), &message.command_id, command)?,
                    // The times of another site's log say nothing here: what is known counts.
                    _ => self.view.newest(Some(&message.id), &message.command_id)?,
                };
                // What nobody but a copy has would be undone where that site is lost.
                let decided = known.as_ref().filter(|known| known.change.is_final());
                let elsewhere = decided.and_then(|known| known.elsewhere.as_ref());
                if elsewhere.is_some_and(|(origin, sequence)| !self.is_mirrored(origin, *sequence)) {
                    let place = decided.and_then(|known| known.change.forwarded.as_ref());
                    let was_sent = place.is_some_and(|place| place.from == self.context.site);
                    // The command is in this site's log, and comes back where its outcome is undone.
                    let is_done = was_sent && *source == Source::Log;
                    return Ok(if is_done { Repeat::Done } else { Repeat::Wait });
                }
                known.map(|known| (known.change, known.logged_here))
            }
        };
        let Some((change, logged_here)) = known else { return Ok(Repeat::No) };
        let repeats = || Repeat::Of(Verdict::Repeated(change.fingerprint, change.outcome.clone()));
        Ok(match &incoming.source {
            Source::Log => {
                let own = change.sequence == command.sequence && change.time_ms == command.time;
                if logged_here {
                    self.emit_again(command, &change);
                }
                match (change.is_final(), logged_here || own) {
                    (_, true) => Repeat::Done,
                    (true, false) => repeats(),
                    // Another site's log may be lost with that site.
                    (false, false) => Repeat::No,
                }
            }
            Source::Forwarded(..) | Source::Returned(..) if !change.is_final() => Repeat::No,
            Source::Forwarded(..) | Source::Returned(..) => repeats(),
        })
    }

    pub(super) fn may_be_forgotten(&self, incoming: &Incoming) -> bool {
        // What was forwarded is in its taker's log for as long as it is not answered.
        incoming.source == Source::Log && incoming.command.time < self.place.outcomes_complete_from
    }

    /// Who decides a command, by its record's owner.
    pub(super) fn way(&self, fold: &Fold, incoming: &Incoming, message: &CommandMessage) -> Result<Way, C::Error> {
        let FlushContext { site, sites, .. } = self.context;
        let came_back = matches!(incoming.source, Source::Returned(..));
        let state = fold.base.state.as_ref();
        let (owner, epoch, moved) = match (state, &fold.home) {
            (Some(state), _) => (state.owner.clone(), state.epoch, &state.moved),
            (None, Some(home)) => (home.owner.clone(), home.epoch, &home.moved),
            (None, None) => {
                return Ok(Way::Refuse(Refusal::new(ErrorCode::Invalid, "no site may create a record with this id")));
            }
        };
        // A record that the copy does not have may have been created, and have moved, before the right to create it did. One that was
        // taken over may have been given away before the cut, and then its epoch is not that of the takeover. And this very
        // flush may be changing who has the right to create.
        let is_moving = || self.folds.iter().any(|fold| fold.moves_to.is_some() && fold.id.is_reserved());
        if (state.is_none() || fold.base.is_taken()) && !self.has_read_all(moved)? || state.is_none() && is_moving() {
            return Ok(Way::Wait);
        }
        // Commands that precede it came too late in an earlier epoch, also where the record has come back since.
        match &incoming.source {
            Source::Forwarded(_, sent_under) if epoch > *sent_under => return Ok(Way::Return),
            Source::Forwarded(_, sent_under) if epoch < *sent_under => return Ok(Way::Wait),
            _ => {}
        }
        if owner == *site {
            // Between the commands of two sites there is no order to keep. Were one to wait for the other, two sites that wait for
            // each other would wait for ever.
            let waits = match incoming.source {
                Source::Log => self.routes.is_away(&message.id),
                Source::Returned(..) => self.routes.is_under_way(&message.id),
                Source::Forwarded(..) => false,
            };
            return Ok(if waits || !self.has_read_all(moved)? { Way::Wait } else { Way::Decide });
        }
        if matches!(&incoming.source, Source::Returned(_, sent_under) if epoch <= *sent_under) {
            return Ok(Way::Wait);
        }
        if !sites.contains(&owner) || matches!(incoming.source, Source::Forwarded(..)) {
            return Ok(Way::Refuse(not_owner(owner)));
        }
        if message.owner_down == Some(OwnerDown::Fail) && self.place.unreachable.contains(&owner) {
            let text = format!("site {owner} owns this record and cannot be reached: nothing was kept");
            return Ok(Way::Refuse(Refusal::new(ErrorCode::OwnerUnreachable, text)));
        }
        if !self.routes.may_send(&message.id, (&owner, epoch), came_back) {
            return Ok(Way::Wait);
        }
        if !came_back && self.routes.is_full(&owner) {
            let text = format!("{MAX_FORWARDS_UNDER_WAY} commands of this group wait for site {owner} already");
            return Ok(Way::Refuse(Refusal::new(ErrorCode::Busy, text)));
        }
        Ok(Way::Forward { to: owner, epoch })
    }

    /// Whether the copy has read all that was decided about a record where it was owned before, and this site has it in a stream of
    /// its own: a release that nobody but a copy has would be undone where its site is lost.
    fn has_read_all(&self, moved: &BTreeMap<SiteName, StreamSequence>) -> Result<bool, C::Error> {
        for (origin, sequence) in moved {
            if !self.is_mirrored(origin, *sequence) || self.view.copy.applied(origin)? < *sequence {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether this site has a message of another site's log in a stream of its own.
    fn is_mirrored(&self, origin: &SiteName, sequence: StreamSequence) -> bool {
        self.place.mirrored.get(origin).is_none_or(|mirrored| *mirrored >= sequence)
    }

    /// Sends a command on its way to the owner of its record. Gives the verdict where that cannot be; closes the fold where the
    /// command must wait for the next flush.
    pub(super) fn forward(
        &mut self,
        index: usize,
        incoming: &Incoming,
        message: &CommandMessage,
        to: SiteName,
        epoch: Epoch,
    ) -> Option<Verdict> {
        let came_back = match &incoming.source {
            Source::Returned(place, _) => Some(place.clone()),
            _ => None,
        };
        let number = self.routes.next_number(&to);
        let forward = Forward {
            place: ForwardPlace { from: self.context.site.clone(), to, number },
            epoch,
            command: message.clone(),
            log: incoming.log,
            sequence: incoming.command.sequence,
            time_ms: incoming.command.time,
            instead_of: came_back.clone(),
        };
        let (limit, bytes) = (self.context.message_bytes(), forward_bytes(&forward));
        if MESSAGE_OVERHEAD_BYTES + self.folds[index].bytes + bytes > limit {
            if self.folds[index].is_empty() {
                let text =
                    format!("the command would exceed the {limit} bytes that one message to another site can hold");
                return Some(Verdict::refuse(ErrorCode::TooLarge, text));
            }
            self.folds[index].closed = true;
            return None;
        }
        if let Some(place) = came_back {
            self.routes.settle(&message.id, &place);
            self.routing.settled.push(place);
        }
        self.routes.send(&forward);
        self.routing.forwards.push(forward.clone());
        let fold = &mut self.folds[index];
        fold.bytes += bytes;
        fold.forwards.push(forward);
        None
    }

    /// Who may create an id: the site that the home rule names, or the one that the right has moved to.
    pub(super) fn home(&self, id: &RecordId) -> Result<Option<Home>, C::Error> {
        let FlushContext { definition, group, .. } = self.context;
        let right = id.home_right();
        let (text, home) = match &right {
            Some(right) => (right.prefix, Some(right.home.clone())),
            None => (id.as_str(), definition.home.home(id)),
        };
        let Some(home) = home else { return Ok(None) };
        if let Some(right) = self.view.home_right(*group, &home, text)? {
            return Ok(Some(Home { owner: right.owner, epoch: right.epoch, moved: right.moved }));
        }
        Ok(Some(match self.view.copy.takeovers()?.see(&home, Epoch::default()) {
            Some(taken) => Home { owner: taken.owner, epoch: taken.epoch, moved: taken.cuts },
            None => Home { owner: home, epoch: Epoch::default(), moved: BTreeMap::new() },
        }))
    }
}

fn not_owner(owner: SiteName) -> Refusal {
    #[derive(serde::Serialize)]
    struct Details {
        owner: SiteName,
    }
    let refusal = Refusal::new(ErrorCode::NotOwner, format!("site {owner} owns this record"));
    refusal.with_details(&Details { owner })
}
