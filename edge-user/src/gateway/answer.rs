//! Answers that the gateway gives itself: redirects and fixed responses. Made only for admitted requests.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    changes::{self, Changes},
    limit::Admitted,
    refusal::{Reason, Refusal},
    route::parameters::Parameters,
    template::{Facts, Template},
};
use crate::config::{PathPattern, Redirect, Respond, pattern::PatternError};

/// A whole answer. `Content-Length` and `Date` are the codec's to write.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// Names in lower case; values without control characters.
    pub fields: Vec<(Arc<str>, Vec<u8>)>,
    /// Left out by the codec where there is none: HEAD, 204, 304.
    pub body: Bytes,
}

impl Reply {
    /// A reply without a body.
    pub fn empty(status: u16, fields: Vec<(Arc<str>, Vec<u8>)>) -> Self {
        Self {
            status,
            fields,
            body: Bytes::new(),
        }
    }
}

/// A compiled answer.
#[derive(Debug)]
pub enum PlannedAnswer {
    /// Somewhere else.
    Redirect(PlannedRedirect),
    /// Always the same.
    Respond(Respond, Bytes),
}

/// A compiled redirect.
#[derive(Debug)]
pub struct PlannedRedirect {
    redirect: Redirect,
    path: Option<Template>,
    parameters: Parameters,
}

impl PlannedAnswer {
    /// A redirect of the route with this path.
    ///
    /// # Errors
    /// A regex that cannot be compiled.
    pub fn redirect(redirect: &Redirect, path: &PathPattern) -> Result<Self, PatternError> {
        let parameters = Parameters::compile(path)?;
        Ok(Self::Redirect(PlannedRedirect {
            path: redirect
                .path
                .as_ref()
                .map(|text| Template::compile(text, &parameters)),
            redirect: redirect.clone(),
            parameters,
        }))
    }

    /// A fixed response.
    pub fn respond(respond: &Respond) -> Self {
        Self::Respond(respond.clone(), Bytes::from(respond.body.clone()))
    }

    /// The answer to an admitted request.
    ///
    /// # Errors
    /// The place that a redirect leads to has no single reading.
    pub fn reply(
        &self,
        _: &Admitted,
        facts: &Facts<'_>,
        changes: Option<&Changes>,
    ) -> Result<Reply, Refusal> {
        let mut reply = match self {
            Self::Redirect(redirect) => Reply::empty(
                redirect.redirect.status,
                vec![("location".into(), redirect.location(facts)?)],
            ),
            Self::Respond(respond, body) => {
                let mut reply = Reply::empty(respond.status, Vec::new());
                if !body.is_empty() {
                    reply
                        .fields
                        .push(("content-type".into(), respond.content_type.clone().into_bytes()));
                    reply.body = body.clone();
                }
                reply
            }
        };
        if let Some(changes) = changes {
            changes.amend(&mut reply);
        }
        Ok(reply)
    }
}

impl PlannedRedirect {
    /// `Location`: a path of this host, or a whole URL whose host the configuration names or the gate has judged.
    fn location(&self, facts: &Facts<'_>) -> Result<Vec<u8>, Refusal> {
        let request = facts.request;
        let path = match &self.path {
            Some(template) => {
                let values = if template.wants_parameters() {
                    self.parameters.values(request.path())
                } else {
                    Vec::new()
                };
                let made = template.fill(&Facts {
                    parameters: &values,
                    ..*facts
                });
                // One slash at its beginning, not two: `//host` would lead to another host.
                changes::normal(&made)?
            }
            None => request.path().into(),
        };
        let Redirect {
            scheme, host, port, ..
        } = &self.redirect;
        let mut location = Vec::with_capacity(128);
        if scheme.is_some() || host.is_some() || port.is_some() {
            location.extend_from_slice(scheme.as_deref().unwrap_or(facts.scheme).as_bytes());
            location.extend_from_slice(b"://");
            match host {
                Some(host) => location.extend_from_slice(host.as_bytes()),
                None => location.extend_from_slice(host_of(
                    request
                        .authority()
                        .ok_or(Refusal::because(Reason::BadHost, "no Host to redirect to"))?,
                )),
            }
            if let Some(port) = port {
                location.extend_from_slice(format!(":{port}").as_bytes());
            }
        }
        if path.starts_with('/') {
            location.extend_from_slice(path.as_bytes());
        } else {
            location.push(b'/');
        }
        if let Some(query) = request.query().filter(|_| self.redirect.keep_query) {
            location.push(b'?');
            location.extend_from_slice(query);
        }
        Ok(location)
    }
}

/// An authority without its port.
fn host_of(authority: &[u8]) -> &[u8] {
    let end = if authority.first() == Some(&b'[') {
        memchr::memchr(b']', authority).map(|close| close + 1)
    } else {
        memchr::memchr(b':', authority)
    };
    end.and_then(|end| authority.get(..end)).unwrap_or(authority)
}
