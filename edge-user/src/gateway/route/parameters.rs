//! The parameters of a route's path, found again in the path of a request that took it: only routes that fill them in
//! somewhere pay for them.

use regex::Regex;

use crate::config::{
    PathPattern, Segment,
    pattern::{self, PatternError},
};

/// Where the parameters of a path lie.
#[derive(Debug, Default)]
pub struct Parameters {
    names: Vec<String>,
    form: Form,
}

#[derive(Debug, Default)]
enum Form {
    #[default]
    None,
    Template(Box<[Step]>),
    Regex(Regex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Over,
    Take,
    Rest,
}

impl Parameters {
    /// Those of `path`.
    ///
    /// # Errors
    /// A regex that cannot be compiled.
    pub fn compile(path: &PathPattern) -> Result<Self, PatternError> {
        match path {
            PathPattern::Exact(_) | PathPattern::Prefix(_) | PathPattern::Tunnel(_) => Ok(Self::default()),
            PathPattern::Template(segments) => {
                let mut names = Vec::new();
                let steps = segments.iter().map(|segment| match segment {
                    Segment::Literal(_) | Segment::End => Step::Over,
                    Segment::Parameter(name) => {
                        names.push(name.clone());
                        Step::Take
                    }
                    Segment::Rest(name) => {
                        names.push(name.clone());
                        Step::Rest
                    }
                });
                let steps = steps.collect();
                Ok(Self {
                    names,
                    form: Form::Template(steps),
                })
            }
            PathPattern::Regex(text) => {
                let regex = pattern::whole(text)?;
                Ok(Self {
                    names: regex.capture_names().flatten().map(str::to_owned).collect(),
                    form: Form::Regex(regex),
                })
            }
        }
    }

    /// The place of a parameter among the values.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|have| have == name)
    }

    /// The values of `path`, in order; of a group that took no part, nothing.
    pub fn values<'p>(&self, path: &'p str) -> Vec<&'p str> {
        match &self.form {
            Form::None => Vec::new(),
            Form::Template(steps) => {
                let mut values = Vec::with_capacity(self.names.len());
                let mut rest = path.strip_prefix('/').unwrap_or(path);
                for step in steps {
                    let (segment, tail) = rest.split_once('/').unwrap_or((rest, ""));
                    match step {
                        Step::Over => {}
                        Step::Take => values.push(segment),
                        Step::Rest => values.push(rest),
                    }
                    rest = tail;
                }
                values
            }
            Form::Regex(regex) => {
                let Some(found) = regex.captures(path) else {
                    return Vec::new();
                };
                let named = |name: &String| found.name(name).map_or("", |group| group.as_str());
                self.names.iter().map(named).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_the_order_of_their_names() {
        let segment = |text: &str| match text.strip_prefix(':') {
            Some("*") => Segment::Rest("rest".into()),
            Some(name) => Segment::Parameter(name.into()),
            None => Segment::Literal(text.into()),
        };
        let template = |text: &str| PathPattern::Template(text.split('/').map(segment).collect());
        for (pattern, path, names, values) in [
            (
                template("u/:a/p/:b"),
                "/u/7/p/%C3%A9",
                vec!["a", "b"],
                vec!["7", "%C3%A9"],
            ),
            (template("f/:*"), "/f/x/y/", vec!["rest"], vec!["x/y/"]),
            (
                PathPattern::Regex("/v(?P<v>[0-9]+)(?<x>/x)?/(?:y|z)".into()),
                "/v12/z",
                vec!["v", "x"],
                vec!["12", ""],
            ),
            (PathPattern::Prefix("/a".into()), "/a/b", vec![], vec![]),
        ] {
            let parameters = Parameters::compile(&pattern).expect("compiles");
            assert_eq!(parameters.values(path), values, "{path}");
            for (place, name) in names.iter().enumerate() {
                assert_eq!(parameters.place(name), Some(place));
            }
            assert_eq!(parameters.place("other"), None);
        }
    }
}
