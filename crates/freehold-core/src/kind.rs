//! What defines a kind: its commands, its home rule and the settings that are the same at every site.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decision::{Command, Decider, Record, TypedCommand, kind_name};
use crate::group::GroupCount;
use crate::id::RecordId;
use crate::name::{CommandName, KindName, SiteName};
use crate::rehome::{REHOME_COMMAND, RehomeCommand};

/// Where new ids of a kind belong: the start of the home right. A pure function of the id.
#[derive(Clone)]
pub enum HomeRule {
    /// The id's part before its first `-` names the site.
    Prefix,
    /// One site for all ids.
    Site(SiteName),
    /// A rule of the service's own; nothing where the id cannot exist.
    Custom(fn(&RecordId) -> Option<SiteName>),
}

impl HomeRule {
    /// The site that may create the id; nothing where no site may.
    pub fn home(&self, id: &RecordId) -> Option<SiteName> {
        match self {
            Self::Prefix => id.prefix().parse().ok(),
            Self::Site(site) => Some(site.clone()),
            Self::Custom(rule) => rule(id),
        }
    }
}

/// The texts are kept in the records stream's metadata.
impl fmt::Display for HomeRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => formatter.write_str("prefix"),
            Self::Site(site) => write!(formatter, "site {site}"),
            Self::Custom(_) => formatter.write_str("custom"),
        }
    }
}

impl fmt::Debug for HomeRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HomeRule({self})")
    }
}

/// The settings of a kind that every site must agree on; kept in the records stream's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindSettings {
    /// How many groups.
    pub groups: GroupCount,
    /// How the group of an id is found. Only this way exists.
    pub hash: GroupHash,
    /// The home rule as [`HomeRule`] prints it; nothing where whoever provisioned did not know it. Two instances with different
    /// rules would let two sites create the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
}

impl KindSettings {
    /// Whether a service with these settings may work on a kind that has the others. A home rule that nobody has noted
    /// yet fits.
    pub fn fits(&self, existing: &Self) -> bool {
        let same_home = self.home.is_none() || existing.home.is_none() || self.home == existing.home;
        (self.groups, self.hash) == (existing.groups, existing.hash) && same_home
    }
}

/// How the group of an id is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GroupHash {
    /// FNV-1a, 32 bits, of the id's subject token.
    #[default]
    #[serde(rename = "fnv1a-32")]
    Fnv1a32,
}

impl Default for KindSettings {
    fn default() -> Self {
        Self { groups: GroupCount::DEFAULT, hash: GroupHash::default(), home: None }
    }
}

/// Everything the toolkit knows about a kind.
#[derive(Clone)]
pub struct KindDefinition {
    /// The kind's name.
    pub name: KindName,
    /// What every site must agree on.
    pub settings: KindSettings,
    /// Version of the record's schema.
    pub schema: u32,
    /// Where new ids belong.
    pub home: HomeRule,
    /// The commands by name.
    pub commands: BTreeMap<CommandName, Arc<dyn Decider>>,
    /// JSON Schema of the record, for the endpoint metadata.
    pub record_schema: serde_json::Value,
}

impl KindDefinition {
    /// A kind without commands whose records are any JSON.
    pub fn new(name: KindName, home: HomeRule) -> Self {
        Self {
            name,
            settings: KindSettings::default(),
            schema: 1,
            home,
            commands: BTreeMap::new(),
            record_schema: serde_json::Value::Bool(true),
        }
    }

    /// What every site must agree on, the home rule included.
    pub fn shared_settings(&self) -> KindSettings {
        KindSettings { home: Some(self.home.to_string()), ..self.settings.clone() }
    }

    /// The rule of a command: one of the kind's own, or the one that every kind has.
    pub fn decider(&self, name: &CommandName) -> Option<&dyn Decider> {
        if name.as_str() == REHOME_COMMAND {
            return Some(&RehomeCommand);
        }
        self.commands.get(name).map(AsRef::as_ref)
    }

    /// Adds a command; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, command: impl Decider) -> Self {
        self.commands.insert(command.name(), Arc::new(command));
        self
    }
}

impl fmt::Debug for KindDefinition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KindDefinition")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .field("home", &self.home)
            .field("commands", &self.commands.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Builds the definition of a typed kind.
#[derive(Debug)]
pub struct Kind<R> {
    definition: KindDefinition,
    record: PhantomData<fn() -> R>,
}

impl<R: Record> Kind<R> {
    /// The kind of a record type, with home rule [`HomeRule::Prefix`] and no commands yet.
    #[allow(clippy::new_without_default, reason = "a kind without commands is a start, not a default")]
    pub fn new() -> Self {
        let mut definition = KindDefinition::new(kind_name::<R>(), HomeRule::Prefix);
        definition.schema = R::SCHEMA;
        definition.record_schema = schemars::schema_for!(R).to_value();
        Self { definition, record: PhantomData }
    }

    /// Adds a command.
    #[must_use]
    pub fn command<C: Command<Record = R>>(mut self) -> Self {
        self.definition = self.definition.with(TypedCommand::<C>::default());
        self
    }

    /// Sets the home rule.
    #[must_use]
    pub fn home(mut self, rule: fn(&RecordId) -> Option<SiteName>) -> Self {
        self.definition.home = HomeRule::Custom(rule);
        self
    }

    /// Sets the group count, the same at every site and for good.
    #[must_use]
    pub fn groups(mut self, groups: GroupCount) -> Self {
        self.definition.settings.groups = groups;
        self
    }

    /// The definition.
    pub fn build(self) -> KindDefinition {
        self.definition
    }
}

impl<R: Record> From<Kind<R>> for KindDefinition {
    fn from(kind: Kind<R>) -> Self {
        kind.build()
    }
}
