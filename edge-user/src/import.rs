//! Kubernetes manifests as a configuration: Ingress, and Gateway and HTTPRoute of the Gateway API.
//!
//! [`translate`] is pure: manifests in, the text of a configuration and everything that it does not carry over out.
//! It reads no cluster: a named port needs the Service beside the Ingress, certificates are expected in files.
//!
//! Nothing is left out silently: what has no counterpart here is a [`Note`] with the object and the field.

mod draft;
mod gateway_api;
mod ingress;
mod manifest;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use manifest::{ManifestError, Object, read};

use draft::Draft;
use manifest::Services;

/// How the cluster is seen from the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The cluster's domain, under which services have names.
    pub domain: String,
    /// The directory in which certificates will lie, as `NAMESPACE-SECRET.crt` and `.key`.
    pub certificates: String,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            domain: "cluster.local".to_owned(),
            certificates: "/etc/breakwater/tls".to_owned(),
        }
    }
}

/// Something that was not carried over, or not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Kind, namespace and name, as `Ingress shop/web`.
    pub object: String,
    /// The field, as `spec.rules[0].http.paths[1]`.
    pub field: String,
    /// What became of it.
    pub what: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.object, self.field, self.what)
    }
}

/// What manifests came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Translation {
    /// The configuration, as TOML.
    pub config: String,
    /// How many routes it has.
    pub routes: usize,
    /// What it does not carry over.
    pub notes: Vec<Note>,
}

/// Turns manifests into a configuration.
pub fn translate(objects: &[Object], surroundings: &Surroundings) -> Translation {
    let services = Services::of(objects);
    let mut draft = Draft::new(surroundings.clone());
    for object in objects {
        match object {
            Object::Ingress(ingress) => ingress::add(ingress, &services, &mut draft),
            Object::Gateway(gateway) => gateway_api::add_gateway(gateway, &mut draft),
            Object::HttpRoute(_) | Object::Service(_) | Object::Ignored => {}
            Object::Unknown { id } => draft.note(id, "kind", "has no counterpart and is left out"),
        }
    }
    // Routes name gateways, wherever those stand in the files.
    for object in objects {
        if let Object::HttpRoute(route) = object {
            gateway_api::add_route(route, objects, &mut draft);
        }
    }
    draft.finish()
}
