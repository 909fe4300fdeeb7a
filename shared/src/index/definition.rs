//! What an index is, as the author wrote it.

use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{Nulls, SortDirection};
use crate::sql;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;

/// What an index is, without its name and table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    /// Whether equal keys are refused.
    pub unique: bool,
    /// The access method; B-tree when it is not given.
    pub method: Option<Ident>,
    /// What it is sorted by.
    pub elements: Vec<Element>,
    /// Columns that are only carried along.
    pub include: Vec<Ident>,
    /// Storage parameters.
    pub with: BTreeMap<Ident, Parameter>,
    /// Where it is kept.
    pub tablespace: Option<Ident>,
    /// Which rows it holds; all when there is none.
    pub condition: Option<Expression>,
    /// What follows the table's name in the author's own statement, where there is one: then the other parts only serve to
    /// look for rows with equal keys.
    pub written: Option<String>,
}

/// One key of an index.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// What is indexed.
    pub key: Key,
    /// Upwards or downwards.
    pub order: Option<Order>,
    /// Where NULLs are.
    pub nulls: Option<Nulls>,
    /// Its collation.
    pub collation: Option<Table>,
    /// Its operator class.
    pub opclass: Option<Table>,
}

/// What a key of an index is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// A column.
    Column(Ident),
    /// An expression over columns.
    Expression(Expression),
}

/// Upwards or downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Smaller values first.
    Asc,
    /// Larger values first.
    Desc,
}

/// The value of a storage parameter, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter(String);

impl Parameter {
    /// From its text.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl<'de> Visitor<'de> for Scalar {
            type Value = Parameter;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Parameter, D::Error> {
                String::deserialize(deserializer).map(Parameter)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Parameter, E> {
                Ok(Parameter(text.to_owned()))
            }
        }
        deserializer.deserialize_newtype_struct(crate::yaml::SCALAR, Scalar)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

/// A column's name alone, or a mapping.
struct Written;

/// `{ column | expression, order?, nulls?, collation?, opclass? }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    column: Option<Ident>,
    expression: Option<Expression>,
    order: Option<Order>,
    nulls: Option<Place>,
    collation: Option<Table>,
    opclass: Option<Table>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    First,
    Last,
}

impl<'de> Visitor<'de> for Written {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name, or a mapping with `column` or `expression`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Element, E> {
        Ident::parse(text).map(Element::of).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
        use serde::de::Error as _;
        let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
        let key = match (fields.column, fields.expression) {
            (Some(column), None) => Key::Column(column),
            (None, Some(expression)) => Key::Expression(expression),
            (None, None) | (Some(_), Some(_)) => {
                return Err(A::Error::custom(
                    "either `column` or `expression` must be given, and not both",
                ));
            }
        };
        Ok(Element {
            key,
            order: fields.order,
            nulls: fields.nulls.map(|place| match place {
                Place::First => Nulls::First,
                Place::Last => Nulls::Last,
            }),
            collation: fields.collation,
            opclass: fields.opclass,
        })
    }
}

impl Element {
    /// A column in the ordinary order.
    pub fn of(column: Ident) -> Self {
        Self::of_key(Key::Column(column))
    }

    /// An expression in the ordinary order.
    pub fn of_expression(expression: Expression) -> Self {
        Self::of_key(Key::Expression(expression))
    }

    fn of_key(key: Key) -> Self {
        Self {
            key,
            order: None,
            nulls: None,
            collation: None,
            opclass: None,
        }
    }

    /// The key as an expression of SQL.
    fn key_sql(&self) -> String {
        match &self.key {
            Key::Column(column) => column.to_string(),
            // The line feed ends a comment that the expression may end with.
            Key::Expression(expression) => format!("({}\n)", expression.text()),
        }
    }

    fn as_sql(&self) -> String {
        let mut text = self.key_sql();
        let collation = self.collation.as_ref().map(|name| format!(" COLLATE {name}"));
        let opclass = self.opclass.as_ref().map(|name| format!(" {name}"));
        text.extend(collation);
        text.extend(opclass);
        text.push_str(match self.order {
            None => "",
            Some(Order::Asc) => " ASC",
            Some(Order::Desc) => " DESC",
        });
        text.push_str(match self.nulls {
            None => "",
            Some(Nulls::First) => " NULLS FIRST",
            Some(Nulls::Last) => " NULLS LAST",
        });
        text
    }

    /// By the meaning: an order that is written out counts as the same where it is the ordinary one.
    fn canonical(&self) -> String {
        let direction = match self.order {
            Some(Order::Desc) => SortDirection::Descending,
            Some(Order::Asc) | None => SortDirection::Ascending,
        };
        let canonical = match &self.key {
            Key::Column(column) => Canonical::new().field("column", column),
            Key::Expression(expression) => Canonical::new().field("expression", tokens(expression.text())),
        };
        canonical
            .optional(
                "order",
                (direction == SortDirection::Descending).then_some("desc"),
            )
            .optional(
                "nulls",
                match (direction, self.nulls) {
                    (SortDirection::Ascending, Some(Nulls::First)) => Some("first"),
                    (SortDirection::Descending, Some(Nulls::Last)) => Some("last"),
                    (_, None | Some(Nulls::First | Nulls::Last)) => None,
                },
            )
            .optional("collation", self.collation.as_ref())
            .optional("opclass", self.opclass.as_ref())
            .finish()
    }
}

impl Definition {
    /// What can be said wrong from the text alone.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.elements.is_empty() {
            problems.push("`columns` names no column".to_owned());
        }
        if self.elements.len() + self.include.len() > 32 {
            problems.push("an index holds at most 32 columns".to_owned());
        }
        let expressions = self.elements.iter().filter_map(|element| match &element.key {
            Key::Expression(expression) => Some(expression),
            Key::Column(_) => None,
        });
        for expression in expressions.chain(&self.condition) {
            if expression.has_subquery() {
                problems.push(format!(
                    "`{}` reads other rows: an index can only read columns of its own row",
                    expression.text()
                ));
            }
        }
        problems
    }

    /// For a step's checksum.
    pub fn canonical(&self, canonical: Canonical) -> Canonical {
        let canonical = self.elements.iter().fold(canonical, |canonical, element| {
            canonical.field("key", element.canonical())
        });
        let btree = |method: &&Ident| method.as_str() != "btree";
        let canonical = canonical
            .optional("unique", self.unique.then_some(true))
            .optional("method", self.method.as_ref().filter(btree));
        let canonical =
            (self.include.iter()).fold(canonical, |canonical, column| canonical.field("include", column));
        let canonical = (self.with.iter()).fold(canonical, |canonical, (name, Parameter(value))| {
            canonical.field("with", name).field("is", value)
        });
        canonical
            .optional("tablespace", self.tablespace.as_ref())
            .optional(
                "where",
                self.condition.as_ref().map(|condition| tokens(condition.text())),
            )
    }

    /// The columns it names outside expressions.
    pub fn columns(&self) -> impl Iterator<Item = &Ident> {
        let keys = self.elements.iter().filter_map(|element| match &element.key {
            Key::Column(column) => Some(column),
            Key::Expression(_) => None,
        });
        keys.chain(&self.include)
    }

    /// What follows the table's name in CREATE INDEX.
    pub fn as_sql(&self) -> String {
        if let Some(written) = &self.written {
            // The line feed ends a comment that it may end with.
            return format!("{written}\n");
        }
        let list = |items: Vec<String>| items.join(", ");
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.method.as_ref().map(|method| format!("USING {method}")));
        let keys = self.elements.iter().map(Element::as_sql).collect();
        parts.push(format!("({})", list(keys)));
        if !self.include.is_empty() {
            let columns = self.include.iter().map(ToString::to_string).collect();
            parts.push(format!("INCLUDE ({})", list(columns)));
        }
        if !self.with.is_empty() {
            let parameters = (self.with.iter())
                .map(|(name, Parameter(value))| format!("{name} = {}", sql::literal(value).trim_start()))
                .collect();
            parts.push(format!("WITH ({})", list(parameters)));
        }
        let tablespace = self.tablespace.as_ref();
        parts.extend(tablespace.map(|tablespace| format!("TABLESPACE {tablespace}")));
        let condition = self.condition.as_ref();
        parts.extend(condition.map(|condition| format!("WHERE ({}\n)", condition.text())));
        parts.join(" ")
    }

    /// The query that finds keys that stand more than once. Keys with a NULL are never equal.
    pub fn duplicates(&self, table: &str) -> String {
        let keys: Vec<String> = self.elements.iter().map(Element::key_sql).collect();
        let conditions: Vec<String> = (keys.iter().map(|key| format!("{key} IS NOT NULL")))
            .chain(
                self.condition
                    .iter()
                    .map(|condition| format!("({}\n)", condition.text())),
            )
            .collect();
        let keys = keys.join(", ");
        format!(
            "SELECT {keys}, count(*) FROM {table} WHERE {} GROUP BY {keys} HAVING count(*) > 1",
            conditions.join(" AND ")
        )
    }
}
