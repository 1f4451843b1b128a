//! What the operator asked of tokens: who signs them, where they are found, what a route wants to see in them.
//!
//! Plain values, checked while they were read; verifying a token is the business of `crate::auth`.

use std::{fmt, path::PathBuf, time::Duration};

use super::bounds;

/// What a route asks of a request's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthPolicy {
    /// Open.
    None,
    /// A token may be absent; a bad one is refused.
    Optional(AuthRule),
    /// A valid token or 401.
    Required(AuthRule),
}

/// Which tokens satisfy a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRule {
    /// Indices into [`Config::providers`]; at least one.
    pub providers: Vec<usize>,
    /// Scopes that must all be present, else 403.
    pub scopes: Vec<String>,
    /// Claim requirements that must all hold, else 403.
    pub claims: Vec<ClaimRule>,
    /// Where a browser without a good token is sent instead of a 401.
    pub login: Option<Login>,
}

/// One requirement on a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRule {
    /// Names from the outermost object inwards; at least one.
    pub path: Vec<String>,
    /// What the claim's value must satisfy; an absent claim satisfies nothing.
    pub test: ClaimTest,
}

/// What a claim's value must satisfy. Types never convert: the string `"1"` is not the number 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimTest {
    /// The claim is this value.
    Equals(ClaimValue),
    /// The claim is an array with this value in it, or the value itself.
    Contains(ClaimValue),
    /// The claim is one of these values.
    OneOf(Vec<ClaimValue>),
}

/// A value that a claim is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClaimValue {
    /// A string, compared byte for byte.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Bool(bool),
}

/// Where a browser is sent to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Absolute `https` URL, or a path on the same host.
    pub url: String,
    /// Query parameter that takes the place to return to; none is added if absent.
    pub return_parameter: Option<String>,
    /// Origin (`https://app.example`) put before the return path; the path alone if absent.
    pub return_origin: Option<String>,
}

/// `[[provider]]`: one issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Unique name.
    pub name: String,
    /// Accepted algorithms, all of one key family.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Where its key comes from.
    pub key: KeySource,
    /// Required `iss`.
    pub issuer: Option<String>,
    /// Required `aud`: one of these.
    pub audiences: Vec<String>,
    /// Tolerated clock difference.
    pub leeway: Duration,
    /// Where tokens are looked for, in order.
    pub sources: Vec<TokenSource>,
    /// What a token must be like beyond signature, issuer and audience.
    pub checks: TokenChecks,
    /// What the upstream gets to see of it.
    pub forward: TokenForwarding,
}

/// What a token must be like beyond signature, issuer and audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenChecks {
    /// Refuse tokens without `exp`.
    pub require_exp: bool,
    /// Longest time from `iat` to `exp`.
    pub max_lifetime: Option<Duration>,
    /// Accepted `typ` values, in any case and with or without `application/`; if empty, `JWT`, `at+jwt` and
    /// none at all.
    pub types: Vec<String>,
}

impl Default for TokenChecks {
    fn default() -> Self {
        Self {
            require_exp: true,
            max_lifetime: None,
            types: Vec::new(),
        }
    }
}

/// What the upstream gets to see of a verified token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenForwarding {
    /// Take the token out of the forwarded request.
    pub remove_token: bool,
    /// Claims that become request headers.
    pub headers: Vec<ClaimHeader>,
}

/// One claim that becomes a request header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Header name, lower case.
    pub header: String,
    /// Names from the outermost object inwards; at least one.
    pub path: Vec<String>,
    /// How the value is written.
    pub encoding: ClaimEncoding,
}

/// How a claim is written into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClaimEncoding {
    /// Strings as they are, numbers and booleans in decimal and words, arrays of those with commas.
    #[default]
    Plain,
    /// The claim's JSON in base64url without padding.
    Base64Json,
}

/// Where a provider's key comes from. `Debug` never shows a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// HMAC secret, the file's bytes without a final newline.
    SecretFile(PathBuf),
    /// HMAC secret in an environment variable.
    SecretEnv(String),
    /// HMAC secret made at start (built-in quick start only; never in a file).
    Generated(Vec<u8>),
    /// PEM public key or certificate.
    PemFile(PathBuf),
    /// JWKS document.
    JwksFile(PathBuf),
    /// JWKS document at a URL.
    JwksUrl(RemoteKeys),
    /// The URL is an issuer; its OIDC discovery document names the JWKS.
    Oidc(RemoteKeys),
}

/// Keys fetched from a URL, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteKeys {
    /// `https` URL; `http` only for a loopback address.
    pub url: String,
    /// Certificates that vouch for the server, PEM; the system's if absent.
    pub ca_file: Option<PathBuf>,
    /// Time between fetches if the answer says nothing.
    pub refresh: Duration,
    /// Least time between scheduled fetches, whatever Cache-Control says.
    pub refresh_min: Duration,
    /// Most time between fetches, whatever Cache-Control says: how long a removed key may live on.
    pub refresh_max: Duration,
    /// Least time between two fetches for the sake of unknown key ids.
    pub cooldown: Duration,
    /// Limit for one whole fetch.
    pub timeout: Duration,
    /// How long the last good set is used while the endpoint is down.
    pub max_stale: Duration,
}

impl RemoteKeys {
    /// The defaults for this URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            refresh: bounds::DEFAULT_REFRESH,
            refresh_min: bounds::DEFAULT_REFRESH_MIN,
            refresh_max: bounds::DEFAULT_REFRESH_MAX,
            cooldown: bounds::DEFAULT_COOLDOWN,
            timeout: bounds::DEFAULT_FETCH_TIMEOUT,
            max_stale: bounds::DEFAULT_MAX_STALE,
        }
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretFile(path) => f.debug_tuple("SecretFile").field(path).finish(),
            Self::SecretEnv(name) => f.debug_tuple("SecretEnv").field(name).finish(),
            Self::Generated(_) => f.write_str("Generated(..)"),
            Self::PemFile(path) => f.debug_tuple("PemFile").field(path).finish(),
            Self::JwksFile(path) => f.debug_tuple("JwksFile").field(path).finish(),
            Self::JwksUrl(remote) => f.debug_tuple("JwksUrl").field(remote).finish(),
            Self::Oidc(remote) => f.debug_tuple("Oidc").field(remote).finish(),
        }
    }
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer`.
    Bearer,
    /// A cookie of this name.
    Cookie(String),
    /// A header of this name, the token alone.
    Header(String),
    /// A query parameter of this name.
    Query(String),
}
