//! What authentication finds wrong with a configuration, told by file, line and key like every other mistake in it.

use std::time::SystemTime;

use super::{Authority, LoadError, ProviderError, RuleError};
use crate::config::{ConfigError, Loaded, MAX_PROBLEMS, Places, Problem, Report, Subject};

/// The keys of `[[provider]]` that say where its verification key is.
const KEY_SOURCES: [&str; 7] = [
    "secret_file",
    "secret_env",
    "pem_file",
    "jwks_file",
    "jwks_url",
    "oidc_issuer",
    "key",
];

impl ProviderError {
    /// The problem where the configuration has it.
    pub fn locate(&self, places: &Places) -> Problem {
        let subject = Subject::Provider(self.provider);
        let message = self.problem.to_string();
        match self.key {
            "key" => places.problem(subject, &KEY_SOURCES, message),
            key => places.problem(subject, &[key], message),
        }
    }
}

impl LoadError {
    /// The problem where the configuration has it.
    pub fn locate(&self, places: &Places) -> Problem {
        match self {
            Self::Provider(error) => error.locate(places),
            Self::Revocations(_) => places.problem(Subject::Gateway, &["revocation_file"], self.to_string()),
        }
    }
}

impl RuleError {
    /// The problem where the configuration has it; `route` is the index of the route that asks this.
    pub fn locate(&self, route: usize, places: &Places) -> Problem {
        let keys: &[&str] = match self {
            Self::NoProvider
            | Self::TooManyProviders(_)
            | Self::UnknownProvider(_)
            | Self::SameIssuer(..) => &["providers"],
            Self::Scope(_) => &["scopes"],
            Self::EmptyPath | Self::EmptySet => &["claims"],
            Self::Login(_) => &["login"],
        };
        places.problem(Subject::Route(route), keys, self.to_string())
    }
}

/// The providers of a configuration, its keys parsed and its routes checked against them.
///
/// # Errors
/// [`ConfigError::Invalid`] with every mistake.
pub fn load(loaded: &Loaded) -> Result<Authority, ConfigError> {
    let authority = prepare(loaded, None)?;
    authority.put_in_force();
    Ok(authority)
}

/// As [`load`], taking over what `previous` holds; revocations stay as they are until [`Authority::put_in_force`].
///
/// # Errors
/// [`ConfigError::Invalid`] with every mistake.
pub fn prepare(loaded: &Loaded, previous: Option<&Authority>) -> Result<Authority, ConfigError> {
    let Loaded { config, places, .. } = loaded;
    let revocations = config.revocation_file.as_deref();
    let authority = Authority::prepare(&config.providers, revocations, previous, SystemTime::now()).map_err(
        |errors| {
            let problems = errors.iter().map(|error| error.locate(places)).collect();
            invalid(loaded, problems)
        },
    )?;
    let problems: Vec<_> = config
        .routes
        .iter()
        .enumerate()
        .filter_map(|(index, route)| {
            let error = authority.check_policy(&route.auth).err()?;
            Some(error.locate(index, places))
        })
        .collect();
    if problems.is_empty() {
        Ok(authority)
    } else {
        Err(invalid(loaded, problems))
    }
}

fn invalid(loaded: &Loaded, mut errors: Vec<Problem>) -> ConfigError {
    let omitted = errors.len().saturating_sub(MAX_PROBLEMS);
    errors.truncate(MAX_PROBLEMS);
    ConfigError::Invalid(Report {
        errors,
        warnings: loaded.warnings.clone(),
        omitted,
    })
}
