//! Numbered cases between sites, each driven step by step in a world where nothing happens by chance.

use freehold_core::{CommandMessage, CopyRead as _, GroupNumber, RecordId, StreamSequence};

use crate::copy::SitesCopy;
use crate::rules::{append, kind, site};
use crate::world::{SITES, World};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn record(home: usize, number: usize) -> RecordId {
    format!("{}-{number}", site(home)).parse().unwrap()
}

/// The record is given to and fro while the command waits in the log of a site that is cut off, so that it always comes too
/// late. The caller asks again and again. No server compares message ids on this way, so that no window can swallow the command:
/// each time that it is sent it has a number of its own.
#[test]
fn s26_a_command_chased_to_and_fro_is_decided_once() {
    const LAPS: usize = 3;
    World::both_ways(|world| {
        let id = record(A, 0);
        world.append(A, &id, "before");
        world.rehome(A, &id, "first", B);
        world.run_and_mirror_all()?;
        world.cut(A);
        let chased = world.append(A, &id, "chased");
        world.run(A)?;
        for lap in 0..LAPS {
            world.cut(A);
            assert_eq!((world.under_way(A, B), world.forwards(A, &chased).len()), (1, lap + 1));
            world.take(A, chased.clone());
            // Meanwhile B gives the record to A. What C then asks A to do, A does not keep waiting behind its own command.
            world.rehome(B, &id, &format!("to-{lap}"), A);
            world.run(B)?;
            world.mirror_whole(C, B);
            world.rehome(C, &id, &format!("fro-{lap}"), B);
            world.run(C)?;
            world.heal(A);
            world.mirror_all();
            world.run(A)?;
            assert_eq!(world.under_way(A, B), 1, "A has had the record, and has waited for its command");
            world.mirror_all();
            world.run(B)?;
            world.mirror_all();
            world.run(A)?;
        }
        assert!(world.decided_at(&chased).is_empty());
        world.mirror_all();
        world.run(B)?;
        world.run(A)?;
        assert_eq!(world.way_of(A, &chased), [A, B, A, B, A, B, A, B]);
        let forwards = world.forwards(A, &chased);
        assert!(forwards.is_sorted_by(|one, next| one.epoch < next.epoch), "{forwards:?}");
        assert!(forwards.is_sorted_by(|one, next| next.instead_of.as_ref() == Some(&one.place)), "{forwards:?}");
        // Whoever has asked at A reads the answer there.
        assert_eq!(world.answer(A, &chased).map(|it| it.origin), Some(site(B)));
        assert_eq!(world.under_way(A, B), 0);
        world.come_to_rest()?;
        assert_eq!((world.decided_at(&chased), world.forwards(A, &chased)), (vec![B], forwards));
        Ok(())
    });
}

/// Two releases are in transit, one behind the other, while mirrors stall and instances read ahead of them, or behind. Commands of
/// all three sites are on their way meanwhile.
#[test]
fn s27_forwarding_flows_while_mirrors_stall_and_releases_are_in_transit() {
    World::both_ways(|world| {
        let id = record(A, 0);
        world.append(A, &id, "a0");
        world.run_and_mirror_all()?;
        let append_all = |world: &mut World, at: usize, names: [&str; 3]| names.map(|name| world.append(at, &id, name));
        // B and C send before they hear of the first release, and A gives the record away before it hears of theirs.
        let of_b = append_all(world, B, ["b1", "b2", "b3"]);
        world.run(B)?;
        let of_c = append_all(world, C, ["c1", "c2", "c3"]);
        world.run(C)?;
        assert_eq!((world.under_way(B, A), world.under_way(C, A)), (3, 3));
        world.cut(A);
        let before_release = append_all(world, A, ["a1", "a2", "a3"]);
        world.rehome(A, &id, "to-b", B);
        let behind_release = append_all(world, A, ["a4", "a5", "a6"]);
        world.run(A)?;
        world.heal(A);
        let (b4, c4) = (world.append(B, &id, "b4"), world.append(C, &id, "c4"));
        world.rehome(B, &id, "to-c", C);
        world.run(C)?;
        assert!(world.forwards(C, &c4).is_empty(), "it does not overtake those that are under way to A");
        // It comes to rest with all mirrors behind: nothing goes in circles, and B, which has read the release, does not decide.
        world.run_all()?;
        assert_eq!((world.updates(B, &id), world.updates(C, &id)), (vec![], vec![]));
        before_release.iter().for_each(|it| assert_eq!(world.decided_at(it), [A]));
        behind_release.iter().for_each(|it| assert_eq!(world.way_of(A, it), [A, B]));
        of_b.iter().for_each(|it| assert_eq!(world.way_of(B, it), [B, A, B]));
        of_c.iter().for_each(|it| assert_eq!(world.way_of(C, it), [C, A, C, B]));
        // B's mirror has the first release now: B decides what is before the second.
        world.cut(C);
        world.mirror_whole(B, A);
        world.run(B)?;
        of_b.iter().chain([&b4]).for_each(|it| assert_eq!(world.decided_at(it), [B]));
        // What C had sent to B is on its way back when C is the owner already.
        world.sites[C].mirrors[A] = world.sites[A].records.len();
        world.sites[C].mirrors[B] = world.release(B, &id);
        let c5 = world.append(C, &id, "c5");
        world.run(C)?;
        assert_eq!((world.under_way(C, B), world.updates(C, &id)), (4, vec![]));
        world.heal(C);
        world.run_all()?;
        behind_release.iter().for_each(|it| assert_eq!(world.way_of(A, it), [A, B, A, C]));
        of_c.iter().for_each(|it| assert_eq!(world.way_of(C, it), [C, A, C, B, C]));
        behind_release.iter().chain(&of_c).chain([&c4, &c5]).for_each(|it| assert_eq!(world.decided_at(it), [C]));
        Ok(())
    });
}

/// What is to be sent is found again in the updates, and the log keeps only so many of those. Whoever takes over has read none
/// of them.
#[test]
fn s31_more_emitted_commands_than_the_history_limit_are_each_sent_and_decided_once() {
    const COUNT: usize = 3 * crate::instance::RETENTION.history as usize;
    // Decided where they are taken, one at a time and all at once, and at another site.
    for (owner, at_a_time) in [(A, 1), (A, COUNT), (B, COUNT)] {
        World::both_ways(|world| {
            world.run_and_mirror_all()?;
            let id = record(owner, 0);
            let target = |number: usize| record([A, B, C][number % 3], 1);
            for first in (0..COUNT).step_by(at_a_time) {
                for number in first..first + at_a_time {
                    world.take(A, append(&id, &format!("c{number}"), Some(target(number))));
                }
                if owner != A {
                    world.run(A)?;
                    world.mirror_all();
                }
                world.run_until_it_sends(owner)?;
                world.restart(owner, None);
            }
            let taken = world.sites.iter().map(|site| site.commands.iter().flatten().count()).sum::<usize>();
            assert_eq!(taken, COUNT, "nothing that was asked for has been sent");
            assert_eq!(world.updates(owner, &id).len(), COUNT / at_a_time);
            world.assign(owner, 1, true);
            world.run_and_mirror_all()?;
            assert_eq!(world.figures.dropped > 0, at_a_time == 1, "updates were dropped before they were read");
            for number in 0..COUNT {
                let emitted = append(&target(number), &format!("c{number}/0"), None);
                let sent = world.sites[owner].commands.iter().flatten();
                let sent = sent.filter(|it| it.message.as_ref() == Ok(&emitted)).count();
                assert_eq!((sent, world.decided_at(&emitted).len()), (1, 1), "{emitted:?}");
            }
            Ok(())
        });
    }
}

/// A hundred commands are on their way in each direction.
struct Crossing {
    copies: [SitesCopy; 2],
    mirrors: [[usize; SITES]; 2],
    /// By the site that took them.
    sent: [Vec<CommandMessage>; 2],
}

/// Sends them, and keeps what both ends have then.
fn a_hundred_each_way(world: &mut World) -> Result<Crossing, String> {
    world.run_and_mirror_all()?;
    world.cut(A);
    world.cut(B);
    let mut sent = [Vec::new(), Vec::new()];
    // Ten messages of ten commands.
    for tens in 0..10 {
        for (at, to) in [(A, B), (B, A)] {
            for ones in 0..10 {
                let name = format!("{}-{tens}-{ones}", site(at));
                sent[at].push(world.append(at, &record(to, ones % 3), &name));
            }
            world.run(at)?;
        }
    }
    assert_eq!((world.under_way(A, B), world.under_way(B, A)), (100, 100));
    let copy = |at: usize| world.instances[world.holder_of(at)].copy.clone();
    Ok(Crossing { copies: [copy(A), copy(B)], mirrors: [world.sites[A].mirrors, world.sites[B].mirrors], sent })
}

impl Crossing {
    fn decided(&self, world: &World) -> usize {
        self.sent.iter().flatten().map(|it| world.decided_at(it).len()).sum()
    }

    fn check_end(&self, world: &World) {
        for (from, to) in [(A, B), (B, A)] {
            self.sent[from].iter().for_each(|it| assert_eq!(world.decided_at(it), [to], "{it:?}"));
            assert_eq!(world.under_way(from, to), 0);
        }
    }
}

/// Forwarded commands travel in the records log and have no stream of their own. What can lose its tail is the mirror that they are
/// read from, and the copy of whoever reads it: both are as they were before anything came, and half of it was decided since.
#[test]
fn s32_forwards_whose_mirror_and_copy_lost_their_tail_are_read_again() {
    World::both_ways(|world| {
        let crossing = a_hundred_each_way(world)?;
        for (at, origin) in [(A, B), (B, A)] {
            // Half of them has come when the link is cut again.
            let had = crossing.mirrors[at][origin];
            world.sites[at].mirrors[origin] = had.midpoint(world.sites[origin].records.len());
        }
        world.run(A)?;
        world.run(B)?;
        let decided = crossing.decided(world);
        assert!((50..150).contains(&decided), "{decided}");
        for at in [A, B] {
            world.restart(at, Some(crossing.copies[at].clone()));
            world.sites[at].mirrors = crossing.mirrors[at];
            world.run(at)?;
        }
        assert_eq!(crossing.decided(world), decided);
        world.heal(A);
        world.heal(B);
        world.run_and_mirror_all()?;
        crossing.check_end(world);
        Ok(())
    });
}

/// What the command logs have lost is on its way already, in the records logs. Other commands take the places of the lost ones,
/// and every caller asks again.
#[test]
fn s32_commands_whose_log_lost_its_tail_are_not_sent_twice() {
    World::both_ways(|world| {
        let crossing = a_hundred_each_way(world)?;
        let mut others = Vec::new();
        for (at, to) in [(A, B), (B, A)] {
            world.sites[at].commands.truncate(20);
            for number in 0..30 {
                let (id, name) = (record([at, to][number % 2], 5), format!("{}-other-{number}", site(at)));
                others.push(world.append(at, &id, &name));
            }
            crossing.sent[at].iter().for_each(|it| world.take(at, it.clone()));
            world.restart(at, None);
            world.run(at)?;
            let copy = &world.instances[world.holder_of(at)].copy;
            let Ok(group) = copy.group(&site(at), &kind(), GroupNumber(0));
            assert_eq!(group.log.0, 1, "the log has a new life");
            crossing.sent[at].iter().for_each(|it| assert_eq!(world.forwards(at, it).len(), 1, "{it:?}"));
        }
        world.heal(A);
        world.heal(B);
        world.run_and_mirror_all()?;
        crossing.check_end(world);
        others.iter().for_each(|it| assert_eq!(world.decided_at(it).len(), 1, "{it:?}"));
        Ok(())
    });
}

/// The release is in the mirror, the first to hold the group has decided on the record, and the second has read neither when it
/// is given the group. The first one goes on; the callers ask again at both sites.
#[test]
fn s34_a_lagging_instance_that_claims_after_an_acquire_decides_nothing_twice() {
    World::both_ways(|world| {
        let id = record(A, 0);
        let (first, second) = (world.holder_of(B), world.holder_of(B) + 1);
        world.append(A, &id, "before");
        world.run_and_mirror_all()?;
        world.read(second, B, usize::MAX);
        let had = world.sites[B].records.len();
        world.rehome(A, &id, "to-b", B);
        let sent = [world.append(A, &id, "sent-1"), world.append(A, &id, "sent-2")];
        world.run(A)?;
        world.mirror_whole(B, A);
        world.run(B)?;
        sent.iter().for_each(|it| assert_eq!(world.decided_at(it), [B]));
        // The log takes one more flush of the first, which does not hear of that, nor that another one is to claim.
        let unheard = world.append(B, &id, "unheard");
        world.deliver(first, usize::MAX);
        world.carry_out(first, false)?;
        assert_eq!(world.decided_at(&unheard), [B]);
        world.assign(B, 1, false);
        world.carry_out(second, false)?;
        let claim = StreamSequence(world.sites[B].records.len() as u64);
        world.hear(second);
        assert_eq!(world.instances[second].holder.awaits(), Some(claim));
        let Ok(applied) = world.instances[second].copy.applied(&site(B));
        assert_eq!(applied, StreamSequence(had as u64), "it lags behind its own claim");
        // All callers ask again, and there is something new.
        sent.iter().chain([&unheard]).for_each(|it| [A, B].into_iter().for_each(|at| world.take(at, it.clone())));
        let new = world.append(B, &id, "new");
        // The first one still believes, and is refused.
        let refused = world.figures.refused_publishes;
        world.hear(first);
        world.deliver(first, usize::MAX);
        world.carry_out(first, false)?;
        assert_eq!((world.figures.refused_publishes, world.decided_at(&new)), (refused + 1, vec![]));
        // Message by message the second one comes up to its claim, and does nothing before.
        for _ in had as u64 + 1..claim.0 {
            world.read(second, B, 1);
            world.deliver(second, usize::MAX);
            assert!(world.instances[second].effects.is_empty() && world.instances[second].holder.holds().is_none());
        }
        // Then it holds the group, knows what was decided, and has not read that the record was given to its site.
        world.cut(B);
        let mirrored = std::mem::replace(&mut world.sites[B].mirrors[A], 0);
        world.run(B)?;
        assert_eq!(world.instances[second].holder.holds(), Some(claim));
        assert!(world.instances[second].holder.waits_for_sites() && world.decided_at(&new).is_empty());
        world.sites[B].mirrors[A] = mirrored;
        world.heal(B);
        world.run_and_mirror_all()?;
        sent.iter().chain([&unheard, &new]).for_each(|it| assert_eq!(world.decided_at(it), [B], "{it:?}"));
        Ok(())
    });
}

/// A has given one record to C when it is lost, and B, which takes A over, has heard nothing of that. The cut is where C is, and
/// B reaches C only later. C has made the record its own by then, or has the release in its mirror and has not read it.
#[test]
fn s35_a_taker_that_is_behind_does_not_own_what_was_released_to_another() {
    for has_acquired in [true, false] {
        World::both_ways(|world| taken_over_after_a_release(world, has_acquired));
    }
}

fn taken_over_after_a_release(world: &mut World, has_acquired: bool) -> Result<(), String> {
    let (given, kept) = (record(A, 0), record(A, 1));
    world.append(A, &given, "given-0");
    world.append(A, &kept, "kept-0");
    world.run_and_mirror_all()?;
    world.cut(B);
    let on_its_way = world.append(B, &given, "on-its-way");
    world.run(B)?;
    assert_eq!(world.under_way(B, A), 1);
    let before_cut = [world.append(A, &given, "given-1"), world.append(A, &kept, "kept-1")];
    world.rehome(A, &given, "to-c", C);
    world.run(A)?;
    world.mirror_whole(C, A);
    let acquired = world.append(C, &given, "acquired");
    if has_acquired {
        world.run(C)?;
    }
    assert_eq!(world.decided_at(&acquired).contains(&C), has_acquired);
    world.cut(A);
    let beyond_cut = world.append(A, &kept, "beyond-cut");
    world.run(A)?;
    let [of_b, of_c] = [B, C].map(|at| world.sites[at].mirrors[A]);
    assert!(of_b < of_c && of_c < world.sites[A].records.len());
    world.lose(A, B);
    let asked = [world.append(B, &given, "given-2"), world.append(B, &kept, "kept-2")];
    world.run(B)?;
    assert!(world.instances[world.holder_of(B)].holder.waits_for_sites());
    asked.iter().for_each(|it| assert!(world.decided_at(it).is_empty() && world.forwards(B, it).is_empty()));
    // What B has not had of A's log it reads at C.
    world.heal(B);
    world.run_and_mirror_all()?;
    assert_eq!(asked.each_ref().map(|it| world.decided_at(it)), [[C], [B]]);
    assert_eq!(world.way_of(B, &on_its_way), [B, A, C]);
    world.adopt(world.holder_of(B));
    world.heal(A);
    world.come_to_rest()?;
    assert_eq!(world.updates(B, &given), []);
    before_cut.iter().for_each(|it| assert_eq!(world.decided_at(it), [A], "what counts is not decided anew"));
    assert_eq!(world.decided_at(&beyond_cut), [A, B], "what does not count is");
    let owner = |id: &RecordId| world.instances[world.holder_of(A)].copy.records[id].owner.clone();
    assert_eq!((owner(&given), owner(&kept)), (site(C), site(B)));
    Ok(())
}

/// A flush is stored whole and read message by message. Between two messages of B's, a copy at A read what A had sent: the command
/// that the second message returned was taken for answered, its number being below that of the one that the first had decided. Its
/// return was passed over then, and nobody sent it on.
#[test]
fn s58_a_copy_that_has_half_a_batch_takes_nothing_for_answered() {
    World::both_ways(|world| {
        let (given, kept) = (record(B, 0), record(B, 1));
        world.append(B, &given, "given-0");
        world.append(B, &kept, "kept-0");
        world.run_and_mirror_all()?;
        world.cut(B);
        let (returned, decided) = (world.append(A, &given, "returned"), world.append(A, &kept, "decided"));
        world.run(A)?;
        world.rehome(B, &given, "to-c", C);
        world.run(B)?;
        world.heal(B);
        let had = world.sites[B].records.len();
        world.run(B)?;
        assert_eq!((world.way_of(A, &returned), world.decided_at(&decided)), (vec![A, B, A], vec![B]));
        // The batch begins with the update.
        let reader = world.holder_of(A) + 1;
        world.read(reader, B, had + 1);
        assert_eq!(world.list(reader, &kept), ["kept-0", "decided"]);
        world.read(reader, A, usize::MAX);
        world.assign(A, 1, true);
        assert_eq!(world.holder_of(A), reader);
        world.run_and_mirror_all()?;
        assert_eq!((world.way_of(A, &returned), world.decided_at(&returned)), (vec![A, B, A, C], vec![C]));
        Ok(())
    });
}

/// A has given the record to B when it is lost, and B takes it over. C hears of the takeover before it has read A's log up to the
/// cut: what it sends to B under the epoch of the takeover would wait for ever, since B owns the record under that of the release.
#[test]
fn s35_a_member_that_is_behind_sends_nothing_under_an_epoch_that_never_comes() {
    World::both_ways(|world| {
        let given = record(A, 0);
        world.append(A, &given, "before");
        world.run_and_mirror_all()?;
        world.cut(C);
        let came_back = world.append(C, &given, "came-back");
        world.run(C)?;
        world.rehome(A, &given, "to-b", B);
        world.run(A)?;
        world.mirror_whole(B, A);
        world.cut(A);
        world.lose(A, B);
        world.heal(C);
        let member = world.holder_of(C);
        world.read(member, B, usize::MAX);
        world.answer_all(member)?;
        assert_eq!(world.way_of(C, &came_back), [C, A], "where it was sent to is not known before the cut");
        world.run_and_mirror_all()?;
        assert_eq!((world.way_of(C, &came_back), world.decided_at(&came_back)), (vec![C, A, B], vec![B]));
        world.heal(A);
        Ok(())
    });
}

/// A flush changes five records, and the mirrors that are sealed end within it: what is before the cut counts, record by record, and
/// what is behind it is decided anew where it is sent again.
#[test]
fn s39_a_cut_inside_a_flush_of_five_records_keeps_what_is_before_it() {
    const FLUSH: usize = 5;
    for kept in 0..=FLUSH {
        World::both_ways(|world| {
            let ids: Vec<_> = (0..FLUSH).map(|number| record(A, number)).collect();
            ids.iter().enumerate().for_each(|(number, id)| _ = world.append(A, id, &format!("before-{number}")));
            world.run_and_mirror_all()?;
            let begins = world.sites[A].records.len();
            let name = |number: usize| format!("flush-{number}");
            let sent: Vec<_> = ids.iter().enumerate().map(|(number, id)| world.append(A, id, &name(number))).collect();
            world.run(A)?;
            sent.iter().for_each(|it| assert_eq!(world.decided_at(it), [A]));
            let flush = world.updates_behind(A, begins);
            assert_eq!(flush.len(), FLUSH, "all five are in one flush");
            // The furthest member ends within it.
            world.sites[B].mirrors[A] = begins;
            world.sites[C].mirrors[A] = if kept == 0 { begins } else { flush[kept - 1] };
            world.cut(A);
            world.lose(A, B);
            world.run_and_mirror_all()?;
            let list = |world: &World, id: &RecordId| world.list(world.holder_of(B), id).len();
            let counted = ids.iter().filter(|id| list(world, id) == 2).count();
            assert_eq!(counted, kept);
            world.heal(A);
            world.come_to_rest()?;
            let decided = sent.iter().map(|it| world.decided_at(it));
            let anew = decided.filter(|at| *at == [A, B]).count();
            assert_eq!(anew, FLUSH - kept, "what did not count was set aside, sent again, and decided at the taker");
            Ok(())
        });
    }
}

/// B has taken A over and is lost before anybody's mirror has the fact. A has read it at B itself, and has begun a new life by it: that
/// makes it count, and what B got by it is C's, which takes B over.
#[test]
fn s37_a_takeover_that_only_the_lost_site_has_read_counts_when_it_has_come_back_by_it() {
    World::both_ways(|world| {
        let id = record(A, 0);
        world.append(A, &id, "before");
        world.run_and_mirror_all()?;
        world.cut(A);
        world.lose(A, B);
        world.heal(A);
        world.read(world.holder_of(A), B, usize::MAX);
        assert_eq!(world.sites[A].life, 2, "it has come back");
        world.cut(B);
        world.lose(B, C);
        let asked = world.append(C, &id, "asked");
        world.run(C)?;
        assert!(world.decided_at(&asked).is_empty(), "C does not know who owns it before it hears of A's new life");
        world.heal(B);
        world.come_to_rest()?;
        assert_eq!(world.decided_at(&asked), [C]);
        for at in [A, B, C] {
            let copy = &world.instances[world.holder_of(at)].copy;
            assert_eq!((&copy.records[&id].owner, copy.takeovers.iter().count()), (&site(C), 2));
        }
        Ok(())
    });
}
