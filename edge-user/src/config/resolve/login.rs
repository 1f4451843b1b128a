//! `route.login`: where a browser goes to log in, and that it can get there.

use std::collections::HashMap;

use super::{Checks, url};
use crate::config::{
    Login,
    raw::{AuthMode, RawLogin, RawRoute},
    section::{Field, Section},
    trusted::Fault,
    value::Item,
};

pub(super) fn login(raw: &RawLogin, checks: &mut Checks<'_>) -> Option<Login> {
    let address = raw.url.required(raw.at(), checks.findings);
    check(address, url::login, checks);
    let parameter = raw.return_parameter.field();
    check(parameter, is_parameter, checks);
    let origin = raw.return_origin.field();
    check(origin, url::origin, checks);
    if let Some(origin) = origin
        && raw.return_parameter.is_absent()
    {
        checks.error_help(
            &origin.at,
            "`return_origin` has no meaning without `return_parameter`",
            "name the query parameter that takes the way back, as in return_parameter = \"next\"",
        );
    }
    Some(Login {
        url: address?.value.clone(),
        return_parameter: parameter.map(|field| field.value.clone()),
        return_origin: origin.map(|field| field.value.clone()),
    })
}

fn check(field: Option<&Field<String>>, fault: fn(&str) -> Result<(), Fault>, checks: &mut Checks<'_>) {
    if let Some(Field { value, at }) = field
        && let Err(Fault { message, help }) = fault(value)
    {
        checks.error_help(at, message, help);
    }
}

fn is_parameter(name: &str) -> Result<(), Fault> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(Fault::new(
            "this is not the name of a parameter",
            "letters, digits, `-` and `_`",
        ));
    }
    Ok(())
}

/// A login page of this site must not want a token itself.
pub(super) fn reachable(routes: &[Item<RawRoute>], checks: &mut Checks<'_>) {
    // Hosts, methods and conditions are left aside: of several routes of one path, any may serve the page.
    let mut by_path: HashMap<&str, Vec<&RawRoute>> = HashMap::new();
    let mut has_patterns = false;
    for raw in routes.iter().map(|item| &item.value) {
        has_patterns |= !raw.path_template.is_absent() || !raw.path_regex.is_absent();
        for path in [&raw.path, &raw.path_exact]
            .into_iter()
            .filter_map(|path| path.value())
        {
            by_path.entry(path).or_default().push(raw);
        }
    }
    for raw in routes.iter().filter_map(|item| item.value.login.value()) {
        let Some(Field { value: address, at }) = raw.url.field() else {
            continue;
        };
        if url::login(address).is_err() || !address.starts_with('/') {
            continue;
        }
        let path = address.split(['?', '#']).next().unwrap_or_default();
        let serving = serving(path, &by_path);
        if serving.is_empty() {
            if !has_patterns {
                checks.warn(
                    at,
                    format!("no route serves `{path}`: browsers will be answered with 404"),
                    "add a route for the login page, or name its host as in \"https://login.example.org/\"",
                );
            }
            continue;
        }
        let wants = |route: &&&RawRoute| matches!(route.auth.value(), Some(AuthMode::Required));
        if !has_patterns
            && serving.iter().filter(wants).count() == serving.len()
            && let Some(name) = serving.first().and_then(|route| route.name.value())
        {
            checks.error_help(
                at,
                format!("the login page is behind route `{name}`, which wants a token itself"),
                "give it a route of its own with auth = \"none\"",
            );
        }
    }
}

/// The routes of the path itself or of its longest prefix of whole segments.
fn serving<'a, 'r>(path: &str, routes: &'a HashMap<&str, Vec<&'r RawRoute>>) -> &'a [&'r RawRoute] {
    let is_exact = |route: &&RawRoute| route.path_exact.value().is_some();
    if let Some(exact) = routes.get(path)
        && exact.iter().any(is_exact)
    {
        return exact;
    }
    let mut prefix = path.trim_end_matches('/');
    loop {
        match prefix.rfind('/') {
            Some(slash) => match routes.get(prefix) {
                Some(found) if !found.iter().all(is_exact) => return found,
                Some(_) | None => prefix = prefix.get(..slash).unwrap_or_default(),
            },
            None => return routes.get("/").map_or(&[], Vec::as_slice),
        }
    }
}
