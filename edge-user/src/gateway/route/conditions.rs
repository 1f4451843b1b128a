//! What a route asks of a request beside host and path: method, fields, query parameters.

use std::borrow::Cow;

use regex::Regex;

use crate::{
    config::{
        RouteMatch, ValueMatch, ValueTest,
        pattern::{self, PatternError},
    },
    gateway::gate::Request,
};

/// The compiled conditions of one route.
#[derive(Debug, Default)]
pub struct Conditions {
    methods: Box<[Box<[u8]>]>,
    headers: Box<[Condition]>,
    query: Box<[Condition]>,
}

#[derive(Debug)]
struct Condition {
    name: Box<[u8]>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present(bool),
    Exact(Box<[u8]>),
    Regex(Regex),
}

impl Conditions {
    /// Compiles the conditions of a route.
    ///
    /// # Errors
    /// A regex that cannot be compiled.
    pub fn compile(route: &RouteMatch) -> Result<Self, PatternError> {
        let mut methods: Vec<Box<[u8]>> = route
            .methods
            .iter()
            .map(|method| method.as_bytes().into())
            .collect();
        // RFC 9110, 9.3.2: HEAD is GET without the body.
        if methods.iter().any(|method| **method == *b"GET")
            && !methods.iter().any(|method| **method == *b"HEAD")
        {
            methods.push(b"HEAD"[..].into());
        }
        Ok(Self {
            methods: methods.into(),
            headers: compile(&route.headers)?,
            query: compile(&route.query)?,
        })
    }

    /// Whether the request is what the route asks for, as if its method were `method`.
    pub fn admit(&self, request: &Request<'_>, method: &[u8]) -> bool {
        self.admits_method(method) && self.admit_but_method(request)
    }

    /// Whether the route serves the method.
    pub fn admits_method(&self, method: &[u8]) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|admitted| **admitted == *method)
    }

    /// Whether all but the method is what the route asks for.
    pub fn admit_but_method(&self, request: &Request<'_>) -> bool {
        let header = |condition: &Condition| {
            let values = request
                .fields()
                .filter(|(_, name, _)| name.eq_ignore_ascii_case(&condition.name))
                .map(|(.., value)| value);
            condition.test.holds(values.map(Cow::Borrowed))
        };
        let parameter = |condition: &Condition| {
            let values = parameters(request.query().unwrap_or_default())
                .filter(|(name, _)| *decoded(name) == *condition.name)
                .map(|(_, value)| decoded(value));
            condition.test.holds(values)
        };
        self.headers.iter().all(header) && self.query.iter().all(parameter)
    }

    /// The methods that the route names; none if it takes every one.
    pub fn methods(&self) -> impl Iterator<Item = &[u8]> {
        self.methods.iter().map(AsRef::as_ref)
    }
}

fn compile(conditions: &[ValueMatch]) -> Result<Box<[Condition]>, PatternError> {
    conditions
        .iter()
        .map(|condition| {
            let test = match &condition.test {
                ValueTest::Present(present) => Test::Present(*present),
                ValueTest::Exact(value) => Test::Exact(value.as_bytes().into()),
                ValueTest::Regex(regex) => Test::Regex(pattern::whole(regex)?),
            };
            Ok(Condition {
                name: condition.name.as_bytes().into(),
                test,
            })
        })
        .collect()
}

impl Test {
    /// Whether one of the values is what it must be.
    fn holds<'v>(&self, mut values: impl Iterator<Item = Cow<'v, [u8]>>) -> bool {
        match self {
            Self::Present(present) => values.next().is_some() == *present,
            Self::Exact(want) => values.any(|value| *value == **want),
            Self::Regex(regex) => {
                values.any(|value| std::str::from_utf8(&value).is_ok_and(|value| regex.is_match(value)))
            }
        }
    }
}

/// The pairs of a query, as sent.
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            (&pair[..end], pair.get(end + 1..).unwrap_or_default())
        })
}

/// A part of a query without its encoding (`+` is a space); copied only if it has one.
fn decoded(part: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', part).is_none() {
        return Cow::Borrowed(part);
    }
    let digit = |at: usize| part.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut plain, mut at) = (Vec::with_capacity(part.len()), 0);
    while let Some(&byte) = part.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high << 4 | low) as u8);
                at += 2;
            }
            (b'+', ..) => plain.push(b' '),
            _ => plain.push(byte),
        }
        at += 1;
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_compared_without_their_encoding() {
        let found: Vec<_> = parameters(b"a=1&&b&c=%32%zz+x&a=2&d=")
            .map(|(name, value)| (decoded(name).into_owned(), decoded(value).into_owned()))
            .collect();
        let text = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(
            found,
            [
                text("a", "1"),
                text("b", ""),
                text("c", "2%zz x"),
                text("a", "2"),
                text("d", "")
            ]
        );
    }
}
