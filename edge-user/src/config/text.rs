//! Texts with places to fill in: `"/v2/{id}"`, `"{$client_address}"`.
//!
//! `{name}` is a parameter of the route's path, `{$name}` something the gateway knows about the request, `{{` and `}}` are
//! braces.

use super::value::{BadText, choice};

/// A text with places to fill in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(pub Vec<Part>);

/// A part of a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// This text.
    Literal(String),
    /// A parameter of the route's path, by its name.
    Parameter(String),
    /// What the gateway knows.
    Variable(Variable),
}

/// What the gateway knows about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// Address of the client, without port.
    ClientAddress,
    /// Id of the request.
    RequestId,
    /// Host and port that the client asked for.
    Host,
    /// Method.
    Method,
    /// Normalised path of the request.
    Path,
    /// Query without `?`, as sent.
    Query,
    /// `http` or `https`.
    Scheme,
    /// Name of the route.
    Route,
}

const VARIABLES: [(&str, Variable); 8] = [
    ("client_address", Variable::ClientAddress),
    ("request_id", Variable::RequestId),
    ("host", Variable::Host),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("scheme", Variable::Scheme),
    ("route", Variable::Route),
];

impl Text {
    /// A text without places to fill in.
    pub fn literal(text: &str) -> Self {
        Self(vec![Part::Literal(text.to_owned())])
    }

    /// The text, if it has no places to fill in.
    pub fn as_literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Names of the parameters in it.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Parameter(name) => Some(name.as_str()),
            Part::Literal(_) | Part::Variable(_) => None,
        })
    }
}

/// Reads a text.
pub(super) fn text(source: &str) -> Result<Text, BadText> {
    let help = "`{name}` is a parameter of the path, `{$name}` a variable, `{{` and `}}` are braces";
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = source;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = brace.strip_prefix("{{") {
            literal.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            literal.push('}');
            rest = after;
        } else {
            let inner = brace.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((name, after)) = inner else {
                return Err(BadText::new("a brace without its other half", help));
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(match name.strip_prefix('$') {
                Some(name) => Part::Variable(choice("variable", name, &VARIABLES)?),
                None if name.is_empty() => return Err(BadText::new("a place without a name", help)),
                None => Part::Parameter(name.to_owned()),
            });
            rest = after;
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(Text(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_braces() {
        let literal = |text: &str| Part::Literal(text.into());
        let read = |source: &str| text(source).map(|text| text.0).map_err(|bad| bad.message);
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("/a"), Ok(vec![literal("/a")]));
        assert_eq!(
            read("a{{b}}{id}/{$request_id}c"),
            Ok(vec![
                literal("a{b}"),
                Part::Parameter("id".into()),
                literal("/"),
                Part::Variable(Variable::RequestId),
                literal("c"),
            ])
        );
        for (bad, message) in [
            ("{", "a brace"),
            ("}", "a brace"),
            ("{a", "a brace"),
            ("a}", "a brace"),
            ("{}", "a place"),
            ("{$hots}", "unknown variable `hots`; did you mean `host`?"),
        ] {
            assert!(read(bad).is_err_and(|found| found.starts_with(message)), "{bad}");
        }
    }
}
