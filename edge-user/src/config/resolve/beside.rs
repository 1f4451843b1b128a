//! `[[route.fan_out]]` and `[route.mirror]`: requests beside the one that a client waits for.

use super::{Checks, action, items, routes::Targets};
use crate::config::{
    FanOut, FanOutPart, Mirror, RouteMatch, bounds,
    raw::{RawRoute, route::RawMirror},
    section::{Field, Key, Section},
};

/// The parts of a merged answer.
pub(super) fn fan_out(
    raw: &RawRoute,
    matches: Option<&RouteMatch>,
    targets: &mut Targets<'_, '_>,
    checks: &mut Checks<'_>,
) -> Option<FanOut> {
    let field = raw.fan_out.field()?;
    checks.bounded(&raw.fan_out, bounds::MAX_FAN_OUT);
    checks.not_empty(
        field,
        "nothing is asked for",
        "add a `[[route.fan_out]]` for each part",
    );
    let listed = matches.map_or(&[][..], |matches| &matches.methods);
    if listed.is_empty()
        || listed
            .iter()
            .any(|method| !matches!(method.as_str(), "GET" | "HEAD"))
    {
        let at = raw.methods.field().map_or(&field.at, |field| &field.at);
        checks.error_help(
            at,
            "parts are asked for by GET, whatever the request is",
            "methods = [\"GET\"]",
        );
    }
    let parts = items(&raw.fan_out);
    let keys = parts.iter().filter_map(|item| item.value.key.field());
    checks.unique(
        "key",
        keys.map(|field| (&field.value, field.value.clone(), &field.at)),
    );
    let parts = parts.iter().filter_map(|item| {
        let part = &item.value;
        let key = checks.name(&part.key, part.at());
        let upstream = upstream(&part.upstream, part.at(), targets, checks);
        let path = part.path.required(part.at(), checks.findings);
        if let Some(path) = path {
            action::path_text(path, matches, checks);
        }
        Some(FanOutPart {
            key,
            upstream: upstream?,
            path: path?.value.clone(),
            required: part.required.clone().or(true),
        })
    });
    let parts = parts.collect();
    Some(FanOut { parts })
}

/// Who gets a copy.
pub(super) fn mirror(
    raw: &RawRoute,
    targets: &mut Targets<'_, '_>,
    checks: &mut Checks<'_>,
) -> Option<Mirror> {
    let mirror: &RawMirror = raw.mirror.value()?;
    let upstream = upstream(&mirror.upstream, mirror.at(), targets, checks);
    let percent = mirror.percent.field().and_then(|field| checks.count(field, 100));
    let most = mirror
        .body_bytes
        .value()
        .copied()
        .unwrap_or(bounds::DEFAULT_MIRROR_BYTES.into());
    if let Some(field) = mirror.body_bytes.field()
        && most > bounds::MAX_MIRROR_BYTES.into()
    {
        checks.error(
            &field.at,
            format!(
                "{} must be at most {}",
                field.at.subject(),
                bounds::MAX_MIRROR_BYTES
            ),
        );
    }
    Some(Mirror {
        upstream: upstream?,
        percent: percent.map_or(100, |percent| percent.get() as u8),
        body_bytes: most as u32,
    })
}

fn upstream(
    key: &Key<String>,
    section: &crate::config::problem::Place,
    targets: &mut Targets<'_, '_>,
    checks: &mut Checks<'_>,
) -> Option<usize> {
    let Field { value, at } = key.required(section, checks.findings)?;
    let index = targets.upstreams.refer(value);
    if index.is_none() {
        checks.unknown("upstream", value, at, targets.upstreams);
    }
    index
}
