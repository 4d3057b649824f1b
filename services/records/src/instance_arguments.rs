//! Which instance this process is: flags above `FREEHOLD_…` variables above `freehold.toml` above defaults.

use std::path::{Path, PathBuf};

use clap::Args;
use freehold::core::{Hash, InstanceName, SiteName};
use freehold::{ConfigError, ServiceConfig};
use serde::Serialize;

/// The flags of one instance of a service; those of other services may flatten them into theirs. Each one has a key in
/// `freehold.toml` and a `FREEHOLD_…` variable.
#[derive(Debug, Clone, Default, Args)]
pub struct InstanceArguments {
    /// The configuration file; without it, freehold.toml where there is one.
    #[arg(long, value_name = "FILE", env = "FREEHOLD_CONFIG")]
    config: Option<PathBuf>,
    /// The site that this instance belongs to.
    #[arg(long)]
    site: Option<SiteName>,
    /// All sites whose records are kept here, the own one among them.
    #[arg(long, value_delimiter = ',', value_name = "SITE,…")]
    sites: Vec<SiteName>,
    /// The instance's name, unique within its site; without it, the host's name and a hash of the data directory.
    #[arg(long)]
    instance: Option<InstanceName>,
    /// Where the site's nats-servers are; repeat it for more.
    #[arg(long = "nats-url", value_name = "URL", value_delimiter = ',')]
    nats_urls: Vec<String>,
    /// The directory of the copy.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// The flags as keys of the configuration; nothing stands for "not given".
#[derive(Debug, Clone, Default, Serialize)]
struct Overrides<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    site: Option<&'a SiteName>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    sites: &'a [SiteName],
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nats: Option<Nats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<&'a Path>,
}

#[derive(Debug, Clone, Serialize)]
struct Nats {
    url: String,
}

impl InstanceArguments {
    /// The configuration that they lead to.
    pub fn service_config(&self) -> Result<ServiceConfig, ConfigError> {
        let nats = (!self.nats_urls.is_empty()).then(|| Nats { url: self.nats_urls.join(",") });
        let overrides = Overrides {
            site: self.site.as_ref(),
            sites: &self.sites,
            instance: self.instance.clone(),
            nats,
            data_dir: self.data_dir.as_deref(),
        };
        match ServiceConfig::load(self.config.as_deref(), &overrides) {
            // A missing site is told by the second reading.
            Err(ConfigError::Wrong(error)) if error.missing() && self.instance.is_none() => {
                let named = Overrides { instance: Some(instance_name(Path::new(""))), ..overrides };
                let mut config = ServiceConfig::load(self.config.as_deref(), &named)?;
                config.instance = instance_name(&config.data_dir);
                Ok(config)
            }
            loaded => loaded,
        }
    }
}

/// The name of an instance that was given none: the same after each restart, another one for another data directory on the
/// same host, and refused by the member list where a second process uses the same directory.
fn instance_name(data_dir: &Path) -> InstanceName {
    let path = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let hash: String = Hash::of([path.as_os_str().as_encoded_bytes()]).to_string().chars().take(8).collect();
    let host =
        ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|file| std::fs::read_to_string(file).ok());
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let host: String = host
        .trim()
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|character| character.is_ascii_alphanumeric() || *character == '-')
        .take(48)
        .collect();
    let name = if host.is_empty() { format!("instance-{hash}") } else { format!("{host}-{hash}") };
    match name.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("only characters of instance names are left: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(directory: &Path, toml: &str) -> InstanceArguments {
        let config = directory.join("freehold.toml");
        std::fs::write(&config, toml).unwrap();
        InstanceArguments { config: Some(config), ..InstanceArguments::default() }
    }

    #[test]
    fn flags_stand_above_the_file_and_a_name_is_found_where_none_is_given() {
        let directory = tempfile::tempdir().unwrap();
        let mut given =
            arguments(directory.path(), "site = \"ewr\"\ndata_dir = \"a\"\nnats = { url = \"nats://file\" }\n");
        let config = given.service_config().unwrap();
        assert_eq!(config.nats.url, "nats://file");
        assert_eq!(config.instance, instance_name(Path::new("a")));
        given.nats_urls = vec!["nats://one".to_owned(), "nats://two".to_owned()];
        given.site = Some("jfk".parse().unwrap());
        given.instance = Some("mine".parse().unwrap());
        let config = given.service_config().unwrap();
        assert_eq!((config.nats.url.as_str(), config.site.as_str()), ("nats://one,nats://two", "jfk"));
        assert_eq!(config.instance.as_str(), "mine");
    }

    #[test]
    fn a_wrong_key_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let error = arguments(directory.path(), "site = \"ewr\"\ndata_dri = \"a\"\n").service_config().unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains("data_dri") && text.contains("freehold.toml"), "{text}");
    }

    #[test]
    fn a_missing_site_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let error = arguments(directory.path(), "").service_config().unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains("site"), "{text}");
    }

    #[test]
    fn two_directories_give_two_names() {
        assert_eq!(instance_name(Path::new("a")), instance_name(Path::new("./a")));
        assert_ne!(instance_name(Path::new("a")), instance_name(Path::new("b")));
    }
}
