//! Which seeds run.

use std::time::{Duration, Instant};

use crate::random::{Commands, Told, run};

/// Seeds that once found something. Each stays for good.
const REGRESSIONS: &[u64] = &[6, 23, 223, 258, 1518, 5328, 5595];
/// The same where the command log is bounded.
const BOUNDED_REGRESSIONS: &[u64] = &[43, 158];
/// Seeds of one test, unless `FREEHOLD_SEEDS` says otherwise.
const SEEDS: u64 = 200;
/// Seeds are not started after this, so that a slow machine tells a smaller number and not a timeout.
const MOST_TIME: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[track_caller]
fn check(seed: u64, commands: Commands) -> Told {
    match run(seed, commands, false) {
        Ok(told) => told,
        Err(why) => {
            let Err(trace) = run(seed, commands, true) else { panic!("seed {seed} failed once only: {why}") };
            panic!("{trace}\n\nFREEHOLD_SEED={seed} shows it again ({commands:?})");
        }
    }
}

fn check_all(seeds: impl Iterator<Item = u64>, commands: Commands) -> Told {
    let began = Instant::now();
    let mut total = Told::default();
    let mut count = 0;
    for seed in seeds.take_while(|_| began.elapsed() < MOST_TIME) {
        let told = check(seed, commands);
        count += 1;
        total.decided += told.decided;
        total.updates += told.updates;
        total.claims += told.claims;
        total.crashes += told.crashes;
        total.rewinds += told.rewinds;
        total.purged += told.purged;
        total.emitted += told.emitted;
        total.refused.0 += told.refused.0;
        total.refused.1 += told.refused.1;
    }
    eprintln!("{count} seeds in {:?}: {total:?}", began.elapsed());
    total
}

/// Every so manieth seed from a first one on, so that the tests run side by side.
fn seeds(part: u64, of: u64) -> Vec<u64> {
    match number("FREEHOLD_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("FREEHOLD_FIRST_SEED").unwrap_or(0);
            (0..number("FREEHOLD_SEEDS").unwrap_or(SEEDS)).map(|seed| first + seed * of + part).collect()
        }
    }
}

#[test]
fn random_runs_with_even_seeds_keep_every_promise() {
    check_all(seeds(0, 2).into_iter(), Commands::Unbounded);
}

#[test]
fn random_runs_with_odd_seeds_keep_every_promise() {
    check_all(seeds(1, 2).into_iter(), Commands::Unbounded);
}

/// Requests are refused above a mark. What decisions ask for has room above it, plenty or little.
#[test]
fn random_runs_with_a_full_command_log_keep_every_promise() {
    let told = check_all(seeds(0, 1).into_iter(), Commands::Bounded);
    assert!(told.refused.0 > 0, "the log was full: {told:?}");
}

#[test]
fn seeds_that_once_failed_pass() {
    check_all(REGRESSIONS.iter().copied(), Commands::Unbounded);
    let told = check_all(BOUNDED_REGRESSIONS.iter().copied(), Commands::Bounded);
    assert!(told.refused.1 > 0, "there was no room for emissions at times: {told:?}");
}
