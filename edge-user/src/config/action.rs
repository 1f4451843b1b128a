//! What becomes of a request that took a `[[route]]`, and what the route changes about it and its answer.

use std::time::Duration;

use super::{HashKey, bounds, text::Text};

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// It is forwarded to this upstream: index into [`Config::upstreams`](super::Config::upstreams).
    Upstream(usize),
    /// It is forwarded to one of several.
    Split(Split),
    /// It is sent somewhere else.
    Redirect(Redirect),
    /// It is answered here.
    Respond(Respond),
    /// Several upstreams are asked, and their answers merged.
    FanOut(FanOut),
}

/// `route.upstreams`: several upstreams, by weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Indices into [`Config::upstreams`](super::Config::upstreams), each once, with their weights, which are not all
    /// zero.
    pub parts: Vec<(usize, u32)>,
    /// What decides; chance if absent.
    pub hash: Option<HashKey>,
}

/// `[route.redirect]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`; that of the request if absent.
    pub scheme: Option<String>,
    /// Host without port; that of the request if absent.
    pub host: Option<String>,
    /// Port; the scheme's if absent.
    pub port: Option<u16>,
    /// Path; that of the request if absent.
    pub path: Option<Text>,
    /// The query goes along.
    pub keep_query: bool,
}

/// `[route.respond]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// Its body.
    pub body: String,
    /// `Content-Type`, if there is a body.
    pub content_type: String,
}

/// `[[route.fan_out]]`: the parts of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FanOut {
    /// In the order of the merged object; at least one.
    pub parts: Vec<FanOutPart>,
}

/// One part of a merged answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FanOutPart {
    /// Its name in the merged object.
    pub key: String,
    /// Index into [`Config::upstreams`](super::Config::upstreams).
    pub upstream: usize,
    /// What it is asked for.
    pub path: Text,
    /// Without it there is no answer; else it is `null`.
    pub required: bool,
}

/// `[route.mirror]`: who gets a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Index into [`Config::upstreams`](super::Config::upstreams).
    pub upstream: usize,
    /// Of a hundred requests.
    pub percent: u8,
    /// Requests with a longer body are not copied.
    pub body_bytes: u32,
}

/// `[route.rewrite]`: the path that the upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// The route's prefix is replaced by this one.
    Prefix(String),
    /// The whole path.
    Path(Text),
}

/// `[route.request_headers]`, `[route.response_headers]`; names in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldRules {
    /// These fields go no further.
    pub remove: Vec<String>,
    /// These are put in the place of those that came.
    pub set: Vec<(String, Text)>,
    /// These are put beside those that came.
    pub add: Vec<(String, Text)>,
}

impl FieldRules {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// `[route.cors]`: which pages of other origins may read the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Whose.
    pub origins: CorsOrigins,
    /// `Access-Control-Allow-Methods`.
    pub methods: Vec<String>,
    /// `Access-Control-Allow-Headers`, in lower case; whatever is asked for if [`Self::any_header`].
    pub headers: Vec<String>,
    /// Every field may be sent.
    pub any_header: bool,
    /// `Access-Control-Expose-Headers`.
    pub expose: Vec<String>,
    /// Cookies and the like may be sent.
    pub credentials: bool,
    /// How long a preflight answer may be kept.
    pub max_age: Duration,
}

/// Origins of [`Cors`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Every one.
    Any,
    /// These.
    Listed(Vec<CorsOrigin>),
}

/// One of [`CorsOrigins::Listed`], in the spelling that browsers send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// This one.
    Exact(String),
    /// Hosts below a domain: `https://*.example.org`, perhaps with a port.
    Below {
        /// With `://`.
        scheme: String,
        /// With its leading dot, and `:port` if there is one.
        tail: String,
    },
}

/// `[route.compress]`: which answers are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// Codings in the order of preference; at least one.
    pub algorithms: Vec<Coding>,
    /// Media types in lower case, `text/*` among them.
    pub types: Vec<String>,
    /// Answers of fewer bytes are left as they are, if their length is known.
    pub min_bytes: u64,
}

impl Default for Compress {
    fn default() -> Self {
        Self {
            algorithms: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            types: bounds::DEFAULT_COMPRESS_TYPES.map(str::to_owned).to_vec(),
            min_bytes: bounds::DEFAULT_COMPRESS_MIN_BYTES,
        }
    }
}

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878, with a window within RFC 9659's.
    Zstd,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}
