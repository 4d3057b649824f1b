//! A kind of such records.

use freehold::core::{CommandName, KindName};
use freehold::prelude::{HomeRule, KindDefinition};
use serde_json::json;

use crate::create::Create;
use crate::delete::Delete;
use crate::patch::Patch;
use crate::replace::Replace;
use crate::schema::RecordSchema;

/// The definition of a kind with the four commands.
pub fn kind_definition(name: KindName, home: HomeRule, schema: Option<RecordSchema>) -> KindDefinition {
    let mut kind = KindDefinition::new(name, home);
    kind.record_schema = match &schema {
        Some(schema) => schema.source().clone(),
        None => json!({ "type": "object" }),
    };
    kind.with(Create { schema: schema.clone() })
        .with(Replace { schema: schema.clone() })
        .with(Patch { schema })
        .with(Delete)
}

/// A name that is fixed in the program.
pub(crate) fn command_name(name: &str) -> CommandName {
    match name.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("a command's name is fixed in the program: {error}"),
    }
}
