//! Ingress (networking.k8s.io/v1).
//!
//! `Exact` and `Prefix` mean here what they mean there, down to the order of rules. `ImplementationSpecific`, where each
//! controller has its own meaning, is a prefix; a final `/*`, as some controllers want it, is one too.

use super::{
    draft::{Action, Draft, PathKey, Route},
    manifest::{Ingress, IngressBackend, IngressPath, Services},
};

const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// Annotations that say nothing about requests.
const SILENT: [&str; 4] = [
    "kubectl.kubernetes.io/",
    "kubernetes.io/ingress.class",
    "meta.helm.sh/",
    "cert-manager.io/",
];

/// What stands in the way of a rule.
struct Place<'a> {
    id: &'a str,
    field: String,
}

pub(super) fn add(ingress: &Ingress, services: &Services, draft: &mut Draft) {
    let (meta, spec) = (&ingress.metadata, &ingress.spec);
    let id = format!("Ingress {}/{}", meta.namespace, meta.name);
    for annotation in meta.annotations.keys() {
        if !SILENT.iter().any(|silent| annotation.starts_with(silent)) {
            let field = format!("metadata.annotations[{annotation:?}]");
            draft.note(&id, field, "is a controller's own and is left out");
        }
    }
    draft.listen(HTTP, false);
    for (index, tls) in spec.tls.iter().enumerate() {
        match &tls.secret_name {
            Some(secret) => draft.secure(HTTPS, &meta.namespace, secret, &tls.hosts),
            None => draft.note(
                &id,
                format!("spec.tls[{index}]"),
                "names no secret: the controller's own certificate is not known here",
            ),
        }
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        if rule.host.as_ref().is_some_and(|host| host.starts_with("*.")) {
            draft.note(
                &id,
                format!("{field}.host"),
                "takes names of any depth here; in an Ingress `*` is one label",
            );
        }
        for (number, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            let place = Place {
                id: &id,
                field: format!("{field}.http.paths[{number}]"),
            };
            add_path(ingress, rule.host.as_deref(), path, services, &place, draft);
        }
    }
    if let Some(backend) = &spec.default_backend {
        let place = Place {
            id: &id,
            field: "spec.defaultBackend".to_owned(),
        };
        if let Some(upstream) = upstream(ingress, backend, services, &place, draft) {
            let action = Action::Forward(vec![(upstream, 1)]);
            let name = format!("{}-{}-default", meta.namespace, meta.name);
            let route = Route::new(&name, PathKey::Prefix("/".to_owned()), action);
            draft.route(route, &id, &place.field);
        }
    }
}

fn add_path(
    ingress: &Ingress,
    host: Option<&str>,
    rule: &IngressPath,
    services: &Services,
    place: &Place<'_>,
    draft: &mut Draft,
) {
    let Some(upstream) = upstream(ingress, &rule.backend, services, place, draft) else {
        return;
    };
    let text = rule
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = match rule.path_type.as_str() {
        "Exact" => PathKey::Exact(text.to_owned()),
        "Prefix" => PathKey::Prefix(text.to_owned()),
        _ => {
            let prefix = text.strip_suffix('*').unwrap_or(text);
            let regex = ['*', '(', '[', '\\', '$', '^', '|', '+'];
            if prefix.contains(regex) {
                let what = format!("path {text:?} is a controller's own pattern and is left out");
                return draft.note(place.id, format!("{}.path", place.field), what);
            }
            if text != "/" && !text.ends_with("/*") {
                let what = "pathType is a controller's own: taken for Prefix";
                draft.note(place.id, format!("{}.pathType", place.field), what);
            }
            PathKey::Prefix(if prefix.is_empty() { "/" } else { prefix }.to_owned())
        }
    };
    let (meta, action) = (&ingress.metadata, Action::Forward(vec![(upstream, 1)]));
    let name = format!("{}-{}", meta.namespace, meta.name);
    let mut route = Route::new(&name, path, action);
    route.hosts.extend(host.map(str::to_owned));
    draft.route(route, place.id, &place.field);
}

fn upstream(
    ingress: &Ingress,
    backend: &IngressBackend,
    services: &Services,
    place: &Place<'_>,
    draft: &mut Draft,
) -> Option<String> {
    let namespace = &ingress.metadata.namespace;
    let mut skip = |what: String| {
        draft.note(place.id, format!("{}.backend", place.field), what);
        None
    };
    let Some(service) = &backend.service else {
        return skip("is no service and is left out".to_owned());
    };
    let port = match (&service.port.number, &service.port.name) {
        (Some(number), _) => *number,
        (None, Some(name)) => {
            let Some(number) = services.port(namespace, &service.name, name) else {
                let own = &service.name;
                return skip(format!(
                    "names port {name:?}: import the Service {own} along with it"
                ));
            };
            number
        }
        (None, None) => return skip("names no port and is left out".to_owned()),
    };
    Some(draft.upstream(namespace, &service.name, port))
}
