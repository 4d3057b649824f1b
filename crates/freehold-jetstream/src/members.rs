//! The member lists of a site: one key a kind in a key-value bucket, changed by compare-and-set.

use async_nats::jetstream::kv;
use futures::StreamExt;

use freehold_core::subject;
use freehold_core::{KindName, LogTime, MemberList, SiteName};

use crate::command_log::milliseconds;
use crate::connection::Connection;
use crate::error::ApiError;

/// The bucket of member lists.
#[derive(Debug, Clone)]
pub struct Members {
    store: kv::Store,
}

/// A member list as the bucket has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersEntry {
    /// What the next change must expect; 0 where there is no list yet.
    pub bucket_revision: u64,
    /// The list; nothing where there is none, or none that can be read.
    pub list: Option<MemberList>,
}

impl Members {
    /// Opens a site's bucket.
    pub async fn open(connection: &Connection, site: &SiteName) -> Result<Self, ApiError> {
        let store = connection.jetstream.get_key_value(subject::members_bucket(site)).await;
        Ok(Self { store: store.map_err(|error| ApiError::new("opening the bucket of member lists", error))? })
    }

    /// The list of a kind.
    pub async fn read(&self, kind: &KindName) -> Result<MembersEntry, ApiError> {
        let entry = self.store.entry(kind.as_str()).await;
        let entry = entry.map_err(|error| ApiError::new("reading the member list", error))?;
        Ok(match entry {
            Some(entry) => {
                MembersEntry { bucket_revision: entry.revision, list: serde_json::from_slice(&entry.value).ok() }
            }
            None => MembersEntry { bucket_revision: 0, list: None },
        })
    }

    /// When the bucket took the newest change of a kind's list, by the server's time.
    pub async fn changed_at(&self, kind: &KindName) -> Result<Option<LogTime>, ApiError> {
        let entry = self.store.entry(kind.as_str()).await;
        let entry = entry.map_err(|error| ApiError::new("reading the member list", error))?;
        Ok(entry.map(|entry| LogTime(milliseconds(entry.created))))
    }

    /// Replaces a list that nobody has changed since it was read; false where somebody has.
    pub async fn replace(&self, kind: &KindName, read: &MembersEntry, list: &MemberList) -> Result<bool, ApiError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new("changing the member list", error);
        let value = serde_json::to_vec(list).map_err(|error| failed(error.into()))?;
        match self.store.update(kind.as_str(), value.into(), read.bucket_revision).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Waits for the next change of a kind's list after this call began watching; returns when the watch ends, too.
    pub async fn changes(
        &self,
        kind: &KindName,
    ) -> Result<impl futures::Stream<Item = ()> + Send + Unpin + use<>, ApiError> {
        let watch = self.store.watch(kind.as_str()).await;
        let watch = watch.map_err(|error| ApiError::new("watching the member list", error))?;
        Ok(watch.map(|_| ()))
    }
}
