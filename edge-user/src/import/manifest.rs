//! Manifests as they are read: the fields that have a counterpart, and what is left.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// Fields that nobody has asked for.
pub(super) type Rest = BTreeMap<String, Value>;

/// Most bytes of one file.
const MAX_BYTES: usize = 16 << 20;

/// A file that is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not YAML.
    #[error("{0}")]
    Yaml(String),
    /// Above the limit.
    #[error("longer than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// A document that is no object of Kubernetes.
    #[error("document {number}: {what}")]
    NoObject {
        /// Counted from 1.
        number: usize,
        /// Why.
        what: &'static str,
    },
    /// An object whose fields are not what its kind has.
    #[error("{object}: {error}")]
    Fields {
        /// Which.
        object: String,
        /// Why.
        error: String,
    },
}

/// One object.
#[derive(Debug, Clone)]
pub enum Object {
    /// `networking.k8s.io/v1`, Ingress.
    Ingress(Ingress),
    /// `gateway.networking.k8s.io`, Gateway.
    Gateway(Gateway),
    /// `gateway.networking.k8s.io`, HTTPRoute.
    HttpRoute(HttpRoute),
    /// A Service, for the numbers of its named ports.
    Service(Service),
    /// Has to do with the cluster alone.
    Ignored,
    /// Anything else.
    Unknown {
        /// Kind, namespace and name.
        id: String,
    },
}

/// Reads a file of one or more documents.
///
/// # Errors
/// It is not YAML, or a document is no object, or has fields of other types than its kind.
pub fn read(text: &str) -> Result<Vec<Object>, ManifestError> {
    if text.len() > MAX_BYTES {
        return Err(ManifestError::TooLarge);
    }
    // `y` and `no` are words, as they are to Kubernetes' own tools in most places.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| ManifestError::Yaml(error.to_string()))?;
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        add(document, index + 1, &mut objects)?;
    }
    Ok(objects)
}

fn add(document: Value, number: usize, objects: &mut Vec<Object>) -> Result<(), ManifestError> {
    // An empty document, as between two separators.
    if document.is_null() {
        return Ok(());
    }
    let no_object = |what| ManifestError::NoObject { number, what };
    let Value::Object(mut map) = document else {
        return Err(no_object("is no mapping"));
    };
    let kind = match map.get("kind") {
        Some(Value::String(kind)) => kind.clone(),
        _ => return Err(no_object("has no kind")),
    };
    let version = map.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
    if kind == "List" {
        if let Some(Value::Array(items)) = map.remove("items") {
            for item in items {
                add(item, number, objects)?;
            }
        }
        return Ok(());
    }
    let id = {
        let meta = |key: &str| Some(map.get("metadata")?.get(key)?.as_str()?.to_owned());
        let namespace = meta("namespace").unwrap_or_else(|| "default".to_owned());
        format!("{kind} {namespace}/{}", meta("name").unwrap_or_default())
    };
    let value = Value::Object(map);
    objects.push(match (group.as_str(), kind.as_str()) {
        ("networking.k8s.io", "Ingress") => Object::Ingress(fields(value, &id)?),
        ("gateway.networking.k8s.io", "Gateway") => Object::Gateway(fields(value, &id)?),
        ("gateway.networking.k8s.io", "HTTPRoute") => Object::HttpRoute(fields(value, &id)?),
        ("", "Service") => Object::Service(fields(value, &id)?),
        ("", "Namespace" | "Secret" | "ConfigMap" | "Endpoints")
        | ("apps", "Deployment")
        | ("networking.k8s.io", "IngressClass")
        | ("discovery.k8s.io", "EndpointSlice")
        | ("gateway.networking.k8s.io", "GatewayClass" | "ReferenceGrant") => Object::Ignored,
        _ => Object::Unknown { id },
    });
    Ok(())
}

fn fields<T: DeserializeOwned>(value: Value, id: &str) -> Result<T, ManifestError> {
    serde_json::from_value(value).map_err(|error| ManifestError::Fields {
        object: id.to_owned(),
        error: error.to_string(),
    })
}

/// `metadata`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default = "default_namespace")]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// A Service.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ServiceSpec {
    #[serde(default)]
    ports: Vec<ServicePort>,
}

#[derive(Debug, Clone, Deserialize)]
struct ServicePort {
    #[serde(default)]
    name: String,
    port: u16,
}

/// The numbers of named ports.
#[derive(Debug, Default)]
pub(super) struct Services(BTreeMap<(String, String, String), u16>);

impl Services {
    pub(super) fn of(objects: &[Object]) -> Self {
        let mut ports = BTreeMap::new();
        for object in objects {
            if let Object::Service(service) = object {
                for port in &service.spec.ports {
                    let Metadata { namespace, name, .. } = &service.metadata;
                    let key = (namespace.clone(), name.clone(), port.name.clone());
                    ports.insert(key, port.port);
                }
            }
        }
        Self(ports)
    }

    pub(super) fn port(&self, namespace: &str, service: &str, name: &str) -> Option<u16> {
        let key = (namespace.to_owned(), service.to_owned(), name.to_owned());
        self.0.get(&key).copied()
    }
}

/// An Ingress.
#[derive(Debug, Clone, Deserialize)]
pub struct Ingress {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: IngressSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IngressSpec {
    pub(super) default_backend: Option<IngressBackend>,
    #[serde(default)]
    pub(super) tls: Vec<IngressTls>,
    #[serde(default)]
    pub(super) rules: Vec<IngressRule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IngressTls {
    #[serde(default)]
    pub(super) hosts: Vec<String>,
    pub(super) secret_name: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct IngressRule {
    pub(super) host: Option<String>,
    pub(super) http: Option<IngressHttp>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct IngressHttp {
    #[serde(default)]
    pub(super) paths: Vec<IngressPath>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IngressPath {
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) path_type: String,
    pub(super) backend: IngressBackend,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct IngressBackend {
    pub(super) service: Option<IngressService>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct IngressService {
    pub(super) name: String,
    #[serde(default)]
    pub(super) port: IngressPort,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct IngressPort {
    pub(super) number: Option<u16>,
    pub(super) name: Option<String>,
}

/// A Gateway.
#[derive(Debug, Clone, Deserialize)]
pub struct Gateway {
    pub(super) metadata: Metadata,
    pub(super) spec: GatewaySpec,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct GatewaySpec {
    #[serde(default)]
    pub(super) listeners: Vec<GatewayListener>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct GatewayListener {
    pub(super) name: String,
    pub(super) hostname: Option<String>,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) tls: Option<GatewayTls>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayTls {
    #[serde(default)]
    pub(super) mode: String,
    #[serde(default)]
    pub(super) certificate_refs: Vec<Reference>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// A reference to another object.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) section_name: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) weight: Option<u64>,
    #[serde(default)]
    pub(super) filters: Vec<Value>,
}

/// An HTTPRoute.
#[derive(Debug, Clone, Deserialize)]
pub struct HttpRoute {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: HttpRouteSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpRouteSpec {
    #[serde(default)]
    pub(super) parent_refs: Vec<Reference>,
    #[serde(default)]
    pub(super) hostnames: Vec<String>,
    #[serde(default)]
    pub(super) rules: Vec<HttpRule>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpRule {
    #[serde(default)]
    pub(super) matches: Vec<HttpMatch>,
    #[serde(default)]
    pub(super) filters: Vec<Filter>,
    #[serde(default)]
    pub(super) backend_refs: Vec<Reference>,
    pub(super) timeouts: Option<Timeouts>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Timeouts {
    pub(super) request: Option<String>,
    pub(super) backend_request: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpMatch {
    pub(super) path: Option<ValueMatch>,
    #[serde(default)]
    pub(super) headers: Vec<ValueMatch>,
    #[serde(default)]
    pub(super) query_params: Vec<ValueMatch>,
    pub(super) method: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ValueMatch {
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) request_header_modifier: Option<Modifier>,
    pub(super) response_header_modifier: Option<Modifier>,
    pub(super) request_redirect: Option<Redirect>,
    pub(super) url_rewrite: Option<UrlRewrite>,
    pub(super) request_mirror: Option<Mirror>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Modifier {
    #[serde(default)]
    pub(super) set: Vec<ValueMatch>,
    #[serde(default)]
    pub(super) add: Vec<ValueMatch>,
    #[serde(default)]
    pub(super) remove: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Redirect {
    pub(super) scheme: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) path: Option<PathModifier>,
    pub(super) status_code: Option<u16>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathModifier {
    pub(super) replace_full_path: Option<String>,
    pub(super) replace_prefix_match: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct UrlRewrite {
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mirror {
    pub(super) backend_ref: Reference,
    pub(super) percent: Option<u8>,
    pub(super) fraction: Option<Value>,
}
