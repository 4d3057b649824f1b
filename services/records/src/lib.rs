//! A ready service for records that are any JSON object, for teams that write no Rust.
//!
//! Four commands change a record: `create`, `replace`, `patch` (RFC 7396) and `delete`. They are pure: the JSON Schema
//! that a kind may have is configuration, and has to be the same at every instance and site (see [`RecordSchema`]).
//!
//! | command | fields beside `id` and `if_version` | where the record exists | where it does not |
//! |---|---|---|---|
//! | `create` | `record` | rejected: `already_exists` | becomes `record`; without `id` one is minted |
//! | `replace` | `record` | becomes `record` | `not_found` |
//! | `patch` | `patch` | is merged with `patch` | `not_found` |
//! | `delete` | none | is deleted | `not_found` |
//!
//! Each command that is accepted makes one version, also where the record stays as it is, so that versions count
//! acknowledged commands. The reply is `{"id", "version"}` ([`Written`]). A record that was deleted can be created again and goes on
//! counting.
//!
//! # What a record may be
//!
//! A JSON object, no other value: every record has named fields that can be patched. [`Document`] checks what comes in:
//!
//! * A key that occurs **twice** in one object is refused: readers would disagree on its value.
//! * **Numbers** stay digit for digit as they were sent, also those that no double holds (`12345678901234567890.10`), and also
//!   beside a patch. A number beyond the range of a double (`1e999`) is refused: most readers would refuse the whole record.
//!   JSON Schema compares numbers as 64-bit integers and doubles.
//! * More than [`MAX_DEPTH`] levels of **nesting** are refused, so that no reader meets its own limit.
//! * Keys that start with `$serde_json::private::` are refused: the JSON library reads them as something else.
//! * The **order of keys** stays as sent. A patch leaves it as it is and adds new keys at the end.
//! * **White space** between values is dropped, strings keep their spelling (`"\u00e9"` stays so). Half a surrogate pair is refused.

mod create;
mod delete;
mod document;
mod instance_arguments;
mod kind;
mod merge;
mod options;
mod patch;
mod refusal;
mod replace;
mod request;
mod run;
mod schema;
mod written;

pub use create::{AlreadyExists, Create};
pub use delete::Delete;
pub use document::{Document, MAX_DEPTH};
pub use instance_arguments::InstanceArguments;
pub use kind::kind_definition;
pub use options::Options;
pub use patch::Patch;
pub use replace::Replace;
pub use run::{main_with, run};
pub use schema::{MAX_VIOLATIONS, RecordSchema, SchemaError};
pub use written::Written;
