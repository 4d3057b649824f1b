//! Everything that a random run draws, from one seed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::world::Fate;

/// Draws fates and choices.
#[derive(Debug)]
pub(crate) struct Chance {
    pub(crate) rng: Xoshiro256PlusPlus,
    /// How often in a thousand a request meets each bad fate.
    pub(crate) answer_lost: u32,
    pub(crate) lost: u32,
    pub(crate) delayed: u32,
    /// How often in a thousand a step is a fault.
    pub(crate) faults: u32,
}

impl Chance {
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let harsh = [0, 5, 30, 120][rng.random_range(0..4)];
        Self { answer_lost: harsh, lost: harsh, delayed: harsh, faults: [0, 10, 40, 80][rng.random_range(0..4)], rng }
    }

    pub(crate) fn quiet(&mut self) {
        Self { answer_lost: self.answer_lost, .. } = *self;
        (self.answer_lost, self.lost, self.delayed, self.faults) = (0, 0, 0, 0);
    }

    pub(crate) fn fate(&mut self) -> Fate {
        let drawn = self.rng.random_range(0..1000);
        let Self { answer_lost, lost, delayed, .. } = *self;
        match drawn {
            _ if drawn < answer_lost => Fate::AnswerLost,
            _ if drawn < answer_lost + lost => Fate::Lost,
            _ if drawn < answer_lost + lost + delayed => Fate::Delayed,
            _ => Fate::Arrives,
        }
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    pub(crate) fn one_in(&mut self, many: u32) -> bool {
        self.rng.random_ratio(1, many)
    }
}
