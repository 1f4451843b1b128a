//! What a route changes about a request and its answer: the path, and fields both ways.
//!
//! A request is authorised by the path it came with. The path it is forwarded under is made here, from the
//! configuration and from parts of the normalised path, and goes through the normaliser once more: what would come
//! out different, or not at all, is refused.

use std::sync::Arc;

use super::{
    answer::Reply,
    cors::PlannedCors,
    gate::Request,
    path,
    refusal::{Reason, Refusal},
    route::parameters::Parameters,
    template::{Facts, Template},
};
use crate::config::{FieldRules, PathPattern, Rewrite, Route, Text, pattern::PatternError};

/// The compiled changes of a route that has some.
#[derive(Debug)]
pub struct PlannedChanges {
    parameters: Parameters,
    wants_parameters: bool,
    rewrite: Option<PlannedRewrite>,
    request: PlannedRules,
    response: PlannedRules,
    cors: Option<Arc<PlannedCors>>,
}

#[derive(Debug)]
enum PlannedRewrite {
    /// This many bytes of the path are replaced by this text, which does not end with a slash.
    Prefix(usize, Box<str>),
    Path(Template),
}

#[derive(Debug, Default)]
struct PlannedRules {
    /// Fields that do not go on, those that are set anew among them; in lower case.
    drop: Arc<[Box<str>]>,
    put: Box<[(Arc<str>, Template)]>,
}

/// What is changed about the fields of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldChanges {
    drop: Arc<[Box<str>]>,
    drops_cors: bool,
    put: Vec<(Arc<str>, Vec<u8>)>,
}

/// What is changed about one request and its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The path that the upstream gets, if not the request's.
    pub path: Option<Box<str>>,
    /// Changes of the forwarded fields.
    pub request: FieldChanges,
    /// Changes of the answer's fields.
    pub response: FieldChanges,
}

impl FieldChanges {
    /// Whether a field that came with the message ends here.
    pub fn drops(&self, name: &[u8]) -> bool {
        let is_cors = || {
            name.get(..CORS_PREFIX.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(CORS_PREFIX))
        };
        self.drop
            .iter()
            .any(|drop| name.eq_ignore_ascii_case(drop.as_bytes()))
            || self.drops_cors && is_cors()
    }

    /// The fields to put.
    pub fn put(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.put
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_slice()))
    }
}

impl Changes {
    /// Changes the fields of an answer of this gateway's own.
    pub fn amend(&self, reply: &mut Reply) {
        reply
            .fields
            .retain(|(name, _)| !self.response.drops(name.as_bytes()));
        reply.fields.extend(self.response.put.iter().cloned());
    }
}

/// Fields about other origins: only one side may write them, else two answers contradict each other.
const CORS_PREFIX: &[u8] = b"access-control-";

impl PlannedChanges {
    /// Those of a route; none if it changes nothing.
    ///
    /// # Errors
    /// A regex that cannot be compiled.
    pub fn compile(route: &Route, cors: Option<Arc<PlannedCors>>) -> Result<Option<Self>, PatternError> {
        let changes_nothing = route.rewrite.is_none()
            && route.request_headers.is_empty()
            && route.response_headers.is_empty()
            && cors.is_none();
        if changes_nothing {
            return Ok(None);
        }
        let parameters = Parameters::compile(&route.matches.path)?;
        let rewrite = route.rewrite.as_ref().map(|rewrite| match rewrite {
            Rewrite::Prefix(prefix) => {
                let replaced = match &route.matches.path {
                    PathPattern::Prefix(prefix) => prefix.trim_end_matches('/').len(),
                    PathPattern::Exact(_)
                    | PathPattern::Template(_)
                    | PathPattern::Regex(_)
                    | PathPattern::Tunnel(_) => 0,
                };
                PlannedRewrite::Prefix(replaced, prefix.trim_end_matches('/').into())
            }
            Rewrite::Path(text) => PlannedRewrite::Path(Template::compile(text, &parameters)),
        });
        let (request, response) = (
            PlannedRules::compile(&route.request_headers, &parameters),
            PlannedRules::compile(&route.response_headers, &parameters),
        );
        let wants_parameters = matches!(&rewrite, Some(PlannedRewrite::Path(path)) if path.wants_parameters())
            || [&request, &response]
                .into_iter()
                .flat_map(|rules| rules.put.iter())
                .any(|(_, text)| text.wants_parameters());
        Ok(Some(Self {
            parameters,
            wants_parameters,
            rewrite,
            request,
            response,
            cors,
        }))
    }

    /// The changes of one request; the parameters in `facts` are found here.
    ///
    /// # Errors
    /// [`Reason::BadPath`]: the path that the request's parts make has no single reading.
    pub fn of(&self, facts: &Facts<'_>) -> Result<Changes, Refusal> {
        let path = facts.request.path();
        let values = if self.wants_parameters {
            self.parameters.values(path)
        } else {
            Vec::new()
        };
        let facts = &Facts {
            parameters: &values,
            ..*facts
        };
        let mut response = self.response.fill(facts);
        if let Some(cors) = &self.cors {
            response.drops_cors = true;
            cors.grant(facts.request, &mut response.put);
        }
        Ok(Changes {
            path: self
                .rewrite
                .as_ref()
                .map(|rewrite| rewrite.apply(path, facts))
                .transpose()?,
            request: self.request.fill(facts),
            response,
        })
    }
}

impl PlannedRewrite {
    fn apply(&self, path: &str, facts: &Facts<'_>) -> Result<Box<str>, Refusal> {
        let made = match self {
            // `*` of OPTIONS has no path to rewrite.
            Self::Prefix(..) | Self::Path(_) if !path.starts_with('/') => return Ok(path.into()),
            Self::Prefix(replaced, prefix) => {
                let rest = path.get(*replaced..).unwrap_or_default();
                let mut made = String::with_capacity(prefix.len() + rest.len() + 1);
                made.push_str(prefix);
                made.push_str(rest);
                if made.is_empty() {
                    made.push('/');
                }
                made.into_bytes()
            }
            Self::Path(template) => template.fill(facts),
        };
        normal(&made)
    }
}

/// A path that was made here, if the normaliser leaves it as it is.
pub(super) fn normal(made: &[u8]) -> Result<Box<str>, Refusal> {
    // A route whose literal parts have none gets an encoded slash only from a path that was let through with it.
    let rules = path::Rules {
        keep_encoded_slashes: true,
        ..path::Rules::default()
    };
    match path::normalise_by(made, rules) {
        Ok(normal) if normal.as_bytes() == made => Ok(normal.into()),
        Ok(_) => Err(Refusal::because(
            Reason::BadPath,
            "rewritten path is not in normal spelling",
        )),
        Err(fault) => Err(Refusal::because(Reason::BadPath, fault.text())),
    }
}

impl PlannedRules {
    fn compile(rules: &FieldRules, parameters: &Parameters) -> Self {
        let drop = rules.remove.iter().chain(rules.set.iter().map(|(name, _)| name));
        let put = rules.set.iter().chain(&rules.add);
        let compiled =
            |(name, text): &(String, Text)| (name.as_str().into(), Template::compile(text, parameters));
        Self {
            drop: drop.map(|name| name.as_str().into()).collect(),
            put: put.map(compiled).collect(),
        }
    }

    fn fill(&self, facts: &Facts<'_>) -> FieldChanges {
        let filled = |(name, text): &(Arc<str>, Template)| (Arc::clone(name), text.fill(facts));
        FieldChanges {
            drop: Arc::clone(&self.drop),
            drops_cors: false,
            put: self.put.iter().map(filled).collect(),
        }
    }
}

/// Whether a request carries what a browser asks before it sends the request proper (Fetch, 3.2.2).
pub(super) fn asks_leave<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    if request.method() != b"OPTIONS" || request.values("origin").next().is_none() {
        return None;
    }
    request.values("access-control-request-method").next()
}
