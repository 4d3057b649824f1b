//! The `records` command.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use freehold::core::{HomeRule, KindName, SiteName};
use records::{RecordSchema, kind_definition};

/// A service for any JSON records, each owned by one site.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The site that this instance belongs to.
    #[arg(long)]
    site: SiteName,
    /// The kind of record.
    #[arg(long)]
    kind: KindName,
    /// Where new ids belong: `prefix` (the id's part before its first `-` names the site), or one site for all.
    #[arg(long, default_value = "prefix", value_name = "prefix|SITE")]
    home: String,
    /// A JSON Schema that every record must fit; the same file at every instance of every site.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let Arguments { site, kind, home, schema } = Arguments::parse();
    let home = match home.as_str() {
        "prefix" => HomeRule::Prefix,
        site => HomeRule::Site(site.parse()?),
    };
    let schema = match schema {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path).with_context(|| name.clone())?;
            let source = serde_json::from_str(&text).with_context(|| name.clone())?;
            Some(RecordSchema::compile(source).with_context(|| name)?)
        }
    };
    let definition = kind_definition(kind, home, schema);
    anyhow::bail!("site {site} cannot serve {definition:?} yet: the runtime is not there")
}
