//! What the server says of whoever is connected: who it is, and what it may do.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

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
    /// Asks the server what this connection's user may do. It must be allowed to publish there.
    pub async fn access(&self) -> Result<Access, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            #[serde(default)]
            permissions: Option<Access>,
        }
        let what = "asking who this user is";
        let request = async_nats::Request::new().payload(Bytes::new()).timeout(Some(PATIENCE));
        let answer = self.client.send_request(USER_INFO, request).await.map_err(|error| ApiError::new(what, error))?;
        let answer: Answer = serde_json::from_slice(&answer.payload).map_err(|error| ApiError::new(what, error))?;
        Ok(answer.data.permissions.unwrap_or_default())
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
