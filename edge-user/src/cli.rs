//! The command line: what each verb takes, checked, and where it goes.
//!
//! A verb is a file in `cli/`: its arguments and a function that makes a request of them. Requests are plain typed
//! values, so that the layers below never see the command line's own types. One `match` hands each request on.
//! Answers go to standard output, errors and the log to standard error. Nothing here panics on a closed pipe,
//! prints a debug form or a backtrace.

mod advise;
mod args;
mod ask;
mod attach;
mod ban;
mod capture;
mod check;
mod compare;
mod detach;
mod diff;
mod doctor;
mod exit;
mod explain;
mod import;
mod list;
mod output;
mod papers;
mod request;
mod revoke;
mod run;
mod service;
mod status;
mod steer;
#[cfg(test)]
mod tests;
mod token;
mod top;
mod version;

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

pub use self::{
    ban::MAX_REASON_CHARS,
    exit::{CliError, Exit},
    output::Output,
    request::{
        AdviseRequest, AskRequest, AttachRequest, BanRequest, CaptureRequest, ConfigSource, DetachRequest,
        DiffRequest, DoctorRequest, ExplainRequest, Format, ListChange, ListRequest, Overrides, RunRequest,
        Sampled, ServiceRequest, StatusRequest, SteerRequest, TopRequest,
    },
    token::QUICKSTART_KEY_FILE,
};
use crate::{
    kernel::pins::DEFAULT_BPFFS,
    lifecycle,
    telemetry::logging::{self, LogFormat},
};

/// Guards one machine's services: drops abusive packets in the kernel, routes and authenticates requests.
#[derive(Debug, Parser)]
#[command(
    name = "breakwater",
    version,
    about = "An edge proxy that drops abusive traffic in the kernel (XDP), checks tokens and routes by path",
    long_about = LONG_ABOUT,
    after_help = "`breakwater help VERB` tells more about one verb; `breakwater --help` shows examples.",
    after_long_help = AFTER_LONG_HELP
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,

    /// BPF file system, or a directory in one, where the shield's state is pinned.
    #[arg(
        long,
        value_name = "DIR",
        env = "BREAKWATER_BPFFS",
        default_value = DEFAULT_BPFFS,
        global = true,
        hide_env = true,
        hide_default_value = true,
        help_heading = "Kernel"
    )]
    bpffs: PathBuf,

    #[command(flatten)]
    logging: LogArgs,
}

const LONG_ABOUT: &str = "\
An edge proxy for Linux machines. Its shield, an XDP program in the kernel, limits what each address may send and
drops who is banned before a packet reaches a process. Its gateway, in this process, checks tokens (JWT in a cookie
or a bearer header) and routes requests by path. What the gateway learns about a client, the shield enforces.";

const AFTER_LONG_HELP: &str = "\
Examples:
  breakwater run                                     try it: a gateway on 127.0.0.1:8080 with two demo services
  curl -H \"Authorization: Bearer $(breakwater token)\" http://127.0.0.1:8080/graphql
  breakwater check edge.toml                         every mistake in a configuration, with file, line and key
  breakwater explain https://api.example/graphql --config edge.toml    which route, and why
  breakwater run --config edge.toml                  the real thing, in the foreground
  breakwater attach --config edge.toml               the shield alone; it stays when the command ends
  breakwater ban add 192.0.2.7 --for 10m --reason \"scraping\"
  breakwater revoke add --sub alice --config edge.toml
  breakwater list add deny 198.51.100.0/24           until it is taken off again
  breakwater import ingress.yaml > edge.toml         a configuration of what an ingress controller has
  breakwater doctor                                  what this machine can do, and what to change
  breakwater status                                  what is dropped, and why
  breakwater top                                     the same, live
  breakwater reload                                  what changed in the configuration, in force at once
  breakwater upgrade                                 a new binary takes over; no connection is lost
  breakwater compare --route api                     with the same hour a week ago: what is different, and is it chance?
  breakwater advise                                  what could go past the gateway, and the time that saves
  breakwater capture --dropped out.pcapng            drops for Wireshark, each with its reason
  breakwater detach                                  take the shield off again

Environment:
  BREAKWATER_LOG     sets --log-level
  BREAKWATER_BPFFS   sets --bpffs
  BREAKWATER_SOCKET  sets --socket of the verbs that ask the running daemon
  NO_COLOR           if set, the log has no colours

Exit codes:
  0  done
  1  it failed while running
  2  the command line is wrong
  3  the configuration is invalid
  4  a privilege is missing (the message names it)
  5  the kernel cannot do it (the message names the least version)";

/// Where the log goes and what is in it.
#[derive(Debug, Args)]
struct LogArgs {
    /// Log lines for people (`human`) or programs (`json`), on standard error.
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "human",
        global = true,
        hide_possible_values = true,
        help_heading = "Logging"
    )]
    log: LogFormat,

    /// Log level: error, warn, info, debug or trace; or directives as in `info,edge_user::gateway=debug`.
    #[arg(
        long,
        value_name = "FILTER",
        env = "BREAKWATER_LOG",
        default_value = logging::DEFAULT_FILTER,
        value_parser = args::log_filter,
        global = true,
        hide_env = true,
        help_heading = "Logging"
    )]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the shield and the gateway, in the foreground; without a configuration, a demo to try.
    Run(run::RunArgs),
    /// Put the shield on interfaces without starting the gateway; it stays until `detach`.
    Attach(attach::AttachArgs),
    /// Take the shield off and remove what it kept in the kernel.
    Detach(detach::DetachArgs),
    /// Show what is protected, what was dropped and why; works with and without a running gateway.
    Status(status::StatusArgs),
    /// Have the running daemon read its configuration again; a mistake changes nothing.
    Reload(ask::ReloadArgs),
    /// Have the running daemon stop in an orderly way: not ready, no listeners, no connections.
    Drain(ask::DrainArgs),
    /// Have the running daemon hand over to the binary that now has its name, without losing a connection.
    Upgrade(ask::UpgradeArgs),
    /// Compare what a route does with what it did: latency, errors, load, the gateway's own time.
    Compare(compare::CompareArgs),
    /// Tell what could be steered past the gateway, in the kernel, and what of its own time that would save.
    Advise(advise::AdviseArgs),
    /// Watch live what passes and what is dropped, who sends it, and who is banned.
    Top(top::TopArgs),
    /// Write sampled drops to a file for Wireshark, each with its reason.
    Capture(capture::CaptureArgs),
    /// Ban addresses in the kernel, pardon them, list them.
    Ban(ban::BanArgs),
    /// Revoke tokens and subjects, take it back, list what is revoked.
    Revoke(revoke::RevokeArgs),
    /// Show and change the allow and the deny list in the kernel.
    List(list::ListArgs),
    /// Look what this machine can do for the shield and the gateway, and what to change; changes nothing.
    Doctor(doctor::DoctorArgs),
    /// Show the services that are steered past the gateway, drain their backends.
    Service(service::ServiceArgs),
    /// Tell where a flow to a direct service goes, and why.
    Steer(steer::SteerArgs),
    /// Tell what would become of a request, and why, by the configuration; sends nothing.
    Explain(explain::ExplainArgs),
    /// Tell which recorded requests another configuration would treat otherwise.
    Diff(diff::DiffArgs),
    /// Make a configuration of Kubernetes manifests: Ingress, Gateway, HTTPRoute.
    Import(import::ImportArgs),
    /// Check a configuration and tell every mistake with file, line and key; changes nothing.
    Check(check::CheckArgs),
    /// Make a signed token to try a protected route with.
    Token(token::TokenArgs),
    /// Print a JSON Schema of the configuration, for editors.
    Schema,
    /// Print a script that completes verbs and options in a shell.
    Completions(papers::CompletionsArgs),
    /// Write manual pages.
    Man(papers::ManArgs),
    /// Print the version.
    Version,
}

/// Runs the process's command line; the whole of `main`.
pub fn main() -> ExitCode {
    run_from(std::env::args_os(), &mut Output::stdout(), &mut std::io::stderr()).into()
}

/// Runs `arguments`, the first being the program's name. Answers go to `out`, errors to `errors`.
pub fn run_from(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut Output<impl Write>,
    errors: &mut impl Write,
) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return args::explain(&error, out, errors),
    };
    let done = logging::init(cli.logging.log, &cli.logging.log_level)
        .or_else(|error| match error {
            logging::LoggingError::Twice => Ok(()),
            logging::LoggingError::Filter { .. } => Err(CliError::usage(error.to_string(), "")),
        })
        .and_then(|()| dispatch(cli.verb, &cli.bpffs, out, errors));
    match done {
        Ok(exit) => exit,
        Err(error) => exit::report(&error, errors),
    }
}

fn dispatch(
    verb: Verb,
    bpffs: &Path,
    out: &mut Output<impl Write>,
    errors: &mut impl Write,
) -> Result<Exit, CliError> {
    let answer = match verb {
        Verb::Run(args) => {
            let mut closed = Ok(());
            lifecycle::run(args.request()?, bpffs, &mut |text| closed = out.line(text))?;
            return closed.map(|()| Exit::Done);
        }
        Verb::Attach(args) => lifecycle::attach(&args.request()?, bpffs)?,
        Verb::Detach(args) => lifecycle::detach(&args.request(), bpffs)?,
        Verb::Status(args) => lifecycle::status(&args.request(), bpffs)?,
        Verb::Reload(args) => lifecycle::ask(&args.request(), bpffs)?,
        Verb::Drain(args) => lifecycle::ask(&args.request(), bpffs)?,
        Verb::Upgrade(args) => lifecycle::ask(&args.request(), bpffs)?,
        Verb::Compare(args) => lifecycle::ask(&args.request(), bpffs)?,
        Verb::Advise(args) => lifecycle::advise(&args.request()?, bpffs)?,
        Verb::Top(args) => match lifecycle::top(&args.request()?, bpffs)? {
            Some(picture) => picture,
            None => return Ok(Exit::Done),
        },
        Verb::Capture(args) => {
            let request = args.request();
            let summary = lifecycle::capture(&request, bpffs)?;
            if request.file.is_none() {
                // Standard output is the file.
                let _ = writeln!(errors, "{summary}");
                return Ok(Exit::Done);
            }
            summary
        }
        Verb::List(args) => lifecycle::list(&args.request()?, bpffs)?,
        Verb::Service(args) => lifecycle::service(&args.request(), bpffs)?,
        Verb::Steer(args) => lifecycle::steer(&args.request(), bpffs)?,
        Verb::Diff(args) => lifecycle::diff(&args.request()?)?,
        Verb::Explain(args) => lifecycle::explain(&args.request()?, bpffs)?,
        Verb::Ban(args) => lifecycle::ban(&args.request(), bpffs)?,
        Verb::Revoke(args) => return revoke::revoke(args, out),
        Verb::Doctor(args) => {
            let (text, exit) = lifecycle::doctor(&args.request()?, bpffs)?;
            return out.line(text).map(|()| Exit::of(exit));
        }
        Verb::Import(args) => return import::import(&args, out, errors),
        Verb::Check(args) => return check::check(&args, out),
        Verb::Token(args) => return token::token(&args, out),
        Verb::Schema => return papers::schema(out),
        Verb::Completions(args) => return papers::completions(&args, out),
        Verb::Man(args) => return papers::man(&args, out),
        Verb::Version => return version::version(out),
    };
    out.line(answer).map(|()| Exit::Done)
}
