//! `breakwater explain`: what would become of a request.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::Args;

use super::{CliError, ExplainRequest, Format, args};
use crate::{auth, gateway::explain::Asked};

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Nothing is sent: the gate, the route table and the stages of the gateway run on the configuration as it stands in the
file. Tells the normalised path, the route and why others do not take the request, the token claim by claim, which
limits count it, where it goes, and what the shield thinks of its source. Limits begin unused, and every endpoint is
taken for usable. The target is taken as it is written: nothing is normalised before the gate sees it.

Keys that a provider fetches are fetched only with --fetch-keys.

Examples:
  breakwater explain https://api.example/graphql --config edge.toml --token \"$TOKEN\"
  breakwater explain POST https://api.example/users --config edge.toml -H 'Content-Type: application/json'
  breakwater explain /a//b%2e --host api.example --config edge.toml --from 203.0.113.7 --json")]
pub(super) struct ExplainArgs {
    /// The method, if it is not GET, and the URL, or the target alone with --host.
    #[arg(value_name = "[METHOD] URL", required = true, num_args = 1..=2)]
    asked: Vec<String>,

    /// The configuration.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,

    /// A field of the request, `Name: value` (may be repeated).
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    headers: Vec<String>,

    /// A cookie, `name=value` (may be repeated).
    #[arg(long = "cookie", short = 'b', value_name = "COOKIE")]
    cookies: Vec<String>,

    /// A token, sent as `Authorization: Bearer`.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Host and port, instead of the URL's.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// The client's address.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,

    /// Fetch the keys of providers that have a URL.
    #[arg(long)]
    fetch_keys: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ExplainArgs {
    pub(super) fn request(self) -> Result<ExplainRequest, CliError> {
        let loaded = args::load(&self.config)?;
        // A key that cannot be used has its line here.
        auth::load(&loaded)?;
        let (method, url) = match self.asked.as_slice() {
            [url] => ("GET", url.as_str()),
            [method, url] => (method.as_str(), url.as_str()),
            _ => return Err(CliError::usage("the URL is missing", "")),
        };
        let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) if url.starts_with('/') || url == "*" => (false, url),
            (None, None) if method == "CONNECT" => (false, url),
            (None, None) => {
                let remedy = "write https://HOST/PATH, or /PATH with --host";
                return Err(CliError::usage(
                    format!("{url:?} is neither a URL nor a path"),
                    remedy,
                ));
            }
        };
        let (authority, target) = if rest.len() == url.len() {
            (None, rest)
        } else {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        };
        let target = match target.chars().next() {
            None => "/".to_owned(),
            Some('?') => format!("/{target}"),
            Some(_) => target.to_owned(),
        };
        let mut fields = Vec::new();
        let connects = (method == "CONNECT").then_some(target.as_str());
        if let Some(host) = self.host.as_deref().or(authority).or(connects) {
            fields.push(("host".to_owned(), host.to_owned()));
        }
        for header in &self.headers {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                CliError::usage(format!("--header {header:?} has no colon"), "write 'Name: value'")
            })?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
        if !self.cookies.is_empty() {
            fields.push(("cookie".to_owned(), self.cookies.join("; ")));
        }
        if let Some(token) = &self.token {
            fields.push(("authorization".to_owned(), format!("Bearer {token}")));
        }
        let texts = fields.iter().flat_map(|(name, value)| [name, value]);
        if [method, target.as_str()]
            .into_iter()
            .chain(texts.map(String::as_str))
            .any(|text| text.contains(['\r', '\n']))
        {
            return Err(CliError::usage(
                "a line end in the request would make two of it",
                "leave it out",
            ));
        }
        Ok(ExplainRequest {
            config: Box::new(loaded.config),
            asked: Asked {
                method: method.to_owned(),
                secure,
                target,
                fields,
                from: SocketAddr::new(self.from, 0),
            },
            fetch_keys: self.fetch_keys,
            format: if self.json { Format::Json } else { Format::Text },
        })
    }
}
