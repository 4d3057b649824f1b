//! What the server says of whoever is connected: who it is, and what it may do.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::connection::Connection;
use crate::error::ApiError;

/// How long the server may take to say it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where a user asks who it is, and what it may do.
pub const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// What a user may do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Access {
    /// Where it may publish; nothing where nothing limits it.
    pub publish: Option<Permission>,
    /// Where it may subscribe; nothing where nothing limits it.
    pub subscribe: Option<Permission>,
}

/// Subjects that are allowed and denied, with wildcards.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Permission {
    /// Without any, everything is allowed that is not denied.
    pub allow: Vec<String>,
    /// Goes before what is allowed.
    pub deny: Vec<String>,
}

impl Permission {
    /// Whether everything that a subject stands for is allowed, as far as one entry says so.
    pub fn covers(&self, subject: &str) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|pattern| covers(pattern, subject));
        allowed && !self.deny.iter().any(|pattern| covers(pattern, subject) || covers(subject, pattern))
    }
}

/// Whether each subject that `subject` stands for is one that `pattern` stands for.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for expected in pattern.split('.') {
        let Some(token) = tokens.next() else { return false };
        match expected {
            ">" => return true,
            "*" if token != ">" => {}
            _ if expected == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

impl Connection {
    /// Asks the server what this connection's user may do. It must be allowed to publish there. Servers beyond a link are asked, too, and
    /// answer for the link's user: only the answer of the server that this connection has counts.
    pub async fn access(&self) -> Result<Access, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            server: Server,
            data: Data,
        }
        #[derive(Deserialize)]
        struct Server {
            id: String,
        }
        #[derive(Deserialize)]
        struct Data {
            #[serde(default)]
            permissions: Option<Access>,
        }
        fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
            ApiError::new("asking who this user is", error)
        }
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.map_err(failed)?;
        self.client.publish_with_reply(USER_INFO, inbox, Bytes::new()).await.map_err(failed)?;
        let own = self.client.server_info().server_id;
        let deadline = Instant::now() + PATIENCE;
        while let Some(answer) = timeout_at(deadline, answers.next()).await.map_err(failed)? {
            // A status without a body says that nobody answers.
            let answer: Answer = serde_json::from_slice(&answer.payload).map_err(failed)?;
            if answer.server.id == own {
                return Ok(answer.data.permissions.unwrap_or_default());
            }
        }
        Err(failed("the connection is gone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_entry_covers() {
        for (pattern, subject) in [("a.>", "a.b.c"), ("a.*", "a.b"), ("a.>", "a.*.c"), (">", "a"), ("a.*.>", "a.b.>")] {
            assert!(covers(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in [("a.>", "a"), ("a.*", "a.>"), ("a.*", "a.b.c"), ("a.b", "a.*"), ("a.b.c", "a.b")] {
            assert!(!covers(pattern, subject), "{pattern} {subject}");
        }
        let permission = Permission { allow: vec!["a.>".to_owned()], deny: vec!["a.secret".to_owned()] };
        assert!(permission.covers("a.b") && !permission.covers("a.*") && !permission.covers("a.secret"));
    }
}
