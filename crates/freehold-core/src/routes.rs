//! Which commands of a group are on their way between sites, as a holder finds them.
//!
//! A command whose record another site owns is *forwarded*: logged at the site that took it, numbered without gaps for each group and
//! destination, and read by the owner's holder from its copy of that log. What comes too late, because the record has moved
//! on, is *returned*, and its taker sends it on. See docs/adr/0011-forwards-in-the-records-log.md.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::command::LoggedCommand;
use crate::copy::{CopyRead, ForwardState, Lane, OutcomeOf};
use crate::envelope::Forward;
use crate::flush::FlushContext;
use crate::id::RecordId;
use crate::name::SiteName;
use crate::number::{CommandLogIncarnation, Epoch, ForwardNumber};
use crate::outcome::ForwardPlace;
use crate::overlay::Overlay;
use crate::takeover::Takeovers;

/// The most commands of a group that may be on their way to one site; further ones are refused (`busy`).
pub const MAX_FORWARDS_UNDER_WAY: usize = 1_024;
/// The most forwarded commands of one site that are taken in at a time.
pub(crate) const MAX_TAKEN_IN: usize = 200;

/// A command that waits for a decision, and how it came here.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) source: Source,
    /// Which life of its site's command log took it.
    pub(crate) log: CommandLogIncarnation,
    pub(crate) command: LoggedCommand,
}

/// How a command came to the holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// This site's command log.
    Log,
    /// Another site took it and forwarded it here, under the epoch that names this site as the owner.
    Forwarded(ForwardPlace, Epoch),
    /// This site took it and forwarded it under this epoch, and it came back.
    Returned(ForwardPlace, Epoch),
}

/// The commands of one record that this site has sent away and that are not answered.
#[derive(Debug, Default)]
struct Route {
    /// Where they were sent, and under which epoch.
    to: Option<(SiteName, Epoch)>,
    /// Not answered and not returned.
    under_way: usize,
    /// Returned, and not sent on.
    returned: usize,
}

/// What was decided between sites and may not have been followed up.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) place: ForwardPlace,
    pub(crate) outcome_of: OutcomeOf,
    /// Nothing where the copy has not read it, or it does not count any more.
    pub(crate) forward: Option<Forward>,
}

/// The ways of a group's commands.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    records: HashMap<RecordId, Route>,
    sent: BTreeMap<SiteName, ForwardNumber>,
    under_way: BTreeMap<SiteName, usize>,
    /// That came back, in the order in which they were sent.
    pub(crate) returned: VecDeque<Incoming>,
    /// Of other sites, in the order of each.
    pub(crate) received: VecDeque<Incoming>,
    /// Whether the copy has more of other sites than was taken in.
    pub(crate) more: bool,
}

impl Routes {
    /// What the copy and what was published since say. Nothing where the site is alone.
    pub(crate) fn load<C: CopyRead>(context: &FlushContext, copy: &C, overlay: &Overlay) -> Result<Self, C::Error> {
        let mut routes = Self::default();
        let (site, kind, group) = (&context.site, &context.definition.name, context.group);
        let own = copy.group(site, kind, group)?;
        let takeovers = copy.takeovers()?;
        for other in context.sites.iter().filter(|other| *other != site) {
            // What the other has had from this site beyond a cut, this site's log does not have any more.
            let had = copy.group(other, kind, group)?.received_from(site);
            routes.sent.insert(other.clone(), own.sent_to(other).max(had));
            if own.sent_to(other).0 > 0 {
                let lane = Lane { kind, group, from: site, to: other };
                for (number, state) in copy.forwards(&lane, ForwardNumber(0), usize::MAX)? {
                    let settled = overlay.routing().flat_map(|it| &it.settled).any(|it| is_at(it, &lane, number));
                    if !settled {
                        routes.take_up(state, &takeovers);
                    }
                }
            }
            let lane = Lane { kind, group, from: other, to: site };
            let after =
                overlay.routing().flat_map(|it| &it.received).filter(|it| it.from == *other).map(|it| it.number);
            let after = after.max().unwrap_or_default().max(own.received_from(other));
            routes.take_in(copy, &lane, after)?;
        }
        let unapplied = |forward: &&Forward| forward.place.number > own.sent_to(&forward.place.to);
        for forward in overlay.routing().flat_map(|it| &it.forwards).filter(unapplied) {
            routes.send(forward);
        }
        // What came back goes on in the order in which it was taken.
        routes.returned.make_contiguous().sort_by_key(|incoming| (incoming.log, incoming.command.sequence));
        Ok(routes)
    }

    /// What other sites have sent, or what came back from them, and is decided here, where what it asks for may not have been sent.
    pub(crate) fn unsent<C: CopyRead>(context: &FlushContext, copy: &C) -> Result<Vec<Unsent>, C::Error> {
        let (site, kind, group) = (&context.site, &context.definition.name, context.group);
        let mut unsent = Vec::new();
        for other in context.sites.iter().filter(|other| *other != site) {
            for (from, to) in [(other, site), (site, other)] {
                let lane = Lane { kind, group, from, to };
                let decided = copy.forwards(&lane, ForwardNumber(0), usize::MAX)?.into_iter();
                let here = |(_, state): &(_, ForwardState)| state.decided && state.returned == (from == site);
                for (number, ForwardState { forward, outcome_of, .. }) in decided.filter(here) {
                    let place = ForwardPlace { from: from.clone(), to: to.clone(), number };
                    unsent.extend(outcome_of.map(|outcome_of| Unsent { place, outcome_of, forward }));
                }
            }
        }
        Ok(unsent)
    }

    fn take_up(&mut self, state: ForwardState, takeovers: &Takeovers) {
        // A return that was read ahead of the forward it belongs to cannot be of this site's own log.
        let Some(forward) = state.forward.filter(|_| !state.decided) else { return };
        let route = self.records.entry(forward.command.id.clone()).or_default();
        *self.under_way.entry(forward.place.to.clone()).or_default() += 1;
        // A site that was lost decides nothing any more: what it was sent comes back without a word.
        if state.returned || takeovers.is_lost(&forward.place.to, forward.epoch) {
            route.returned += 1;
            let source = Source::Returned(forward.place.clone(), forward.epoch);
            self.returned.push_back(incoming(source, forward));
        } else {
            route.to = Some((forward.place.to, forward.epoch));
            route.under_way += 1;
        }
    }

    fn take_in<C: CopyRead>(&mut self, copy: &C, lane: &Lane<'_>, after: ForwardNumber) -> Result<(), C::Error> {
        let mut next = after.next();
        let found = copy.forwards(lane, after, MAX_TAKEN_IN)?;
        self.more |= found.len() == MAX_TAKEN_IN;
        for (number, state) in found {
            // A number that is missing will be logged again by who sent it.
            let Some(forward) = state.forward.filter(|_| number == next) else { break };
            next = number.next();
            self.received.push_back(received(forward));
        }
        Ok(())
    }

    /// Whether commands of a record are on their way, or came back and were not sent on.
    pub(crate) fn is_away(&self, id: &RecordId) -> bool {
        self.records.get(id).is_some_and(|route| route.under_way + route.returned > 0)
    }

    /// Whether commands of a record are under way, those aside that came back.
    pub(crate) fn is_under_way(&self, id: &RecordId) -> bool {
        self.records.get(id).is_some_and(|route| route.under_way > 0)
    }

    /// Whether a command of a record may go to a site: not where an earlier one is on its way to another, or to the same under
    /// an earlier epoch and may come back, and not before one that came back.
    pub(crate) fn may_send(&self, id: &RecordId, to: (&SiteName, Epoch), came_back: bool) -> bool {
        self.records.get(id).is_none_or(|route| {
            let same_way = route.to.as_ref().is_some_and(|(site, epoch)| (site, *epoch) == to);
            (route.under_way == 0 || same_way) && (came_back || route.returned == 0)
        })
    }

    /// Whether no more commands may go to a site.
    pub(crate) fn is_full(&self, to: &SiteName) -> bool {
        self.under_way.get(to).is_some_and(|count| *count >= MAX_FORWARDS_UNDER_WAY)
    }

    /// The number of the next command to a site.
    pub(crate) fn next_number(&self, to: &SiteName) -> ForwardNumber {
        self.sent.get(to).copied().unwrap_or_default().next()
    }

    /// A command goes on its way.
    pub(crate) fn send(&mut self, forward: &Forward) {
        let place = &forward.place;
        let sent = self.sent.entry(place.to.clone()).or_default();
        *sent = place.number.max(*sent);
        *self.under_way.entry(place.to.clone()).or_default() += 1;
        let route = self.records.entry(forward.command.id.clone()).or_default();
        route.to = Some((place.to.clone(), forward.epoch));
        route.under_way += 1;
    }

    /// A command that came back is decided, or sent on.
    pub(crate) fn settle(&mut self, id: &RecordId, place: &ForwardPlace) {
        if let Some(route) = self.records.get_mut(id) {
            route.returned = route.returned.saturating_sub(1);
        }
        if let Some(count) = self.under_way.get_mut(&place.to) {
            *count = count.saturating_sub(1);
        }
    }
}

fn is_at(place: &ForwardPlace, lane: &Lane<'_>, number: ForwardNumber) -> bool {
    (&place.from, &place.to, place.number) == (lane.from, lane.to, number)
}

fn received(forward: Forward) -> Incoming {
    let source = Source::Forwarded(forward.place.clone(), forward.epoch);
    incoming(source, forward)
}

fn incoming(source: Source, forward: Forward) -> Incoming {
    let Forward { command, log, sequence, time_ms, .. } = forward;
    Incoming { source, log, command: LoggedCommand { sequence, time: time_ms, message: Ok(command) } }
}
