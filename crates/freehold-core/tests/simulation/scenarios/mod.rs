//! Numbered cases that Freehold must survive, each taken step by step through the real holder and the real copy.
//!
//! 1 to 17 and 19 to 25 are here, and the pure half of 53, 56 and 60; 18 needs two records in one decision. What only real processes can show (a process that
//! aborts, a store that fails, a server that is gone) has its pure half here: a holder that is released and comes back, a
//! publish of which nobody knows the fate.

mod crashes;
mod deletion;
mod doubt;
mod full_log;
mod history;
mod limits;
mod ownership;
mod poison;
mod rejections;
mod repeats;
mod rewind;
mod stage;
mod turns;
