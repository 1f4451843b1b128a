//! `breakwater import`: Kubernetes manifests as a configuration.

use std::{fs, io::Write, path::PathBuf};

use clap::Args;

use super::{CliError, Exit, Output};
use crate::import::{self, Surroundings};

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Turns Ingress (networking.k8s.io/v1), Gateway and HTTPRoute (gateway.networking.k8s.io) into a configuration. Services
in the same files give named ports their numbers. What can't be carried over is told on standard error, one line each,
with object and field; nothing is left out silently. No cluster is asked.

Every route comes out open (`auth = \"none\"`): manifests say nothing of tokens. Upstreams are the services' names in the
cluster. Certificates are expected in files: `kubectl get secret` writes them.

Examples:
  breakwater import ingress.yaml > edge.toml
  kubectl get ingress,service -A -o yaml | breakwater import - --output edge.toml
  breakwater import gateway.yaml routes.yaml --certificates /etc/edge/tls --json")]
pub(super) struct ImportArgs {
    /// Manifests, each with one or more documents; `-` for standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Where the configuration goes, if not to standard output. A file that is there is left alone.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The cluster's domain.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,

    /// Where certificates will lie, as NAMESPACE-SECRET.crt and .key.
    #[arg(long, value_name = "DIR", default_value = "/etc/breakwater/tls")]
    certificates: String,

    /// Print JSON: the configuration, and what it does not carry over.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

pub(super) fn import(
    args: &ImportArgs,
    out: &mut Output<impl Write>,
    errors: &mut impl Write,
) -> Result<Exit, CliError> {
    let mut objects = Vec::new();
    for file in &args.files {
        let name = file.display();
        let bad = |why: String| CliError::usage(format!("{name}: {why}"), "");
        let text = if file.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            fs::read_to_string(file)
        };
        let text = text.map_err(|error| bad(error.to_string()))?;
        objects.extend(import::read(&text).map_err(|error| bad(error.to_string()))?);
    }
    let surroundings = Surroundings {
        domain: args.cluster_domain.clone(),
        certificates: args.certificates.trim_end_matches('/').to_owned(),
    };
    let made = import::translate(&objects, &surroundings);
    if args.json {
        out.line(serde_json::json!({ "config": made.config, "routes": made.routes, "notes": made.notes }))?;
        return Ok(Exit::Done);
    }
    for note in &made.notes {
        // Who closed standard error does not want to know.
        let _ = writeln!(errors, "note: {note}");
    }
    if made.routes == 0 {
        return Err(CliError::usage(
            "these manifests have no route that could be carried over",
            "",
        ));
    }
    let Some(file) = &args.output else {
        out.line(made.config.trim_end())?;
        return Ok(Exit::Done);
    };
    let mut options = fs::OpenOptions::new();
    let written = options.write(true).create_new(true).open(file);
    written
        .and_then(|mut file| file.write_all(made.config.as_bytes()))
        .map_err(|error| {
            CliError::usage(
                format!("--output {}: {error}", file.display()),
                "name a file that is not there yet",
            )
        })?;
    let (routes, notes) = (made.routes, made.notes.len());
    out.line(format_args!(
        "{}: {routes} routes, {notes} notes; `breakwater check {0}` tells what is missing",
        file.display()
    ))?;
    Ok(Exit::Done)
}
