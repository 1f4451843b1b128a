//! One request to several services: which, under which paths, and their answers in one JSON object.
//!
//! The request was authenticated once, by its route, before any of this. Each part is a GET of its own; a part that must
//! not fail and does refuses the whole, any other that fails is `null`.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{
    answer::Reply,
    balance::Choosers,
    changes,
    limit::Admitted,
    refusal::{Reason, Refusal},
    route::parameters::Parameters,
    template::{Facts, Template},
};
use crate::{
    config::{FanOut, PathPattern, pattern::PatternError},
    upstream::chooser::Chooser,
};

/// The compiled parts of a route.
#[derive(Debug)]
pub struct PlannedFanOut {
    parts: Box<[PlannedPart]>,
    parameters: Parameters,
}

#[derive(Debug)]
struct PlannedPart {
    key: Arc<str>,
    upstream: usize,
    path: Template,
    required: bool,
}

/// One request of several, made for an admitted one.
#[derive(Debug)]
pub struct Part {
    /// Where its answer stands in the object.
    pub key: Arc<str>,
    /// Whether the whole fails with it.
    pub required: bool,
    /// Normalised.
    pub path: Box<str>,
    /// Its upstream.
    pub chooser: Rc<Chooser>,
}

impl PlannedFanOut {
    /// The parts of a route with this path.
    ///
    /// # Errors
    /// A regex that cannot be compiled.
    pub fn compile(fan_out: &FanOut, path: &PathPattern) -> Result<Self, PatternError> {
        let parameters = Parameters::compile(path)?;
        let parts = fan_out.parts.iter().map(|part| PlannedPart {
            key: part.key.as_str().into(),
            upstream: part.upstream,
            path: Template::compile(&part.path, &parameters),
            required: part.required,
        });
        Ok(Self {
            parts: parts.collect(),
            parameters,
        })
    }

    /// The requests for an admitted one.
    ///
    /// # Errors
    /// A path that the request's parts make has no single reading, or an upstream is not there.
    pub fn parts(&self, _: &Admitted, facts: &Facts<'_>, choosers: &Choosers) -> Result<Vec<Part>, Refusal> {
        let values = self.parameters.values(facts.request.path());
        let facts = &Facts {
            parameters: &values,
            ..*facts
        };
        self.parts
            .iter()
            .map(|part| {
                Ok(Part {
                    key: Arc::clone(&part.key),
                    required: part.required,
                    path: changes::normal(&part.path.fill(facts))?,
                    chooser: choosers.of(part.upstream).ok_or(Reason::NoEndpoint)?,
                })
            })
            .collect()
    }
}

/// The answers in one object, in the order of the parts; each is JSON, or nothing.
pub fn merge(answers: &[(Arc<str>, Option<Bytes>)]) -> Reply {
    let size: usize = answers
        .iter()
        .map(|(key, answer)| key.len() + 8 + answer.as_ref().map_or(4, Bytes::len))
        .sum();
    let mut body = Vec::with_capacity(size + 2);
    body.push(b'{');
    for (index, (key, answer)) in answers.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        // Keys are names: nothing in them is to be escaped.
        body.push(b'"');
        body.extend_from_slice(key.as_bytes());
        body.extend_from_slice(b"\":");
        body.extend_from_slice(answer.as_deref().unwrap_or(b"null"));
    }
    body.extend_from_slice(b"}\n");
    let fields = vec![("content-type".into(), b"application/json".to_vec())];
    Reply {
        body: Bytes::from(body),
        ..Reply::empty(200, fields)
    }
}

/// An answer's body as a part of an object, without what surrounds it; nothing if it is not JSON.
pub fn as_part(body: &Bytes) -> Option<Bytes> {
    serde_json::from_slice::<IgnoredAny>(body).ok()?;
    let trimmed = body.trim_ascii();
    Some(body.slice_ref(trimmed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_json_values() {
        let part = |body: &'static str| as_part(&Bytes::from_static(body.as_bytes()));
        assert_eq!(part(" {\"a\": 1.50}\n").as_deref(), Some(&b"{\"a\": 1.50}"[..]));
        for bad in ["", "{", "{}{}", "1, \"x\": 2", "oops"] {
            assert_eq!(part(bad), None, "{bad}");
        }
        let merged = merge(&[("a".into(), part("[1]")), ("b".into(), None)]);
        assert_eq!(merged.body, "{\"a\":[1],\"b\":null}\n");
    }
}
