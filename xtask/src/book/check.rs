//! Links of the finished book: each file and each heading that a page leads to is there.
//!
//! Reads mdBook's HTML, where attributes stand in double quotes. Links to other places are not followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};

use crate::tidy::links;

/// Made for other purposes than reading on: its links begin at the root of a server.
const NOT_READ: [&str; 1] = ["404.html"];

/// How many pages there are, and the links that lead nowhere, a line each.
///
/// # Errors
/// When the book cannot be read.
pub(super) fn links(book: &Path) -> Result<(usize, Vec<String>)> {
    let mut files = BTreeMap::new();
    collect(book, "", &mut files)?;
    let pages = files.values().filter(|text| text.is_some()).count();
    Ok((pages, broken(&files)))
}

/// Every file of a folder, by its path; pages with their text.
fn collect(root: &Path, folder: &str, files: &mut BTreeMap<String, Option<String>>) -> Result<()> {
    let place = root.join(folder);
    for entry in fs::read_dir(&place).with_context(|| format!("cannot read {}", place.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else if is_page(&path) && !NOT_READ.contains(&path.as_str()) {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            files.insert(path, Some(text));
        } else {
            files.insert(path, None);
        }
    }
    Ok(())
}

fn is_page(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|ending| ending == "html")
}

fn broken(files: &BTreeMap<String, Option<String>>) -> Vec<String> {
    let ids: BTreeMap<&str, BTreeSet<&str>> = files
        .iter()
        .filter_map(|(path, text)| Some((path.as_str(), values(text.as_ref()?, "id").collect())))
        .collect();
    let mut broken = Vec::new();
    for (path, text) in files
        .iter()
        .filter_map(|(path, text)| Some((path, text.as_ref()?)))
    {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in values(text, "href").chain(values(text, "src")) {
            if link.contains(':') || link.starts_with("//") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let file = file.split('?').next().unwrap_or_default();
            let target = if file.is_empty() {
                Some(path.clone())
            } else {
                links::joined(folder, file)
            };
            let target = target.filter(|target| files.contains_key(target));
            let leads = target.is_some_and(|target| {
                let known = ids.get(target.as_str());
                heading.is_empty() || known.is_none_or(|known| known.contains(heading))
            });
            if !leads {
                broken.push(format!("{path}: {link} leads nowhere"));
            }
        }
    }
    broken
}

/// Values of an attribute, in the order of the text.
fn values<'t>(text: &'t str, attribute: &str) -> impl Iterator<Item = &'t str> {
    let start = format!(" {attribute}=\"");
    let length = start.len();
    let starts: Vec<usize> = text.match_indices(&start).map(|(at, _)| at + length).collect();
    starts
        .into_iter()
        .filter_map(|at| text[at..].split_once('"').map(|(value, _)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(page: &str) -> Vec<String> {
        let page = page.to_owned();
        let files = BTreeMap::from([
            ("adr/a.html".to_owned(), Some(page)),
            ("b.html".to_owned(), Some("<h1 id=\"top\">".to_owned())),
            ("b.png".to_owned(), None),
        ]);
        broken(&files)
    }

    #[test]
    fn what_leads_nowhere_is_found_and_nothing_else() {
        for good in [
            "href=\"../b.html#top\"",
            "src=\"../b.png?1\"",
            "href=\"#x\" id=\"x\"",
            "href=\"https://w.example\"",
        ] {
            assert_eq!(found(&format!("<a {good}>")), [""; 0], "{good}");
        }
        for bad in [
            "href=\"b.html\"",
            "href=\"../b.html#low\"",
            "src=\"../c.png\"",
            "href=\"#x\"",
            "href=\"../../b.html\"",
        ] {
            assert_eq!(found(&format!("<a {bad}>")).len(), 1, "{bad}");
        }
    }
}
