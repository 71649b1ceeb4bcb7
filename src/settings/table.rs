//! A table of the settings: the macro that declares its keys, and what a key is in one
//! file and after the files are merged; wraps toml's positions.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::files::SettingsFile;
use super::formats::Format;
use crate::error::Error;

/// Declares the keys of a table, one in each row:
///
/// ```text
/// /// DOCUMENTATION
/// NAME: FORMAT = DEFAULT,
/// ```
///
/// It generates two structs with a field for each key: `file` names the table in one file,
/// which also contains the tables below it, and `merged` the table after the files are
/// merged.
macro_rules! keys {
    (
        file $fragment:ident { $($tables:tt)* }

        $(#[$merged_doc:meta])*
        merged $merged:ident {
            $($(#[$doc:meta])* $key:ident: $format:ty = $default:expr,)*
        }
    ) => {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct $fragment {
            $($key: Option<Located<$format>>,)*
            $($tables)*
        }

        $(#[$merged_doc])*
        pub struct $merged<'a> {
            $($(#[$doc])* pub $key: Setting<'a, <$format as Format>::Value>,)*
        }

        impl Default for $merged<'_> {
            fn default() -> Self {
                Self {
                    $($key: Setting::with_default($default),)*
                }
            }
        }

        impl<'a> $merged<'a> {
            /// The names of the keys.
            const NAMES: &'static [&'static str] = &[$(stringify!($key)),*];

            /// Replaces the values of the keys that `file` sets.
            fn merge(&mut self, file: &'a SettingsFile, fragment: &$fragment) {
                $(self.$key.merge(file, fragment.$key.as_ref());)*
            }

            /// The lines of the keys for `--show-config`.
            fn lines(&self) -> Vec<Line<'_>> {
                vec![$(self.$key.line::<$format>(stringify!($key))),*]
            }
        }
    };
}

/// Declares the keys of `[limits]`, and generates `Limits`, which contains only their values.
macro_rules! limits {
    ($($(#[$doc:meta])* $key:ident: $format:ty = $default:expr,)*) => {
        keys! {
            file LimitsFragment {}

            /// The table `[limits]`; see [`Limits`].
            merged MergedLimits { $($(#[$doc])* $key: $format = $default,)* }
        }

        /// Resource limits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $key: <$format as Format>::Value,)*
        }

        impl From<&MergedLimits<'_>> for Limits {
            fn from(merged: &MergedLimits<'_>) -> Self {
                Self {
                    $($key: merged.$key.value,)*
                }
            }
        }

        impl Default for Limits {
            fn default() -> Self {
                Self::from(&MergedLimits::default())
            }
        }
    };
}

pub(super) use {keys, limits};

/// The value of a key in a file, and the bytes of the file that contain it.
#[derive(Debug)]
pub struct Located<F: Format> {
    /// The value.
    pub value: F::Value,
    /// The byte range.
    pub span: Range<usize>,
}

impl<F: Format> Located<Option<F>> {
    /// No value, which replaces the value in a lower file.
    pub fn none(span: &Range<usize>) -> Self {
        Self {
            value: None,
            span: span.clone(),
        }
    }
}

impl<'de, F: Format> Deserialize<'de> for Located<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value<F: Format>(F::Value);

        impl<'de, F: Format> Deserialize<'de> for Value<F> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                F::read(deserializer).map(Self)
            }
        }

        let spanned = toml::Spanned::<Value<F>>::deserialize(deserializer)?;
        Ok(Self {
            span: spanned.span(),
            value: spanned.into_inner().0,
        })
    }
}

/// A table in a file. Serde's derived structs also accept arrays; this does not.
#[derive(Debug, Default)]
pub struct Table<T>(pub T);

/// The name of a table in messages.
pub trait TableName {
    /// As in "expected …".
    const NAME: &'static str;
}

impl<'de, T: Deserialize<'de> + TableName> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + TableName> Visitor<'de> for TableVisitor<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::NAME)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }

        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Origin<'a> {
    /// No file sets the key.
    Default,
    /// The bytes of a file.
    File(&'a SettingsFile, Range<usize>),
}

impl Origin<'_> {
    /// An error about the value.
    pub fn error(&self, message: &str) -> Error {
        match self {
            Self::Default => Error::settings(Path::new("default"), None, message),
            Self::File(file, span) => file.error_at(span, message),
        }
    }
}

/// The value of a key after the files are merged.
#[derive(Debug, Clone)]
pub struct Setting<'a, T> {
    /// The value.
    pub value: T,
    /// The file that sets it.
    pub origin: Origin<'a>,
}

impl<'a, T: Clone> Setting<'a, T> {
    /// The setting if no file sets the key.
    pub fn with_default(value: T) -> Self {
        Self {
            value,
            origin: Origin::Default,
        }
    }

    /// Takes the value in `file`, if that sets the key.
    pub fn merge<F: Format<Value = T>>(
        &mut self,
        file: &'a SettingsFile,
        located: Option<&Located<F>>,
    ) {
        if let Some(located) = located {
            self.value = located.value.clone();
            self.origin = Origin::File(file, located.span.clone());
        }
    }

    /// The line for `--show-config`.
    pub fn line<F: Format<Value = T>>(&self, key: &'static str) -> Line<'_> {
        Line {
            key,
            value: F::write(&self.value),
            origin: &self.origin,
        }
    }
}

/// A key as `--show-config` prints it.
pub struct Line<'a> {
    /// The name of the key.
    pub key: &'static str,
    /// The value as TOML; `None` if the key is not set.
    pub value: Option<String>,
    /// Where the value comes from.
    pub origin: &'a Origin<'a>,
}
