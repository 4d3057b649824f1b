//! The keys, the certificate and the roles of `nats-config/secure`, made anew for each test.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use freehold::ConnectOptions;
use nkeys::KeyPair;

use crate::deployment::{Deployment, Setup};

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Caller,
    Service,
    Operator,
    /// Has a key that the server does not know.
    Stranger,
}

impl Role {
    /// Those whom the server knows.
    const KNOWN: [Role; 3] = [Role::Caller, Role::Service, Role::Operator];

    fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Service => "service",
            Self::Operator => "operator",
            Self::Stranger => "stranger",
        }
    }
}

/// The keys of the roles, and the certificate of the server.
pub(crate) struct Secrets {
    keys: Vec<(Role, KeyPair)>,
    certificate: String,
    certificate_key: String,
}

impl Secrets {
    pub(crate) fn new() -> Result<Self> {
        let roles = [Role::Caller, Role::Service, Role::Operator, Role::Stranger];
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        Ok(Self {
            keys: roles.into_iter().map(|role| (role, KeyPair::new_user())).collect(),
            certificate: certified.cert.pem(),
            certificate_key: certified.signing_key.serialize_pem(),
        })
    }

    /// What the server needs of them: public keys, and its certificate. The seeds are put beside it for the clients.
    pub(crate) fn setup(&self, left_out: Option<fn(&str) -> bool>) -> Result<Setup> {
        let mut setup = Setup { left_out, ..Setup::default() };
        for (role, key) in &self.keys {
            if Role::KNOWN.contains(role) {
                let name = format!("NATS_{}_NKEY", role.name().to_uppercase());
                setup.environment.push((name, key.public_key()));
            }
            setup.files.push((format!("seeds/{}", role.name()), key.seed()?));
        }
        setup.environment.push(("NATS_STORE_KEY".to_owned(), format!("k{}", ulid::Ulid::generate())));
        for (file, content) in [
            ("tls/server.pem", &self.certificate),
            ("tls/server.key", &self.certificate_key),
            // Self-signed: it is its own authority.
            ("tls/ca.pem", &self.certificate),
        ] {
            setup.files.push((file.to_owned(), content.clone()));
        }
        Ok(setup)
    }

    /// A connection in a role, without Freehold.
    pub(crate) async fn plain(&self, deployment: &Deployment, role: Role, url: &str) -> Result<async_nats::Client> {
        let found = self.keys.iter().find(|(known, _)| *known == role);
        let seed = found.context("every role has a key")?.1.seed()?;
        let options = async_nats::ConnectOptions::new().nkey(seed).add_root_certificates(authority(deployment));
        Ok(options.connect(url).await?)
    }
}

fn authority(deployment: &Deployment) -> PathBuf {
    deployment.directory().join("tls/ca.pem")
}

/// How a service or a client of Freehold connects in a role.
pub(crate) fn connect_options(deployment: &Deployment, role: Role, url: &str) -> ConnectOptions {
    let mut options = ConnectOptions::to(url);
    options.nkey_seed_file = Some(deployment.directory().join("seeds").join(role.name()));
    options.tls_ca_file = Some(authority(deployment));
    options
}
