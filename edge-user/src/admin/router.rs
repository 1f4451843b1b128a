//! The one table of what can be asked, and how a request finds its row.

use super::problem::Problem;
use http::{Method, StatusCode};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Whether the process lives.
    Livez,
    /// Whether to send it anything.
    Readyz,
    /// Metrics.
    Metrics,
    /// The description of all this.
    OpenApi,
    /// Everything at a glance.
    Status,
    /// The configuration in force.
    Config,
    /// Routes with their counts.
    Routes,
    /// Upstreams with the health of their endpoints.
    Upstreams,
    /// Who is banned.
    Bans,
    /// Ban somebody.
    AddBan,
    /// Pardon somebody.
    RemoveBan,
    /// Limits of the gateway and of the shield.
    Limits,
    /// What the shield judges, with its counts.
    Services,
    /// Who is dropped most.
    Sources,
    /// Providers and their keys.
    Jwks,
    /// The lists of the shield.
    Lists,
    /// The networks of one.
    List,
    /// Read everything again.
    Reload,
    /// Stop in an orderly way.
    Drain,
    /// Hand over to a new process.
    Upgrade,
    /// What happened.
    Events,
    /// Routes that there is a history of.
    HistoryRoutes,
    /// What a route did.
    HistorySeries,
    /// Changes that are remembered.
    HistoryChanges,
    /// Two times of a route.
    HistoryCompare,
    /// What could be steered past the gateway.
    HistoryAdvice,
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Also at the address for health.
    Health,
    /// Also at the address for metrics.
    Metrics,
    /// Operators.
    Operator,
}

/// A row.
#[derive(Debug)]
pub struct Endpoint {
    /// The method; HEAD goes where GET goes.
    pub method: Method,
    /// The path; a segment in braces takes anything.
    pub path: &'static str,
    /// What it asks for.
    pub operation: Operation,
    /// Who may.
    pub scope: Scope,
}

const fn row(method: Method, path: &'static str, operation: Operation, scope: Scope) -> Endpoint {
    Endpoint {
        method,
        path,
        operation,
        scope,
    }
}

/// Every row.
pub const ENDPOINTS: &[Endpoint] = &[
    row(Method::GET, "/livez", Operation::Livez, Scope::Health),
    row(Method::GET, "/readyz", Operation::Readyz, Scope::Health),
    row(Method::GET, "/metrics", Operation::Metrics, Scope::Metrics),
    row(
        Method::GET,
        "/v1/openapi.json",
        Operation::OpenApi,
        Scope::Operator,
    ),
    row(Method::GET, "/v1/status", Operation::Status, Scope::Operator),
    row(Method::GET, "/v1/config", Operation::Config, Scope::Operator),
    row(Method::GET, "/v1/routes", Operation::Routes, Scope::Operator),
    row(
        Method::GET,
        "/v1/upstreams",
        Operation::Upstreams,
        Scope::Operator,
    ),
    row(Method::GET, "/v1/bans", Operation::Bans, Scope::Operator),
    row(Method::POST, "/v1/bans", Operation::AddBan, Scope::Operator),
    row(
        Method::DELETE,
        "/v1/bans/{network}",
        Operation::RemoveBan,
        Scope::Operator,
    ),
    row(Method::GET, "/v1/limits", Operation::Limits, Scope::Operator),
    row(Method::GET, "/v1/services", Operation::Services, Scope::Operator),
    row(Method::GET, "/v1/sources", Operation::Sources, Scope::Operator),
    row(Method::GET, "/v1/jwks", Operation::Jwks, Scope::Operator),
    row(Method::GET, "/v1/lists", Operation::Lists, Scope::Operator),
    row(Method::GET, "/v1/lists/{list}", Operation::List, Scope::Operator),
    row(Method::POST, "/v1/reload", Operation::Reload, Scope::Operator),
    row(Method::POST, "/v1/drain", Operation::Drain, Scope::Operator),
    row(Method::POST, "/v1/upgrade", Operation::Upgrade, Scope::Operator),
    row(Method::GET, "/v1/events", Operation::Events, Scope::Operator),
    row(
        Method::GET,
        "/v1/history/routes",
        Operation::HistoryRoutes,
        Scope::Operator,
    ),
    row(
        Method::GET,
        "/v1/history/series",
        Operation::HistorySeries,
        Scope::Operator,
    ),
    row(
        Method::GET,
        "/v1/history/changes",
        Operation::HistoryChanges,
        Scope::Operator,
    ),
    row(
        Method::GET,
        "/v1/history/compare",
        Operation::HistoryCompare,
        Scope::Operator,
    ),
    row(
        Method::GET,
        "/v1/history/advice",
        Operation::HistoryAdvice,
        Scope::Operator,
    ),
];

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serves {
    /// Health.
    pub health: bool,
    /// Metrics.
    pub metrics: bool,
    /// Everything.
    pub all: bool,
}

impl Serves {
    fn serves(self, scope: Scope) -> bool {
        self.all
            || match scope {
                Scope::Health => self.health,
                Scope::Metrics => self.metrics,
                Scope::Operator => false,
            }
    }
}

/// Finds the row of a request, and the value of the segment in braces.
///
/// # Errors
/// 404, or 405 with the methods that there are.
pub fn find(serves: Serves, method: &Method, path: &str) -> Result<(Operation, Option<String>), Problem> {
    let mut allowed = Vec::new();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| serves.serves(endpoint.scope)) {
        let Some(value) = matches(endpoint.path, path) else {
            continue;
        };
        let is_head = *method == Method::HEAD && endpoint.method == Method::GET;
        if endpoint.method == *method || is_head {
            return Ok((endpoint.operation, value));
        }
        allowed.push(endpoint.method.as_str());
        if endpoint.method == Method::GET {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        return Err(Problem::missing(
            "there is nothing at this path; /v1/openapi.json lists what there is",
        ));
    }
    let mut problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this path has {}", allowed.join(", ")),
    );
    problem.allow = allowed;
    Err(problem)
}

/// The value of the segment in braces, decoded, if the path fits; `Some(None)` if there is no such segment.
#[expect(clippy::option_option, reason = "whether it fits, and whether it has a value")]
fn matches(pattern: &str, path: &str) -> Option<Option<String>> {
    let Some((before, _)) = pattern.split_once('{') else {
        return (pattern == path).then_some(None);
    };
    let segment = path.strip_prefix(before)?;
    if segment.is_empty() || segment.contains('/') {
        return None;
    }
    decode(segment).map(Some)
}

/// Percent-decoding; `None` if it is malformed or not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        decoded.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Serves = Serves {
        health: true,
        metrics: true,
        all: true,
    };

    #[test]
    fn rows_are_found_and_what_is_not_there_is_told() {
        let find = |method, path| find(ALL, &method, path);
        assert_eq!(find(Method::GET, "/v1/bans").expect("a row").0, Operation::Bans);
        let (operation, network) = find(Method::DELETE, "/v1/bans/192.0.2.0%2F24").expect("a row");
        assert_eq!(operation, Operation::RemoveBan);
        assert_eq!(network.as_deref(), Some("192.0.2.0/24"));
        let wrong = find(Method::PUT, "/v1/bans").expect_err("no such method");
        assert_eq!(wrong.allow, ["GET", "HEAD", "POST"]);
        for path in [
            "/",
            "/v1",
            "/v1/bans/",
            "/v1/bans/a/b",
            "/v1/bans/%zz",
            "/v1/bans/%ff",
            "/v1/Bans",
        ] {
            let status = find(Method::GET, path).expect_err(path).status;
            assert!(
                status == 404 || (status == 405 && path.contains("bans/")),
                "{path}: {status}"
            );
        }
    }

    #[test]
    fn an_open_listener_serves_what_it_is_for_and_nothing_else() {
        let health = Serves {
            health: true,
            metrics: false,
            all: false,
        };
        assert!(find(health, &Method::GET, "/readyz").is_ok());
        for path in ["/metrics", "/v1/status", "/v1/drain"] {
            assert_eq!(find(health, &Method::GET, path).expect_err(path).status, 404);
            assert_eq!(find(health, &Method::POST, path).expect_err(path).status, 404);
        }
    }
}
