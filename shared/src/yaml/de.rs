//! Typed values from nodes, by serde. Every error knows its place and the path of keys that led there; unknown keys of
//! a mapping are all reported, with the nearest known one.

use super::{Entry, Node, Scalar, Style, Value, nearest};
use crate::migration::Position;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// The name of a newtype that wants a scalar's text as written, be it a number, a truth value or a text. A type asks
/// for it with `deserialize_newtype_struct(SCALAR, visitor)`; `null` gives the text `null`.
pub const SCALAR: &str = "$confiture::yaml::Scalar";

/// What is wrong with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where, when that is known.
    pub position: Option<Position>,
    /// What is wrong, in lower case, without a full stop.
    pub what: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// Others that were found on the way.
    pub others: Vec<Error>,
    /// Whether `what` names the keys that led there.
    named: bool,
}

impl Error {
    /// An error without a place.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            position: None,
            what: what.into(),
            advice: None,
            others: Vec::new(),
            named: false,
        }
    }

    /// An error with its place.
    pub fn at(position: Position, what: impl Into<String>) -> Self {
        Self {
            position: Some(position),
            ..Self::new(what)
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }

    /// All errors, this one first.
    pub fn all(self) -> impl Iterator<Item = Error> {
        let Self { others, .. } = self.clone();
        std::iter::once(Self {
            others: Vec::new(),
            ..self
        })
        .chain(others)
    }

    fn or_at(mut self, position: Position) -> Self {
        self.position.get_or_insert(position);
        self
    }

    /// Puts the key before the message: `batch.size: ...`.
    #[must_use]
    pub fn within(mut self, key: &str) -> Self {
        for error in
            std::iter::once(&mut self.what).chain(self.others.iter_mut().map(|other| &mut other.what))
        {
            let separator = if self.named { "." } else { ": " };
            *error = format!("{key}{separator}{error}");
        }
        self.named = true;
        for other in &mut self.others {
            other.named = true;
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {found}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let error = Self::new(format!("`{variant}` is not known here"));
        match nearest(variant, known.iter().copied()) {
            Some(name) => error.advise(format!("did you mean `{name}`?")),
            None => error.advise(format!("one of {} is expected", known.join(", "))),
        }
    }
}

/// Reads a mapping whose keys may be written in several ways, each key once: in SQL `A` and `a` are the same name. For
/// `#[serde(deserialize_with = "..")]`; a map alone would keep the last of them without a word.
///
/// # Errors
/// Those of the deserializer, and a key that stands twice.
pub fn unique<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: serde::Deserialize<'de> + Ord + fmt::Display,
    V: serde::Deserialize<'de>,
{
    struct Unique<K, V>(PhantomData<(K, V)>);

    impl<'de, K, V> Visitor<'de> for Unique<K, V>
    where
        K: serde::Deserialize<'de> + Ord + fmt::Display,
        V: serde::Deserialize<'de>,
    {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mapping (`key: value`)")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<K, V>()? {
                if all.contains_key(&key) {
                    return Err(serde::de::Error::custom(format!("{key} stands there twice")));
                }
                all.insert(key, value);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Unique(PhantomData))
}

/// Reads a typed value.
///
/// # Errors
/// The first wrong value, and all unknown keys on the way to it.
pub fn read<'de, T: serde::Deserialize<'de>>(node: &'de Node) -> Result<T, Error> {
    T::deserialize(node)
}

impl Node {
    fn expected(&self, what: &str) -> Error {
        Error::at(self.at, format!("expected {what}, found {}", self.describe()))
    }

    fn scalar(&self, what: &str) -> Result<&Scalar, Error> {
        match &self.value {
            Value::Scalar(scalar) if !scalar.is_null() => Ok(scalar),
            Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_) => Err(self.expected(what)),
        }
    }

    /// A text: in quotes, or plain and not a number or truth value.
    fn text(&self) -> Result<&str, Error> {
        let scalar = self.scalar("a text")?;
        if scalar.as_bool().is_some() || scalar.number().is_some() {
            return Err(self
                .expected("a text")
                .advise(format!("put it in quotes: \"{}\"", scalar.text)));
        }
        Ok(&scalar.text)
    }
}

impl Scalar {
    /// The number it stands for, if it does.
    fn number(&self) -> Option<f64> {
        let digits = self.text.strip_prefix(['-', '+']).unwrap_or(&self.text);
        let plain =
            self.style == Style::Plain && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        plain.then(|| self.text.parse().ok()).flatten()
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let scalar = self.scalar($what)?;
            let value: $type = match scalar.style {
                Style::Plain => scalar.text.parse().map_err(|_| self.expected($what))?,
                Style::Text => return Err(self.expected($what)),
            };
            visitor.$visit(value).map_err(|error: Error| error.or_at(self.at))
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Sequence(_) => self.deserialize_seq(visitor),
            Value::Mapping(_) => self.deserialize_map(visitor),
            Value::Scalar(scalar) => {
                let value = if scalar.is_null() {
                    visitor.visit_unit()
                } else if let Some(value) = scalar.as_bool() {
                    visitor.visit_bool(value)
                } else if let Some(value) = scalar.number() {
                    visitor.visit_f64(value)
                } else {
                    visitor.visit_borrowed_str(&scalar.text)
                };
                value.map_err(|error: Error| error.or_at(self.at))
            }
        }
    }

    numbers! {
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number, not negative";
        deserialize_u16 visit_u16 u16, "a whole number, not negative";
        deserialize_u32 visit_u32 u32, "a whole number, not negative";
        deserialize_u64 visit_u64 u64, "a whole number, not negative";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = self
            .scalar("true or false")?
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))?;
        visitor
            .visit_bool(value)
            .map_err(|error: Error| error.or_at(self.at))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor
            .visit_borrowed_str(self.text()?)
            .map_err(|error: Error| error.or_at(self.at))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() {
            visitor.visit_unit()
        } else {
            Err(self.expected("nothing"))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name != SCALAR {
            return visitor.visit_newtype_struct(self);
        }
        match &self.value {
            Value::Scalar(scalar) if !scalar.text.is_empty() => visitor
                .visit_borrowed_str(&scalar.text)
                .map_err(|error: Error| error.or_at(self.at)),
            Value::Scalar(_) | Value::Sequence(_) | Value::Mapping(_) => Err(self.expected("a single value")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Sequence(items) = &self.value else {
            return Err(self.expected("a list"));
        };
        visitor
            .visit_seq(Items { items: items.iter() })
            .map_err(|error| error.or_at(self.at))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Mapping(entries) = &self.value else {
            return Err(self.expected("a mapping (`key: value`)"));
        };
        visitor
            .visit_map(Entries::of(entries.iter().collect()))
            .map_err(|error| error.or_at(self.at))
    }

    /// Unknown keys are told here, all of them, because a derived visitor stops at the first.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Mapping(entries) = &self.value else {
            return Err(self.expected(&format!("a mapping with the keys {}", fields.join(", "))));
        };
        let (known, unknown): (Vec<&Entry>, Vec<&Entry>) = entries
            .iter()
            .partition(|entry| fields.contains(&entry.key.as_str()));
        let mut problems: Vec<Error> = unknown
            .iter()
            .map(|entry| {
                Error::at(entry.at, format!("the key `{}` is not known here", entry.key))
                    .advise(super::advice(&entry.key, fields))
            })
            .collect();
        let value = visitor
            .visit_map(Entries::of(known))
            .map_err(|error: Error| error.or_at(self.at));
        match value {
            Ok(value) if problems.is_empty() => Ok(value),
            // A key that is missing is probably the unknown one, misspelt: say only the latter.
            Err(error) if problems.is_empty() || !error.what.ends_with("is missing") => {
                problems.extend(error.all());
                Err(first_of(problems))
            }
            Ok(_) | Err(_) => Err(first_of(problems)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor
            .visit_enum(Variant { node: self })
            .map_err(|error| error.or_at(self.at))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { i128 u128 }
}

/// Several errors as one; there is at least one.
fn first_of(problems: Vec<Error>) -> Error {
    let mut problems = problems.into_iter();
    let first = problems.next().unwrap_or_else(|| Error::new("it is not usable"));
    Error {
        others: problems.collect(),
        ..first
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.items.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Entries<'de> {
    entries: std::vec::IntoIter<&'de Entry>,
    current: Option<&'de Entry>,
}

impl<'de> Entries<'de> {
    fn of(entries: Vec<&'de Entry>) -> Self {
        Self {
            entries: entries.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.entries.next();
        self.current
            .map(|entry| {
                let key: serde::de::value::StrDeserializer<'_, Error> =
                    entry.key.as_str().into_deserializer();
                seed.deserialize(key).map_err(|error| error.or_at(entry.at))
            })
            .transpose()
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        match self.current.take() {
            Some(entry) => seed
                .deserialize(&entry.value)
                .map_err(|error| error.or_at(entry.value.at).within(&entry.key)),
            None => Err(Error::new("a value was asked for before its key")),
        }
    }
}

struct Variant<'de> {
    node: &'de Node,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        Ok((seed.deserialize(self.node)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(self.node.expected("a single word"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(self.node.expected("a single word"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(self.node.expected("a single word"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        table: String,
        #[serde(default)]
        size: Option<u32>,
        #[serde(default)]
        on: bool,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        free: BTreeMap<String, Word>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        rows: u32,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Either,
        Excluded,
    }

    #[test]
    fn a_key_that_is_written_in_two_ways_is_told() {
        #[derive(Debug, Deserialize)]
        struct Step {
            #[serde(deserialize_with = "unique")]
            set: BTreeMap<crate::name::Ident, u32>,
        }
        let read_step = |text: &str| {
            read::<Step>(&super::super::parse(text).unwrap().unwrap()).map(|step| step.set.len())
        };
        assert_eq!(read_step("set: { a: 1, b: 2, '\"A\"': 3 }"), Ok(3));
        let error = read_step("set: { a: 1, A: 2 }").unwrap_err();
        assert_eq!(error.what, "set: \"a\" stands there twice");
    }

    fn problems(text: &str) -> Vec<String> {
        let node = super::super::parse(text).unwrap().unwrap();
        let Err(error) = read::<Sample>(&node) else {
            panic!("accepted: {text}")
        };
        error
            .all()
            .map(|e| {
                let at = e.position.unwrap();
                let advice = e.advice.map_or(String::new(), |advice| format!(" ({advice})"));
                format!("{}:{}: {}{advice}", at.line, at.column, e.what)
            })
            .collect()
    }

    #[test]
    fn a_value_of_the_right_shape_is_read() {
        let node = super::super::parse("table: t\nsize: 5\non: true\ninner: {rows: 1}\nfree: {a: either}")
            .unwrap()
            .unwrap();
        let sample: Sample = read(&node).unwrap();
        assert_eq!(sample.size, Some(5));
        assert_eq!(sample.inner, Some(Inner { rows: 1 }));
        assert_eq!(sample.free["a"], Word::Either);
    }

    #[test]
    fn a_wrong_value_is_told_with_its_path_and_place() {
        assert_eq!(
            problems("table: t\ninner: { rows: many }"),
            ["2:16: inner.rows: expected a whole number, not negative, found `many`"]
        );
        assert_eq!(
            problems("table: t\nsize: -1"),
            ["2:7: size: expected a whole number, not negative, found `-1`"]
        );
        assert_eq!(
            problems("table: t\non: 'true'"),
            ["2:5: on: expected true or false, found `true`"]
        );
        assert_eq!(
            problems("table: 5"),
            ["1:8: table: expected a text, found `5` (put it in quotes: \"5\")"]
        );
        assert_eq!(
            problems("table: [a]"),
            ["1:8: table: expected a text, found a list"]
        );
        assert_eq!(problems("size: 5"), ["1:1: the key `table` is missing"]);
        assert_eq!(
            problems("table: t\nfree: {a: eiter}"),
            ["2:11: free.a: `eiter` is not known here (did you mean `either`?)"]
        );
    }

    #[test]
    fn all_unknown_keys_are_told_and_a_misspelt_one_is_not_also_missing() {
        assert_eq!(
            problems("tabel: t\nsice: 5\nsize: x"),
            [
                "1:1: the key `tabel` is not known here (did you mean `table`?)",
                "2:1: the key `sice` is not known here (did you mean `size`?)",
                "3:7: size: expected a whole number, not negative, found `x`",
            ]
        );
        assert_eq!(
            problems("tabel: t"),
            ["1:1: the key `tabel` is not known here (did you mean `table`?)"]
        );
    }
}
