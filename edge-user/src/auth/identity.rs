//! Claims that become request headers, and the client's forgeries of them.
//!
//! A header that a provider may set is taken from every client request, on every route, in every spelling that a
//! server behind could read as the same name; only then are the verified values put in. A value that cannot be carried
//! exactly refuses the token instead of arriving changed or not at all.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{claims::Claims, refusal::Refusal};
use crate::config::{ClaimEncoding, ClaimHeader};

/// Longest header value made of a claim, in bytes.
pub(super) const MAX_VALUE_BYTES: usize = 4096;

/// A header to be set, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeader {
    /// Lower case.
    pub name: Box<str>,
    /// Valid as a field value: no control characters, no spaces at its ends.
    pub value: Box<[u8]>,
}

/// The headers of a token. A claim that is absent or null makes none.
pub(super) fn headers(wanted: &[ClaimHeader], claims: &Claims) -> Result<Box<[IdentityHeader]>, Refusal> {
    let mut headers = Vec::with_capacity(wanted.len());
    for header in wanted {
        let value = match claims.at(&header.path) {
            None | Some(Value::Null) => continue,
            Some(claim) => match header.encoding {
                ClaimEncoding::Plain => plain(claim)?,
                ClaimEncoding::Base64Json => URL_SAFE_NO_PAD.encode(claim.to_string()),
            },
        };
        if value.len() > MAX_VALUE_BYTES {
            return Err(Refusal::UnfitClaim);
        }
        headers.push(IdentityHeader {
            name: header.header.as_str().into(),
            value: value.into_bytes().into(),
        });
    }
    Ok(headers.into())
}

fn plain(claim: &Value) -> Result<String, Refusal> {
    match claim {
        Value::Array(list) => {
            let words: Vec<_> = list.iter().map(word).collect::<Result<_, _>>()?;
            // With a comma or nothing inside one element, the list would be read as another list.
            if words.iter().any(|word| word.is_empty() || word.contains(',')) {
                return Err(Refusal::UnfitClaim);
            }
            Ok(words.join(","))
        }
        single => word(single),
    }
}

fn word(value: &Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) => {
            let is_fit = !text.chars().any(char::is_control) && text.trim_matches([' ', '\t']) == text;
            if is_fit {
                Ok(text.clone())
            } else {
                Err(Refusal::UnfitClaim)
            }
        }
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(Refusal::UnfitClaim),
    }
}

/// The names that clients may not send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReservedHeaders {
    normal: Vec<Box<[u8]>>,
}

impl ReservedHeaders {
    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut normal: Vec<_> = names
            .map(|name| name.bytes().map(normal_byte).collect())
            .collect();
        normal.sort_unstable();
        normal.dedup();
        Self { normal }
    }

    /// Whether a client's header of this name must be taken out: the name in any case, with any punctuation where the
    /// reserved name has some (`X_User` and `x.user` both arrive as `HTTP_X_USER` in CGI-like servers).
    pub fn is_reserved(&self, name: &[u8]) -> bool {
        self.normal.iter().any(|reserved| {
            reserved.len() == name.len()
                && reserved
                    .iter()
                    .zip(name)
                    .all(|(own, byte)| *own == normal_byte(*byte))
        })
    }

    /// The names, in lower case, with a hyphen for every punctuation.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.normal
            .iter()
            .filter_map(|name| std::str::from_utf8(name).ok())
    }

    /// Whether no name is reserved.
    pub fn is_empty(&self) -> bool {
        self.normal.is_empty()
    }
}

fn normal_byte(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(claim: &Value, encoding: ClaimEncoding) -> Result<Option<String>, Refusal> {
        let wanted = [ClaimHeader {
            header: "x-claim".into(),
            path: vec!["a".into(), "b".into()],
            encoding,
        }];
        let Value::Object(map) = json!({"a": {"b": claim}}) else {
            panic!("an object")
        };
        let headers = headers(&wanted, &Claims::new(map))?;
        Ok(headers
            .first()
            .map(|header| String::from_utf8_lossy(&header.value).into_owned()))
    }

    #[test]
    fn values_arrive_exactly_or_not_at_all() {
        let rows = [
            (json!("alice"), Some("alice")),
            (json!("José"), Some("José")),
            (json!(42), Some("42")),
            (json!(-1.5), Some("-1.5")),
            (json!(true), Some("true")),
            (json!(["a", 1, false]), Some("a,1,false")),
            (json!([]), Some("")),
            (json!(""), Some("")),
        ];
        for (claim, expected) in rows {
            assert_eq!(
                one(&claim, ClaimEncoding::Plain),
                Ok(expected.map(Into::into)),
                "{claim}"
            );
        }
        assert_eq!(one(&Value::Null, ClaimEncoding::Plain), Ok(None));
        for claim in [
            json!("a\r\nx: y"),
            json!("a\u{0}"),
            json!(" a"),
            json!("a\t"),
            json!("\u{7f}"),
            json!(["a,b"]),
            json!(["a", ""]),
            json!([["a"]]),
            json!({"a": 1}),
            json!([null]),
            json!("a".repeat(5000)),
            json!("\u{85}"),
        ] {
            assert_eq!(
                one(&claim, ClaimEncoding::Plain),
                Err(Refusal::UnfitClaim),
                "{claim}"
            );
        }
        let encoded = one(&json!({"a": ["\r\n", 1]}), ClaimEncoding::Base64Json);
        assert_eq!(encoded, Ok(Some(URL_SAFE_NO_PAD.encode(r#"{"a":["\r\n",1]}"#))));
    }

    #[test]
    fn every_spelling_is_reserved() {
        let reserved = ReservedHeaders::new(["x-user-id", "x-roles"].into_iter());
        for name in [
            "x-user-id",
            "X-User-Id",
            "X_USER_ID",
            "x_user-id",
            "x.user.id",
            "x-user!id",
            "X-ROLES",
        ] {
            assert!(reserved.is_reserved(name.as_bytes()), "{name}");
        }
        for name in ["x-user-id2", "xuserid", "x-user", "y-user-id", ""] {
            assert!(!reserved.is_reserved(name.as_bytes()), "{name}");
        }
    }
}
