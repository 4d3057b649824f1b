//! One instance of a site: its copy, its holder, and what it has not heard yet.

use std::collections::VecDeque;
use std::sync::Arc;

use freehold_core::{
    Effect, Event, FlushContext, GroupNumber, Holder, HolderOptions, Incarnation, KindDefinition, Retention,
    StreamSequence,
};

use crate::copy::SitesCopy;
use crate::rules::site;

pub(crate) const RETENTION: Retention = Retention { outcomes_ms: 3_600_000, history: 8 };

/// Of a site's records log.
pub(crate) const FIRST_LIFE: u64 = 1;

pub(crate) struct Instance {
    pub(crate) site: usize,
    pub(crate) copy: SitesCopy,
    pub(crate) holder: Holder,
    /// Answers on their way to the holder.
    pub(crate) answers: VecDeque<Event>,
    /// Effects that are not carried out yet.
    pub(crate) effects: VecDeque<Effect>,
    /// The consumer delivers behind this place.
    pub(crate) consumer: Option<StreamSequence>,
    lives: u64,
}

impl Instance {
    pub(crate) fn new(at: usize, name: &str, definition: &Arc<KindDefinition>, batched: bool) -> Self {
        Self {
            site: at,
            copy: SitesCopy::default(),
            holder: holder(at, name, (0, FIRST_LIFE), definition, batched),
            answers: VecDeque::new(),
            effects: VecDeque::new(),
            consumer: None,
            lives: 0,
        }
    }

    /// The process dies and is started again on the copy that it had committed.
    pub(crate) fn crash(&mut self, name: &str, log: u64, definition: &Arc<KindDefinition>, batched: bool) {
        self.lives += 1;
        self.holder = holder(self.site, name, (self.lives, log), definition, batched);
        self.answers.clear();
        self.effects.clear();
        self.consumer = None;
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let Ok(effects) = self.holder.handle(event, &self.copy);
        for effect in effects {
            if matches!(effect, Effect::Release(_)) {
                self.answers.clear();
                self.effects.clear();
                self.consumer = None;
            } else {
                self.effects.push_back(effect);
            }
        }
    }
}

fn holder(at: usize, name: &str, (life, log): (u64, u64), definition: &Arc<KindDefinition>, batched: bool) -> Holder {
    Holder::new(HolderOptions {
        flush: FlushContext {
            definition: Arc::clone(definition),
            site: site(at),
            sites: (0..3).map(site).collect(),
            group: GroupNumber(0),
            log: Incarnation::new(log, "sim"),
            retention: RETENTION,
            max_payload_bytes: 1 << 20,
        },
        instance: name.parse().unwrap(),
        nonce: format!("n{life}").parse().unwrap(),
        batched,
        audit_window_ms: 0,
    })
}
