//! `[[route]]` as the rest of the program sees it: which requests, what they must prove, what becomes of them.

use std::time::Duration;

use super::{Action, AuthPolicy, Compress, Cors, FieldRules, Mirror, Rewrite};

/// `[[route]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Unique name, used in logs and metrics.
    pub name: String,
    /// Which requests.
    pub matches: RouteMatch,
    /// What becomes of them.
    pub action: Action,
    /// What authentication it wants; every route says so, there is no default.
    pub auth: AuthPolicy,
    /// Limit from the forwarded request to the response head.
    pub timeout: Duration,
    /// Limit from the request head to the end of the response.
    pub request_timeout: Option<Duration>,
    /// Limit for a response body of which nothing moves; the gateway's if absent.
    pub idle_timeout: Option<Duration>,
    /// Most bytes of a request body; the gateway's limit if absent.
    pub body_limit: Option<u64>,
    /// `%2F` is part of a segment here, as long as that makes no difference to the route.
    pub keep_encoded_slashes: bool,
    /// The path that the upstream gets, if not the request's.
    pub rewrite: Option<Rewrite>,
    /// What is changed about the forwarded fields.
    pub request_headers: FieldRules,
    /// What is changed about the fields of the answer.
    pub response_headers: FieldRules,
    /// Which pages of other origins may read the answers.
    pub cors: Option<Cors>,
    /// Which answers are compressed.
    pub compress: Option<Compress>,
    /// Who gets a copy of its requests.
    pub mirror: Option<Mirror>,
}

impl Route {
    /// A route that forwards what matches, without anything else.
    pub fn forwarding(
        name: &str,
        matches: RouteMatch,
        upstream: usize,
        auth: AuthPolicy,
        timeout: Duration,
    ) -> Self {
        Self {
            name: name.to_owned(),
            matches,
            action: Action::Upstream(upstream),
            auth,
            timeout,
            request_timeout: None,
            idle_timeout: None,
            body_limit: None,
            keep_encoded_slashes: false,
            rewrite: None,
            request_headers: FieldRules::default(),
            response_headers: FieldRules::default(),
            cors: None,
            compress: None,
            mirror: None,
        }
    }
}

/// What a request must be for a route; all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMatch {
    /// Any of these hosts; every host if empty.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Any of these methods, `HEAD` among them where `GET` is; every method if empty, but CONNECT, which needs
    /// [`PathPattern::Tunnel`].
    pub methods: Vec<String>,
    /// All of these fields.
    pub headers: Vec<ValueMatch>,
    /// All of these query parameters.
    pub query: Vec<ValueMatch>,
}

impl RouteMatch {
    /// Every request whose path is `prefix` or below it.
    pub fn prefix(prefix: &str) -> Self {
        Self {
            hosts: Vec::new(),
            path: PathPattern::Prefix(prefix.to_owned()),
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
        }
    }
}

/// A host of [`RouteMatch::hosts`], in lower case, without port and final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Hosts below this domain: `*.example.org` is `Below("example.org")`.
    Below(String),
}

/// A path of [`RouteMatch::path`], each literal part in the spelling of a normalised path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// This path and no other.
    Exact(String),
    /// Whole segments: `/api` matches `/api`, `/api/` and `/api/x`, never `/apix`.
    Prefix(String),
    /// The whole path, segment by segment.
    Template(Vec<Segment>),
    /// The whole path.
    Regex(String),
    /// No path: CONNECT to one of these, each host and port in the spelling of the route table.
    Tunnel(Vec<String>),
}

/// A segment of a [`PathPattern::Template`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text.
    Literal(String),
    /// `{name}`: one segment that is not empty.
    Parameter(String),
    /// `{*name}`, at the end only: the rest of the path, at least one segment.
    Rest(String),
    /// The empty segment after a final slash.
    End,
}

/// A condition on a field or a query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueMatch {
    /// Its name; of a field, in lower case.
    pub name: String,
    /// What one of its values must be.
    pub test: ValueTest,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueTest {
    /// There is one, or there is none.
    Present(bool),
    /// This.
    Exact(String),
    /// A match of the whole value.
    Regex(String),
}

/// `[gateway.paths]`: which reading is meant where a path has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathRules {
    /// Dot segments are resolved, not refused.
    pub resolve_dots: bool,
    /// Slashes in a row are one, not refused.
    pub merge_slashes: bool,
}
