//! Reading one TOML table into a raw struct without stopping at the first mistake.
//!
//! `section!` declares a raw struct: its fields *are* the keys the table may have; any other key is an error
//! with a suggestion. A field is never assumed: it is a [`Key`], so that "absent" (use the default) and "bad"
//! (already reported) stay apart and one mistake is told once.

use std::{fmt, ops::Range};

use serde_json::Value;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    problem::{Finding, Findings, Place},
    schema, suggest,
    value::FromToml,
};

/// Path of a key, built while descending; spelled out only for a problem.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyPath<'p> {
    Root,
    Name(&'p KeyPath<'p>, &'p str),
    Index(&'p KeyPath<'p>, usize),
}

impl fmt::Display for KeyPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Name(Self::Root, name) => f.write_str(name),
            Self::Name(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl KeyPath<'_> {
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        Place {
            span,
            key: self.to_string(),
        }
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Field<T> {
    pub(super) value: T,
    pub(super) at: Place,
}

/// What was found under a key.
#[derive(Debug, Clone)]
pub(super) enum Key<T> {
    /// Nothing; the key's name.
    Absent(&'static str),
    /// Something that is already reported.
    Bad,
    /// A value of the right type.
    Set(Field<T>),
}

impl<T> Key<T> {
    pub(super) fn field(&self) -> Option<&Field<T>> {
        match self {
            Self::Set(field) => Some(field),
            Self::Absent(_) | Self::Bad => None,
        }
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.field().map(|field| &field.value)
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }

    /// The value, or `default` if there is none.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Self::Set(field) => field.value,
            Self::Absent(_) | Self::Bad => default,
        }
    }

    /// The value, or its type's default if there is none.
    pub(super) fn or_default(self) -> T
    where
        T: Default,
    {
        self.or(T::default())
    }

    /// The field; its absence from the section at `section` is an error.
    pub(super) fn required(&self, section: &Place, findings: &mut Findings) -> Option<&Field<T>> {
        if let Self::Absent(name) = self {
            let mut at = section.clone();
            let separator = if at.key.is_empty() { "" } else { "." };
            at.key = format!("{}{separator}{name}", at.key);
            findings.push(Finding::error(at, format!("missing key `{name}`")));
        }
        self.field()
    }
}

/// A table being taken apart.
pub(super) struct Reader<'r, 'i> {
    table: DeTable<'i>,
    span: Range<usize>,
    path: &'r KeyPath<'r>,
    findings: &'r mut Findings,
}

impl<'r, 'i> Reader<'r, 'i> {
    pub(super) fn new(
        table: DeTable<'i>,
        span: Range<usize>,
        path: &'r KeyPath<'r>,
        findings: &'r mut Findings,
    ) -> Self {
        Self {
            table,
            span,
            path,
            findings,
        }
    }

    /// Takes the value of `name` out of the table.
    pub(super) fn take<T: FromToml>(&mut self, name: &'static str) -> Key<T> {
        let Some(value) = self.table.remove(name) else {
            return Key::Absent(name);
        };
        let path = KeyPath::Name(self.path, name);
        let at = path.place(value.span());
        match T::from_toml(value, &path, self.findings) {
            Some(value) => Key::Set(Field { value, at }),
            None => Key::Bad,
        }
    }

    /// Reports whatever is left and returns the section's place.
    pub(super) fn finish(self, known: &[&'static str]) -> Place {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            let at = KeyPath::Name(self.path, name).place(key.span());
            let near = suggest::nearest(name, known.iter().copied());
            let message = match near {
                Some(near) => format!("unknown key `{name}`; did you mean `{near}`?"),
                None => format!("unknown key `{name}`"),
            };
            let mut finding = Finding::error(at, message);
            if near.is_none() {
                finding = finding.help(format!("known keys here: {}", known.join(", ")));
            }
            self.findings.push(finding);
        }
        self.path.place(self.span)
    }
}

/// A raw struct that mirrors one table.
pub(super) trait Section: Sized {
    /// Name of the table, as in the documentation.
    const NAME: &'static str;
    /// Every key, in the documentation's order.
    const KEYS: &'static [&'static str];

    fn read(reader: Reader<'_, '_>) -> Self;

    /// Each key, and what may stand there.
    fn properties() -> Vec<(&'static str, Value)>;

    /// Where the table stands.
    fn at(&self) -> &Place;

    /// The keys that have a value, and where it stands.
    fn given(&self) -> impl Iterator<Item = (&'static str, &Place)>;
}

impl<T: Section> FromToml for T {
    const EXPECTED: &'static str = "a table";
    const TABLE: Option<&'static str> = Some(T::NAME);

    fn schema() -> Value {
        schema::table(T::NAME, T::properties())
    }

    fn from_toml(value: Spanned<DeValue<'_>>, path: &KeyPath<'_>, findings: &mut Findings) -> Option<Self> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(T::read(Reader::new(table, span, path, findings))),
            other => {
                let finding = super::value::wrong_type::<Self>(&other, path.place(span));
                findings.push(match other {
                    DeValue::Array(_) => finding.help(format!("write `[{}]`, once", T::NAME)),
                    _ => finding,
                });
                None
            }
        }
    }
}

/// Declares raw sections; see the module.
macro_rules! section {
    ($($(#[$meta:meta])* $name:ident as $table:literal { $($(#[$doc:meta])* $key:ident: $type:ty,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub(in $crate::config) struct $name {
            /// Where the section stands.
            place: $crate::config::problem::Place,
            $($(#[$doc])* pub(in $crate::config) $key: $crate::config::section::Key<$type>,)+
        }

        impl $crate::config::section::Section for $name {
            const NAME: &'static str = $table;
            const KEYS: &'static [&'static str] = &[$(stringify!($key)),+];

            fn read(mut reader: $crate::config::section::Reader<'_, '_>) -> Self {
                $(let $key = reader.take(stringify!($key));)+
                Self { place: reader.finish(Self::KEYS), $($key),+ }
            }

            fn properties() -> Vec<(&'static str, serde_json::Value)> {
                vec![$((stringify!($key), <$type as $crate::config::value::FromToml>::schema())),+]
            }

            fn at(&self) -> &$crate::config::problem::Place {
                &self.place
            }

            fn given(&self) -> impl Iterator<Item = (&'static str, &$crate::config::problem::Place)> {
                let keys = [$((stringify!($key), self.$key.field().map(|field| &field.at))),+];
                keys.into_iter().filter_map(|(key, at)| Some((key, at?)))
            }
        }
    )+

    /// Every section with its keys.
    #[cfg(test)]
    pub(in $crate::config) const SECTIONS: &[(&str, &[&str])] = &[
        $(($table, &[$(stringify!($key)),+])),+
    ];
    };
}
pub(super) use section;
