//! Which seeds run.

use std::time::{Duration, Instant};

use crate::random::{Told, run};

/// Seeds that once found something. Each stays for good.
const REGRESSIONS: &[u64] = &[6, 23, 223, 258, 1518];
/// Seeds of one test, unless `FREEHOLD_SEEDS` says otherwise.
const SEEDS: u64 = 250;
/// Seeds are not started after this, so that a slow machine tells a smaller number and not a timeout.
const MOST_TIME: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[track_caller]
fn check(seed: u64) -> Told {
    match run(seed, false) {
        Ok(told) => told,
        Err(why) => {
            let Err(trace) = run(seed, true) else { panic!("seed {seed} failed once only: {why}") };
            panic!("{trace}\n\nFREEHOLD_SEED={seed} shows it again");
        }
    }
}

fn check_all(seeds: impl Iterator<Item = u64>) {
    let began = Instant::now();
    let mut total = Told::default();
    let mut count = 0;
    for seed in seeds.take_while(|_| began.elapsed() < MOST_TIME) {
        let told = check(seed);
        count += 1;
        total.decided += told.decided;
        total.updates += told.updates;
        total.claims += told.claims;
        total.crashes += told.crashes;
        total.rewinds += told.rewinds;
        total.purged += told.purged;
        total.emitted += told.emitted;
    }
    eprintln!("{count} seeds in {:?}: {total:?}", began.elapsed());
}

/// Each part takes its own residue, so that they run side by side.
fn part(number_of_part: u64) {
    match number("FREEHOLD_SEED") {
        Some(seed) => {
            check(seed);
        }
        None => {
            let first = number("FREEHOLD_FIRST_SEED").unwrap_or(0);
            check_all((0..number("FREEHOLD_SEEDS").unwrap_or(SEEDS)).map(|seed| first + seed * 2 + number_of_part));
        }
    }
}

#[test]
fn random_runs_with_even_seeds_keep_every_promise() {
    part(0);
}

#[test]
fn random_runs_with_odd_seeds_keep_every_promise() {
    part(1);
}

#[test]
fn seeds_that_once_failed_pass() {
    check_all(REGRESSIONS.iter().copied());
}
