//! Texts of the configuration with their places filled in from one request.
//!
//! Invariant: what is filled in has no control characters. A client chooses it, but each part has passed the gate: a
//! path in normal spelling, an authority, a method, a query.

use super::{gate::Request, route::parameters::Parameters};
use crate::config::{Part, Text, Variable};

/// A compiled text.
#[derive(Debug)]
pub struct Template(Box<[Piece]>);

#[derive(Debug)]
enum Piece {
    Literal(Box<[u8]>),
    Parameter(usize),
    Variable(Variable),
}

/// What is known about one request.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Values of the parameters of its route's path.
    pub parameters: &'a [&'a str],
    /// Address of the client, without port.
    pub client: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Its id.
    pub request_id: &'a str,
    /// Name of its route.
    pub route: &'a str,
}

impl Template {
    /// Compiles a text for the path that has these parameters. A parameter that there is not stands for nothing: the
    /// configuration has been checked for it.
    pub fn compile(text: &Text, parameters: &Parameters) -> Self {
        let pieces = text.0.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(Piece::Literal(text.as_bytes().into())),
            Part::Variable(variable) => Some(Piece::Variable(*variable)),
            Part::Parameter(name) => parameters.place(name).map(Piece::Parameter),
        });
        Self(pieces.collect())
    }

    /// Whether it asks for parameters.
    pub fn wants_parameters(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Parameter(_)))
    }

    /// The text for one request.
    pub fn fill(&self, facts: &Facts<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Parameter(place) => {
                    out.extend_from_slice(facts.parameters.get(*place).unwrap_or(&"").as_bytes());
                }
                Piece::Variable(variable) => out.extend_from_slice(known(*variable, facts)),
            }
        }
        out
    }
}

fn known<'a>(variable: Variable, facts: &Facts<'a>) -> &'a [u8] {
    match variable {
        Variable::ClientAddress => facts.client.as_bytes(),
        Variable::RequestId => facts.request_id.as_bytes(),
        Variable::Host => facts.request.authority().unwrap_or_default(),
        Variable::Method => facts.request.method(),
        Variable::Path => facts.request.path().as_bytes(),
        Variable::Query => facts.request.query().unwrap_or_default(),
        Variable::Scheme => facts.scheme.as_bytes(),
        Variable::Route => facts.route.as_bytes(),
    }
}
