//! Where the services of each site are reached.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, bail};
use freehold::core::NameError;
use freehold::prelude::SiteName;
use freehold::{Client, ConnectOptions};

/// What the server's connection lists show.
const CONNECTION_NAME: &str = "flights-load";

/// One `--url`: of a site, or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteUrl {
    pub(crate) site: Option<SiteName>,
    pub(crate) url: String,
}

impl FromStr for SiteUrl {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('=') {
            // A URL's own `=` comes behind its `://`.
            Some((site, url)) if !site.contains("://") => Ok(Self { site: Some(site.parse()?), url: url.to_owned() }),
            _ => Ok(Self { site: None, url: text.to_owned() }),
        }
    }
}

/// A client for each site. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sites(BTreeMap<SiteName, Client>);

impl Sites {
    /// Connects to the sites that are needed.
    pub(crate) async fn connect(urls: &[SiteUrl], needed: impl Iterator<Item = &SiteName>) -> anyhow::Result<Self> {
        let mut clients = BTreeMap::new();
        for site in needed {
            let url = urls.iter().find(|url| url.site.as_ref() == Some(site));
            let Some(url) = url.or_else(|| urls.iter().find(|url| url.site.is_none())) else {
                bail!("the data has flights of site {site}: where is it? --url {site}=nats://…");
            };
            let client = Client::connect(&ConnectOptions::to(&url.url), CONNECTION_NAME).await;
            clients.insert(site.clone(), client.with_context(|| format!("site {site}"))?);
        }
        Ok(Self(clients))
    }

    /// The client of a site.
    pub(crate) fn client(&self, site: &SiteName) -> Option<&Client> {
        self.0.get(site)
    }

    /// All sites.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SiteName, &Client)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_site_or_none() {
        let check = |text: &str, site: Option<&str>, url: &str| {
            let expected = SiteUrl { site: site.map(|site| site.parse().unwrap()), url: url.to_owned() };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        };
        check("ewr=nats://127.0.0.1:4222", Some("ewr"), "nats://127.0.0.1:4222");
        check("nats://127.0.0.1:4222", None, "nats://127.0.0.1:4222");
        check("nats://host?a=b", None, "nats://host?a=b");
        check("127.0.0.1", None, "127.0.0.1");
        assert!("EWR=nats://127.0.0.1".parse::<SiteUrl>().is_err());
    }
}
