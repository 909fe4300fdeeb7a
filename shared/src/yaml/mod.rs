//! YAML as a tree of nodes that know their place, and typed values out of it.
//!
//! Both the settings and the migration files are read through this, so that every message names line and column, and
//! so that a plain scalar keeps its text: a SQL literal `1.10` must not become the number 1.1.
//!
//! Deliberately smaller than YAML: one document, no tags, no merge keys, keys are scalars and stand once. Aliases are
//! allowed and bounded.

mod de;
mod nearest;
mod text;

use crate::migration::Position;
use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span, StrInput};
use std::collections::BTreeMap;

pub use de::{Error, SCALAR, read, unique};
pub use nearest::{advice, nearest};
pub use text::Text;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A single value, not yet interpreted.
    Scalar(Scalar),
    /// `- a`, or `[a, b]`.
    Sequence(Vec<Node>),
    /// `a: b`, or `{a: b}`; in the order written, each key once.
    Mapping(Vec<Entry>),
}

/// A single value as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text, without quotes and escapes.
    pub text: String,
    /// How it was written.
    pub style: Style,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: it may be a number, true, false or null.
    Plain,
    /// With quotes, or as a block: always a text.
    Text,
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub at: Position,
    /// Its value.
    pub value: Node,
}

/// More nodes than any file of ours needs; reached only by aliases that multiply each other.
const MAX_NODES: usize = 1_000_000;

impl Node {
    /// What lies below at a path of keys such as `batch.size`.
    pub fn find(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, key| {
            let Value::Mapping(entries) = &node.value else {
                return None;
            };
            let entry = entries.iter().find(|entry| entry.key == key);
            entry.map(|entry| &entry.value)
        })
    }

    /// Whether nothing was written, or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.is_null())
    }

    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Scalar(scalar) if scalar.is_null() => "nothing".to_owned(),
            Value::Scalar(scalar) if scalar.text.is_empty() => "an empty text".to_owned(),
            Value::Scalar(scalar) => format!("`{}`", scalar.text),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }

    /// Itself and all below it.
    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Self::count).sum(),
            Value::Mapping(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
        }
    }
}

impl Scalar {
    /// Whether it stands for no value.
    pub fn is_null(&self) -> bool {
        self.style == Style::Plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// The truth value it stands for, if it does.
    pub fn as_bool(&self) -> Option<bool> {
        match self.text.as_str() {
            "true" | "True" | "TRUE" if self.style == Style::Plain => Some(true),
            "false" | "False" | "FALSE" if self.style == Style::Plain => Some(false),
            _ => None,
        }
    }
}

/// Reads one document; `None` when there is nothing but comments.
///
/// # Errors
/// When it is not YAML, or uses a part of YAML that is not allowed here.
pub fn parse(text: &str) -> Result<Option<Node>, Error> {
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: BTreeMap::new(),
        nodes: 0,
    };
    let mut document = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentEnd => {}
            Event::StreamEnd => return Ok(document),
            Event::DocumentStart(..) if document.is_some() => {
                return Err(
                    Error::at(position(&span), "there is a second document in this file")
                        .advise("keep one document in a file: remove the `---`, or what follows it"),
                );
            }
            Event::DocumentStart(..) => {
                let (event, span) = reader.next()?;
                let node = reader.node(event, &span)?;
                // `# only comments` is a document that holds an empty scalar.
                document = (!node.is_null()).then_some(node);
            }
            _ => return Err(Error::at(position(&span), "this is not YAML")),
        }
    }
}

/// Where a span begins.
fn position(span: &Span) -> Position {
    Position {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Error> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let marker = error.marker();
                let at = Position {
                    line: marker.line(),
                    column: marker.col() + 1,
                };
                Err(Error::at(at, format!("this is not YAML: {}", error.info())))
            }
            None => Err(Error::new("the file ends in the middle of a value")),
        }
    }

    /// Reads the node that begins with an event. The parser bounds how deep nodes are nested.
    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Node, Error> {
        let at = position(span);
        if event.tag().is_some() {
            return Err(Error::at(at, "tags (`!..`) have no meaning here").advise("remove the tag"));
        }
        let anchor = event.anchor_id().unwrap_or(0);
        self.nodes += 1;
        let value = match event {
            Event::Scalar(text, style, ..) => {
                let style = if style == ScalarStyle::Plain {
                    Style::Plain
                } else {
                    Style::Text
                };
                Value::Scalar(Scalar {
                    text: text.into_owned(),
                    style,
                })
            }
            Event::SequenceStart(..) => Value::Sequence(self.sequence()?),
            Event::MappingStart(..) => Value::Mapping(self.mapping()?),
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id) else {
                    return Err(Error::at(at, "this alias stands inside the value it refers to"));
                };
                self.nodes += node.count();
                if self.nodes > MAX_NODES {
                    return Err(Error::at(
                        at,
                        "the aliases of this file multiply to too many values",
                    ));
                }
                return Ok(node.clone());
            }
            _ => return Err(Error::at(at, "this is not YAML")),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self) -> Result<Vec<Node>, Error> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                next => next,
            };
            let at = position(&span);
            let Value::Scalar(Scalar { text: key, style }) = self.node(event, &span)?.value else {
                return Err(Error::at(at, "a key must be a single value"));
            };
            if key == "<<" && style == Style::Plain {
                return Err(Error::at(at, "merge keys (`<<`) are not supported").advise("write the keys out"));
            }
            if let Some(line) = seen.insert(key.clone(), at.line) {
                return Err(Error::at(
                    at,
                    format!("the key `{key}` stands here a second time, first on line {line}"),
                ));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, &span)?;
            entries.push(Entry { key, at, value });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(text: &str) -> Vec<Entry> {
        match parse(text).unwrap().unwrap().value {
            Value::Mapping(entries) => entries,
            other => panic!("not a mapping: {other:?}"),
        }
    }

    fn refused(text: &str) -> String {
        let error = parse(text).unwrap_err();
        let at = error
            .position
            .map_or(String::new(), |at| format!("{}:{}: ", at.line, at.column));
        format!("{at}{}", error.what)
    }

    #[test]
    fn nodes_know_their_place_and_scalars_keep_their_text() {
        let entries = mapping("ä: 1.10\nb:\n  - 'x'\n  - {c: true}\n");
        assert_eq!(
            (entries[0].key.as_str(), entries[0].at),
            ("ä", Position { line: 1, column: 1 })
        );
        assert_eq!(entries[0].value.at, Position { line: 1, column: 4 });
        assert_eq!(
            entries[0].value.value,
            Value::Scalar(Scalar {
                text: "1.10".to_owned(),
                style: Style::Plain
            })
        );
        let Value::Sequence(items) = &entries[1].value.value else {
            panic!("not a list")
        };
        assert_eq!(items[0].at, Position { line: 3, column: 5 });
        assert_eq!(items[1].at, Position { line: 4, column: 5 });
    }

    #[test]
    fn a_file_of_comments_holds_nothing() {
        for text in ["", "# nothing\n", "---\n", "\n\n"] {
            assert_eq!(parse(text).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn what_would_be_read_in_two_ways_is_refused_with_its_place() {
        assert_eq!(
            refused("a: 1\nb: 2\na: 3\n"),
            "3:1: the key `a` stands here a second time, first on line 1"
        );
        assert_eq!(
            refused("a: 1\n---\nb: 2\n"),
            "2:1: there is a second document in this file"
        );
        assert_eq!(refused("a: !!str 1\n"), "1:10: tags (`!..`) have no meaning here");
        assert_eq!(
            refused("a: &x {b: 1}\nc:\n  <<: *x\n"),
            "3:3: merge keys (`<<`) are not supported"
        );
        assert_eq!(refused("? [a]\n: 1\n"), "1:3: a key must be a single value");
        assert!(
            refused("a: [1, 2\n").contains("this is not YAML"),
            "{}",
            refused("a: [1, 2\n")
        );
        assert!(
            refused("a:\n\t- b\n").starts_with("2:"),
            "{}",
            refused("a:\n\t- b\n")
        );
    }

    #[test]
    fn aliases_repeat_a_value_but_not_without_bound() {
        let entries = mapping("a: &x [1]\nb: *x\n");
        assert_eq!(entries[1].value.value, entries[0].value.value);
        let below = |level: i32| format!("l{level}: &l{level} [{}]", format!("*l{},", level - 1).repeat(10));
        let bomb: Vec<String> = std::iter::once("l0: &l0 x".to_owned())
            .chain((1..9).map(below))
            .collect();
        assert!(refused(&bomb.join("\n")).contains("too many values"));
        assert!(refused("a: &x [*x]\n").contains("stands inside the value it refers to"));
    }
}
