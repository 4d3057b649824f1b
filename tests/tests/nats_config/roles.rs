//! The keys, the certificate and the roles of the secured configurations, made anew for each test.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use freehold::ConnectOptions;
use nkeys::KeyPair;

use crate::deployment::Setup;

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Caller,
    Service,
    Operator,
    /// Another site.
    Link,
    /// Has a key that the server does not know.
    Stranger,
}

impl Role {
    const ALL: [Role; 5] = [Role::Caller, Role::Service, Role::Operator, Role::Link, Role::Stranger];

    fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Service => "service",
            Self::Operator => "operator",
            Self::Link => "link",
            Self::Stranger => "stranger",
        }
    }
}

/// Somebody with a key: a role, and the site it has it at where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) site: Option<&'static str>,
    pub(crate) role: Role,
}

impl Who {
    /// The name of his key.
    pub(crate) fn name(self) -> String {
        match self.site {
            Some(site) => format!("{site}-{}", self.role.name()),
            None => self.role.name().to_owned(),
        }
    }

    /// The file with his seed, beside the configurations.
    fn seed_file(self) -> String {
        format!("{}.seed", self.name())
    }
}

impl From<Role> for Who {
    fn from(role: Role) -> Self {
        Self { site: None, role }
    }
}

/// The keys of the roles, and the certificate of the servers.
pub(crate) struct Secrets {
    sites: Vec<Option<&'static str>>,
    keys: Vec<(Who, KeyPair)>,
    certificate: String,
    certificate_key: String,
}

impl Secrets {
    /// Those of these sites; of one site alone they go by no site's name.
    pub(crate) fn new(sites: &[Option<&'static str>]) -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let everybody = sites.iter().flat_map(|site| Role::ALL.map(|role| Who { site: *site, role }));
        Ok(Self {
            sites: sites.to_vec(),
            keys: everybody.map(|who| (who, KeyPair::new_user())).collect(),
            certificate: certified.cert.pem(),
            certificate_key: certified.signing_key.serialize_pem(),
        })
    }

    /// What the servers need of them: public keys, and a certificate. The seeds are put beside it for the clients.
    pub(crate) fn setup(&self, left_out: Option<fn(&str) -> bool>) -> Result<Setup> {
        let mut setup = Setup { left_out, ..Setup::default() };
        for (who, key) in &self.keys {
            if who.role != Role::Stranger {
                setup.environment.push((format!("NATS_{}_NKEY", variable(&who.name())), key.public_key()));
            }
            if who.role == Role::Link {
                setup.environment.push((format!("NATS_{}_SEED", variable(&who.name())), key.seed()?));
            }
            setup.files.push((who.seed_file(), key.seed()?));
        }
        for site in &self.sites {
            let name = site.map_or_else(|| "STORE".to_owned(), |site| variable(&format!("{site}-store")));
            setup.environment.push((format!("NATS_{name}_KEY"), format!("k{}", ulid::Ulid::generate())));
        }
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
    pub(crate) async fn plain(&self, directory: &Path, who: impl Into<Who>, url: &str) -> Result<async_nats::Client> {
        let who = who.into();
        let found = self.keys.iter().find(|(known, _)| *known == who);
        let seed = found.context("everybody has a key")?.1.seed()?;
        let options = async_nats::ConnectOptions::new().nkey(seed).add_root_certificates(authority(directory));
        Ok(options.connect(url).await?)
    }
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn authority(directory: &Path) -> PathBuf {
    directory.join("tls/ca.pem")
}

/// How a service or a client of Freehold connects in a role.
pub(crate) fn connect_options(directory: &Path, who: impl Into<Who>, url: &str) -> ConnectOptions {
    let mut options = ConnectOptions::to(url);
    options.nkey_seed_file = Some(directory.join(who.into().seed_file()));
    options.tls_ca_file = Some(authority(directory));
    options
}
