//! The commands that ask, change or provision, one a file.

pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod permissions;
pub(crate) mod provision;
pub(crate) mod rehome;
pub(crate) mod restore;
pub(crate) mod send;
pub(crate) mod status;
pub(crate) mod stranded;
pub(crate) mod takeover;
