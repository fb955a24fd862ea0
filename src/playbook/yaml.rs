//! YAML as a tree that knows where each value stands.
//!
//! Reading straight into the model would stop at the first mistake. So the text is read into a
//! tree of spanned nodes first, all checks walk that tree and collect what they find, and the
//! model is made from it at the end. Reading is bounded in every direction (bytes, depth, nodes,
//! what aliases unfold to) because a playbook may come from anywhere.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::{Location, Options, Spanned, options::DuplicateKeyPolicy, options::NonFiniteFloatPolicy};

use super::problem::{Mistake, Problem};

/// How deep values may nest.
const DEEPEST: usize = 32;
/// How many values a playbook may hold.
const MOST_NODES: usize = 50_000;
/// How much aliases may repeat, in parser events.
const MOST_REPEATED: usize = 10_000;

/// A value and the bytes it stands in.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub span: Range<usize>,
    pub value: Value,
}

/// What a value can be.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// One field of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub value: Node,
}

impl Node {
    /// The field of that name, if this is a mapping that has it.
    pub(crate) fn field(&self, name: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == name)
    }
    /// The fields; none if this is no mapping.
    pub(crate) fn entries(&self) -> &[Entry] {
        if let Value::Mapping(entries) = &self.value { entries } else { &[] }
    }
    /// The items; none if this is no list.
    pub(crate) fn items(&self) -> &[Node] {
        if let Value::Sequence(items) = &self.value { items } else { &[] }
    }
    /// The text, if this is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }
    /// The text of a field, with its node.
    pub(crate) fn field_text(&self, name: &str) -> Option<(&str, &Node)> {
        let node = &self.field(name)?.value;
        Some((node.text()?, node))
    }
    /// The value without places.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(value) => value.clone().into(),
            Value::Text(value) => value.clone().into(),
            Value::Sequence(items) => items.iter().map(Node::to_json).collect(),
            Value::Mapping(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }
    /// A tree without places, for values that come from no file.
    pub(crate) fn from_json(value: &serde_json::Value) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(value) => Value::Number(value.clone()),
            serde_json::Value::String(value) => Value::Text(value.clone()),
            serde_json::Value::Array(items) => Value::Sequence(items.iter().map(Node::from_json).collect()),
            serde_json::Value::Object(fields) => Value::Mapping(
                fields.iter().map(|(key, value)| Entry { key: key.clone(), key_span: 0..0, value: Node::from_json(value) }).collect(),
            ),
        };
        Node { span: 0..0, value }
    }
    /// What stands here, for messages: `the number 16`, `a list`.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Number(value) => format!("the number {value}"),
            Value::Text(_) => "text".to_owned(),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a group of fields".to_owned(),
        }
    }
    /// The bytes of `part` of this text, where the file shows the text as it is; else all of it.
    pub(crate) fn part(&self, source: &str, part: Range<usize>) -> Range<usize> {
        let (Some(text), Some(written)) = (self.text(), source.get(self.span.clone())) else { return self.span.clone() };
        let quoted = written.len() == text.len() + 2 && written.get(1..written.len() - 1) == Some(text);
        match (written == text, quoted) {
            (true, _) => self.span.start + part.start..self.span.start + part.end,
            (_, true) => self.span.start + 1 + part.start..self.span.start + 1 + part.end,
            _ => self.span.clone(),
        }
    }
}

/// Reads the text. The tree comes with the problems found on the way (duplicate keys).
///
/// # Errors
/// What keeps the text from being read at all: one problem.
pub(crate) fn read(text: &str) -> Result<(Node, Vec<Problem>), Problem> {
    let raw = serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options()).map_err(|error| syntax(text, &error))?;
    let mut problems = Vec::new();
    let tree = convert(text, raw, &mut problems);
    Ok((tree, problems))
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: DEEPEST, max_nodes: MOST_NODES, max_documents: 2 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_REPEATED, max_replay_stack_depth: DEEPEST },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

/// What the parser says, in our words where they are clearer.
fn syntax(text: &str, error: &serde_saphyr::Error) -> Problem {
    use serde_saphyr::Error;
    // For aliases the place where they stand, which is what the reader can change.
    let span = error.location().map_or(0..0, |location| bytes(text, &location));
    let error = match error.without_snippet() {
        // What went wrong where an alias leads to.
        Error::AliasError { error, .. } => error,
        other => other,
    };
    let problem = |message: String, label: &str| Problem::new(Mistake::Syntax, span.clone(), message, label);
    match error {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => {
            problem("the playbook unfolds to more than a playbook can be".to_owned(), "reading stopped here").help(format!(
                "at most {MOST_NODES} values, {DEEPEST} levels deep, {MOST_REPEATED} repeated by aliases; write it out plainly"
            ))
        }
        Error::MultipleDocuments { .. } => problem("a second document begins in the same file".to_owned(), "expected the end of the file")
            .help("one file holds one playbook; move what follows into a file of its own"),
        Error::UnknownAnchor { .. } => {
            problem("an alias names an anchor that is not defined above it".to_owned(), "expected `&NAME` earlier in the file")
                .help("text that begins with `*` stands in quotes: `\"*.*\"`")
        }
        _ => problem(format!("this is not valid YAML: {}", plain(&error.to_string())), "reading stopped here")
            .help("look at indentation, quotes, brackets and colons here and in the line above"),
    }
}

/// The parser's message without the place, which is shown beside it anyway.
fn plain(message: &str) -> String {
    let cut = message.find(" at line ").map_or(message, |at| &message[..at]);
    cut.lines().next().unwrap_or_default().trim().to_owned()
}

/// The bytes of a location; by characters where the parser counted no bytes.
fn bytes(text: &str, location: &Location) -> Range<usize> {
    let span = location.span();
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    if let (Some(start), Some(length)) = (span.byte_offset(), span.byte_len()) {
        let start = size(start).min(text.len());
        return start..start.saturating_add(size(length)).min(text.len());
    }
    let at = |characters: u64| text.char_indices().nth(size(characters)).map_or(text.len(), |(offset, _)| offset);
    at(span.offset())..at(span.offset().saturating_add(span.len()))
}

fn convert(text: &str, raw: Spanned<Raw>, problems: &mut Vec<Problem>) -> Node {
    let span = bytes(text, &raw.referenced);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Number(value) => Value::Number(value),
        Raw::Text(value) => Value::Text(value),
        Raw::Sequence(items) => Value::Sequence(items.into_iter().map(|item| convert(text, item, problems)).collect()),
        Raw::Mapping(fields) => {
            let mut entries: Vec<Entry> = Vec::with_capacity(fields.len());
            for (key, value) in fields {
                let key_span = bytes(text, &key.referenced);
                let value = convert(text, value, problems);
                let Raw::Text(name) = key.value else {
                    let problem = Problem::new(Mistake::WrongType, key_span, "a field's name is not text", "expected a name");
                    problems.push(problem.help("write numbers, `true`, `false` and `null` in quotes where they are names"));
                    continue;
                };
                if entries.iter().any(|entry| entry.key == name) {
                    let problem = Problem::new(Mistake::DuplicateKey, key_span, format!("`{name}` is given twice"), "expected once");
                    problems.push(problem.help("remove one of the two; which one is meant can't be known"));
                    continue;
                }
                entries.push(Entry { key: name, key_span, value });
            }
            Value::Mapping(entries)
        }
    };
    // An empty span is given to mappings and lists that begin with their first key or dash.
    Node { span, value }
}

/// What the YAML reader hands over.
enum Raw {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Sequence(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Number::from_f64(value).map_or_else(|| Raw::Text(value.to_string()), Raw::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::Sequence(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = access.next_key()? {
            fields.push((key, access.next_value()?));
        }
        Ok(Raw::Mapping(fields))
    }
}
