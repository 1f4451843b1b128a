//! `route.upstreams`: which upstreams, and how much each gets.

use super::{Checks, routes::Targets, upstream::hash_key};
use crate::config::{
    Split, bounds,
    raw::RawRoute,
    section::{Field, Section},
};

pub(super) fn split(raw: &RawRoute, targets: &mut Targets<'_, '_>, checks: &mut Checks<'_>) -> Option<Split> {
    let field @ Field { value: list, at } = raw.upstreams.field()?;
    checks.bounded(&raw.upstreams, bounds::MAX_SPLIT);
    checks.not_empty(
        field,
        "a route needs at least one upstream",
        "as in [{ name = \"app\", weight = 95 }, { name = \"canary\", weight = 5 }]",
    );
    let names = list.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "upstream",
        names.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    let mut parts = Vec::with_capacity(list.len());
    for item in list {
        let share = &item.value;
        let name = share.name.required(share.at(), checks.findings);
        let weight = share.weight.required(share.at(), checks.findings);
        if let Some(Field { value, at }) = weight
            && *value > bounds::MAX_WEIGHT.into()
        {
            checks.error(
                at,
                format!(
                    "{} must be at most {}, is {value}",
                    at.subject(),
                    bounds::MAX_WEIGHT
                ),
            );
        }
        let (Some(name), Some(weight)) = (name, weight) else {
            continue;
        };
        match targets.upstreams.refer(&name.value) {
            Some(index) => parts.push((index, weight.value as u32)),
            None => checks.unknown("upstream", &name.value, &name.at, targets.upstreams),
        }
    }
    let is_nothing = !parts.is_empty() && parts.iter().all(|(_, weight)| *weight == 0);
    if is_nothing && !checks.findings.reported_within(&at.span) {
        checks.error_help(
            at,
            "every weight is 0: no upstream gets anything",
            "give one of them a weight",
        );
    }
    let hash = raw.hash.field().and_then(|field| hash_key(field, checks));
    Some(Split { parts, hash })
}
