//! The page for people: a few fixed files, part of the binary, which hold no secret and load nothing from elsewhere. What
//! they show they ask the API for, and that asks for what its listener asks of everybody.

use http::{HeaderMap, HeaderValue, Method, header};

/// What the page may do (Content Security Policy 3): scripts and styles of its own, answers of this API, no frame around
/// it, no form that sends anything anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($path:literal, $media_type:literal, $file:literal) => {
        File {
            path: $path,
            media_type: concat!($media_type, "; charset=utf-8"),
            text: include_str!(concat!("dashboard/", $file)),
        }
    };
}

/// All of them.
const FILES: &[File] = &[
    file!("/", "text/html", "index.html"),
    file!("/dashboard/app.js", "text/javascript", "app.js"),
    file!("/dashboard/style.css", "text/css", "style.css"),
    file!(
        "/dashboard/uplot.js",
        "text/javascript",
        "uplot/uPlot.iife.min.js"
    ),
    file!("/dashboard/uplot.css", "text/css", "uplot/uPlot.min.css"),
    file!("/dashboard/uplot.license", "text/plain", "uplot/LICENSE"),
];

/// The file at a path, for a method that only looks.
pub(super) fn find(method: &Method, path: &str) -> Option<File> {
    let looks = method == Method::GET || method == Method::HEAD;
    FILES.iter().find(|file| looks && file.path == path).copied()
}

impl File {
    /// Its media type.
    pub(super) const fn media_type(self) -> &'static str {
        self.media_type
    }

    /// What is in it.
    pub(super) const fn text(self) -> &'static str {
        self.text
    }
}

/// Adds what a browser is told of a file beyond what every answer tells.
pub(super) fn secure(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance of a colour (WCAG 2.2).
    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).expect("hexadecimal");
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    fn colour<'s>(theme: &'s str, name: &str) -> &'s str {
        let at = theme.find(&format!("--{name}: #")).expect(name) + name.len() + 4;
        &theme[at..at + 7]
    }

    #[test]
    fn text_stands_out_from_its_ground_in_both_themes() {
        let style = find(&Method::GET, "/dashboard/style.css")
            .expect("the style")
            .text();
        let (light, dark) = style
            .split_once("prefers-color-scheme: dark")
            .expect("two themes");
        for theme in [light, dark] {
            for ground in ["ground", "panel"] {
                for text in ["text", "faint", "link", "good", "bad", "warn", "then"] {
                    let (one, other) = (luminance(colour(theme, ground)), luminance(colour(theme, text)));
                    let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                    assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
                }
            }
        }
    }

    #[test]
    fn what_the_page_names_is_there_and_of_this_origin() {
        let page = find(&Method::GET, "/").expect("the page").text();
        let mut named = 0;
        for attribute in ["src=\"", "href=\""] {
            for rest in page.split(attribute).skip(1) {
                let address = rest.split('"').next().expect("an end");
                if address.starts_with('#') || address == "data:," {
                    continue;
                }
                assert!(find(&Method::GET, address).is_some(), "{address}");
                named += 1;
            }
        }
        assert_eq!(named, 4);
        assert!(find(&Method::POST, "/").is_none());
    }
}
