//! `breakwater diff`: which recorded requests another configuration would treat otherwise.
//!
//! Each shape of request in the access log (method, scheme, host, path) is put on trial by both configurations, by what
//! the gateway is made of. A log has neither tokens nor headers nor queries: who was let in is taken for let in again,
//! who was refused for a token is refused again, and what a route asks of a token is compared as it is written.

mod shapes;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{LifecycleError, verbs};
use crate::{
    auth::demand,
    cli::{DiffRequest, Format},
    config::{AuthPolicy, AuthRule, Config},
    gateway::{
        Authenticate, Denial, Permit, Plan, Reason, Request, SetupError,
        explain::{self, Asked, Explanation, Outcome},
    },
};

pub use shapes::{Shape, Shapes};

/// Examples of a difference.
const EXAMPLES: usize = 3;
/// Differences that people are told.
const TOLD: usize = 50;
/// There is no key to wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Treatment {
    route: Option<String>,
    auth: String,
    limits: Vec<String>,
    outcome: String,
}

/// Requests that have a difference in common.
#[derive(Debug, Default, Serialize)]
struct Group {
    requests: u64,
    shapes: usize,
    examples: Vec<Shape>,
}

/// Requests that are treated otherwise, in the same way.
#[derive(Debug, Serialize)]
struct Difference {
    #[serde(flatten)]
    group: Group,
    before: Treatment,
    after: Treatment,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Requests that were compared, their shapes, and the seconds that they came in.
    requests: u64,
    shapes: usize,
    seconds: u64,
    /// Lines that are no record of a request that can be asked again.
    lines_left_out: u64,
    different: u64,
    differences: Vec<Difference>,
}

/// `breakwater diff`.
///
/// # Errors
/// A configuration cannot be served.
pub fn diff(request: &DiffRequest) -> Result<String, LifecycleError> {
    let sides = [Trial::new(&request.old)?, Trial::new(&request.new)?];
    let recorded = &request.recorded;
    let mut found: BTreeMap<(Treatment, Treatment), Group> = BTreeMap::new();
    let runtime = verbs::runtime()?;
    for shape in recorded.list() {
        let [before, after] = sides.each_ref().map(|side| runtime.block_on(side.treat(shape)));
        if before == after {
            continue;
        }
        let group = found.entry((before, after)).or_default();
        group.requests += shape.requests;
        group.shapes += 1;
        // They come the most frequent first.
        if group.examples.len() < EXAMPLES {
            group.examples.push(shape.clone());
        }
    }
    let mut differences: Vec<_> = found
        .into_iter()
        .map(|((before, after), group)| Difference { group, before, after })
        .collect();
    differences.sort_by_key(|difference| std::cmp::Reverse(difference.group.requests));
    let report = Report {
        requests: recorded.requests(),
        shapes: recorded.list().len(),
        seconds: recorded.seconds(),
        lines_left_out: recorded.left_out(),
        different: differences
            .iter()
            .map(|difference| difference.group.requests)
            .sum(),
        differences,
    };
    match request.format {
        Format::Json => verbs::json(&report),
        Format::Text => Ok(report.text()),
    }
}

/// A configuration that requests are tried by.
struct Trial<'c> {
    config: &'c Config,
    plan: Plan,
    refuses: Arc<Assumed>,
}

/// Lets in whoever was let in.
#[derive(Default)]
struct Assumed {
    refuses: AtomicBool,
}

impl Authenticate for Assumed {
    fn authenticate(&self, _: &AuthPolicy, _: &Request<'_>, _: SystemTime) -> Result<Permit, Denial> {
        if self.refuses.load(Relaxed) {
            Err(Denial::new(Reason::TokenRefused, "", None))
        } else {
            Ok(Permit::default())
        }
    }

    fn identity_fields(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<'c> Trial<'c> {
    fn new(config: &'c Config) -> Result<Self, LifecycleError> {
        let refuses = Arc::<Assumed>::default();
        let gate: Arc<dyn Authenticate> = Arc::clone(&refuses) as _;
        let plan = Plan::compile(config, gate, 1, None).map_err(SetupError::Plan)?;
        Ok(Self {
            config,
            plan,
            refuses,
        })
    }

    async fn treat(&self, shape: &Shape) -> Treatment {
        let asked = Asked {
            method: shape.method.clone(),
            secure: shape.scheme == "https",
            target: shape.path.clone(),
            fields: vec![("host".to_owned(), shape.host.clone())],
            from: shape.client,
        };
        self.refuses.refuses.store(shape.token_refused, Relaxed);
        let explained: Explanation<()> =
            explain::explain(self.config, &self.plan, &asked, PATIENCE, |_, _| None).await;
        let route = explained.route.as_ref();
        let route = route.and_then(|name| self.config.routes.iter().find(|route| route.name == *name));
        Treatment {
            auth: route.map_or_else(String::new, |route| self.auth(&route.auth)),
            limits: explained.limits.iter().map(ToString::to_string).collect(),
            outcome: outcome(&explained.outcome),
            route: explained.route,
        }
    }

    fn auth(&self, policy: &AuthPolicy) -> String {
        let rule = |asks: &str, rule: &AuthRule| {
            let names = rule.providers.iter().filter_map(|index| {
                let provider = self.config.providers.get(*index)?;
                Some(provider.name.as_str())
            });
            let mut text = format!("{asks}, of {}", names.collect::<Vec<_>>().join(" or "));
            // Writing to a string cannot fail.
            if !rule.scopes.is_empty() {
                let _ = write!(text, "; scopes {}", rule.scopes.join(", "));
            }
            for claim in &rule.claims {
                let _ = write!(text, "; {} {}", claim.path.join("."), demand(&claim.test));
            }
            text
        };
        match policy {
            AuthPolicy::None => "none".to_owned(),
            AuthPolicy::Optional(asked) => rule("optional", asked),
            AuthPolicy::Required(asked) => rule("required", asked),
        }
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused { status, reason, .. } => format!("refused, {status} {reason}"),
        Outcome::Forwarded { candidates, path, .. } => {
            format!("forwarded to {} as {path}", candidates.join(" or "))
        }
        Outcome::Answered { status, fields } => {
            let location = fields.iter().find(|(name, _)| name == "location");
            let to = location.map_or_else(String::new, |(_, to)| format!(" to {to}"));
            format!("answered by the gateway, {status}{to}")
        }
        Outcome::FannedOut { parts } => {
            let parts = parts
                .iter()
                .map(|(key, upstream, path)| format!("{key}: {path} of {upstream}"));
            format!("merged of {}", parts.collect::<Vec<_>>().join(", "))
        }
        // No key is asked for.
        Outcome::Undecided => "not decided".to_owned(),
    }
}

impl Report {
    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out);
        out.truncate(out.trim_end().len());
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let time = humantime::format_duration(Duration::from_secs(self.seconds));
        writeln!(
            out,
            "{} requests of {} shapes in {time}",
            self.requests, self.shapes
        )?;
        if self.lines_left_out > 0 {
            writeln!(out, "{} lines cannot be asked again", self.lines_left_out)?;
        }
        if self.differences.is_empty() {
            return writeln!(out, "none would be treated otherwise");
        }
        let share = self.different as f64 / self.requests as f64 * 100.0;
        writeln!(
            out,
            "{} ({share:.1} %) would be treated otherwise",
            self.different
        )?;
        for difference in self.differences.iter().take(TOLD) {
            writeln!(out)?;
            writeln!(
                out,
                "{} requests of {} shapes",
                difference.group.requests, difference.group.shapes
            )?;
            for shape in &difference.group.examples {
                let Shape {
                    method,
                    scheme,
                    host,
                    path,
                    ..
                } = shape;
                writeln!(out, "           {method} {scheme}://{host}{path}")?;
            }
            difference.write(out)?;
        }
        if let Some(more @ 1..) = self.differences.len().checked_sub(TOLD) {
            writeln!(out, "\nand {more} more differences; --json has all")?;
        }
        Ok(())
    }
}

impl Difference {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (before, after) = (&self.before, &self.after);
        let none = || "none".to_owned();
        let limits = |treatment: &Treatment| {
            if treatment.limits.is_empty() {
                none()
            } else {
                treatment.limits.join("; ")
            }
        };
        for (what, was, is) in [
            (
                "route",
                before.route.clone().unwrap_or_else(none),
                after.route.clone().unwrap_or_else(none),
            ),
            ("token", before.auth.clone(), after.auth.clone()),
            ("limits", limits(before), limits(after)),
            ("outcome", before.outcome.clone(), after.outcome.clone()),
        ] {
            if was != is {
                let (was, is) = (shown(&was), shown(&is));
                writeln!(out, "{what:<10} {was}\n        -> {is}")?;
            }
        }
        Ok(())
    }
}

fn shown(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
