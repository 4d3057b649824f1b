//! What the `records` command is told: which instance it is, and which kinds it serves.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use freehold::core::{GroupCount, KindDefinition, KindName};
use freehold::prelude::HomeRule;

use crate::instance_arguments::InstanceArguments;
use crate::kind::kind_definition;
use crate::schema::RecordSchema;

/// A service for any JSON records, each owned by one site.
///
/// It runs until SIGINT or SIGTERM and prints one line of JSON on stdout when it answers requests. Every flag of the
/// configuration has a key in freehold.toml and a FREEHOLD_… variable: see the guide.
#[derive(Debug, Clone, Parser)]
#[command(name = "records", version)]
pub struct Options {
    /// Which instance this is.
    #[command(flatten)]
    pub(crate) instance: InstanceArguments,
    /// A kind of record to serve; repeat it for more.
    #[arg(long = "kind", required = true, value_name = "KIND")]
    kinds: Vec<KindName>,
    /// Where new ids belong: `prefix` (the id's part before its first `-` names the site), or one site for all.
    #[arg(long, default_value = "prefix", value_name = "prefix|SITE")]
    home: String,
    /// Into how many groups the records of each kind fall: what may be processed at the same time. For good, and the same at every site.
    #[arg(long, value_name = "COUNT", default_value_t = GroupCount::DEFAULT.get(), value_parser = clap::value_parser!(u16).range(1..=1024))]
    groups: u16,
    /// A JSON Schema that every record of a kind must fit; the same file at every instance of every site. Without
    /// `KIND=`, it is for all kinds.
    #[arg(long = "schema", value_name = "[KIND=]FILE")]
    schemas: Vec<String>,
}

impl Options {
    /// The kinds to serve.
    pub(crate) fn kinds(&self) -> anyhow::Result<Vec<KindDefinition>> {
        let home = match self.home.as_str() {
            "prefix" => HomeRule::Prefix,
            site => HomeRule::Site(site.parse().context("--home")?),
        };
        let groups = GroupCount::new(self.groups).context("--groups")?;
        let schemas = self.schemas.iter().map(|text| SchemaFile::parse(text)).collect::<anyhow::Result<Vec<_>>>()?;
        for kind in schemas.iter().filter_map(|schema| schema.kind.as_ref()) {
            anyhow::ensure!(self.kinds.contains(kind), "--schema is for kind {kind}, which is not served");
        }
        let definition = |kind: &KindName| {
            let own = schemas.iter().find(|schema| schema.kind.as_ref() == Some(kind));
            let schema = own.or_else(|| schemas.iter().find(|schema| schema.kind.is_none()));
            let schema = schema.map(SchemaFile::compile).transpose()?;
            let mut definition = kind_definition(kind.clone(), home.clone(), schema);
            definition.settings.groups = groups;
            Ok(definition)
        };
        self.kinds.iter().map(definition).collect()
    }
}

/// A file with a JSON Schema, and the kind that it is for; nothing for all.
struct SchemaFile {
    kind: Option<KindName>,
    path: PathBuf,
}

impl SchemaFile {
    fn parse(text: &str) -> anyhow::Result<Self> {
        match text.split_once('=') {
            Some((kind, path)) => Ok(Self { kind: Some(kind.parse().context("--schema")?), path: path.into() }),
            None => Ok(Self { kind: None, path: text.into() }),
        }
    }

    fn compile(&self) -> anyhow::Result<RecordSchema> {
        let name = || self.path.display().to_string();
        let text = std::fs::read_to_string(&self.path).with_context(name)?;
        let source = serde_json::from_str(&text).with_context(name)?;
        RecordSchema::compile(source).with_context(name)
    }
}
