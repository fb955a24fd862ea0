//! Whether a tree has the shape that a JSON Schema asks for: fields, types, allowed values.
//!
//! The schema is the one generated from the model (and from each step's arguments), so there is
//! one description of the format and every mistake against it is found in one walk, with its
//! place and the nearest valid name. Understood is what `schemars` writes for plain structs,
//! maps, lists, options and enums: `$ref`, `type`, `properties`, `required`,
//! `additionalProperties`, `items`, `enum`, `const`, `oneOf`, `anyOf`, `minimum`, `maximum` and
//! our own `format`s of durations and sizes. Anything else is left to serde afterwards.

use std::ops::Range;

use serde_json::Value as Json;

use super::nearest::nearest;
use super::problem::{Mistake, Problem};
use super::quantity::{DURATION_FORMAT, HumanDuration, HumanRate, HumanSize, QuantityError, RATE_FORMAT, SIZE_FORMAT};
use super::reference::TEMPLATE_FORMAT;
use super::yaml::{Node, Value};

/// One mistake in the shape.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub mistake: Mistake,
    pub span: Range<usize>,
    /// The field, from the top of what was checked.
    pub path: Vec<String>,
    pub message: String,
    pub expected: String,
    pub help: Option<String>,
    /// The nearest valid name.
    pub nearest: Option<String>,
    /// All valid names.
    pub valid: Vec<String>,
}

impl Finding {
    /// As a problem of the file.
    pub(crate) fn into_problem(self) -> Problem {
        let help = match (&self.nearest, self.valid.is_empty()) {
            (Some(nearest), _) => Some(format!("did you mean `{nearest}`?{}", list(" Valid here: ", &self.valid))),
            (None, false) => Some(list("valid here: ", &self.valid)),
            (None, true) => self.help,
        };
        let problem = Problem::new(self.mistake, self.span, self.message, self.expected);
        match help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
    /// As one sentence.
    pub(crate) fn problem_text(&self) -> String {
        match &self.nearest {
            Some(nearest) => format!("{}; did you mean `{nearest}`?", self.message),
            None => self.message.clone(),
        }
    }
}

/// Names in backticks with commas, after `before`; nothing if there are none.
pub(crate) fn list(before: &str, names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { String::new() } else { format!("{before}{}", quoted.join(", ")) }
}

/// Every mistake of `node` against `schema` (a root schema with its `$defs`). `subject` is what
/// the node is called in messages.
pub(crate) fn check(schema: &Json, node: &Node, subject: &str) -> Vec<Finding> {
    let mut walk = Walk { root: schema, findings: Vec::new() };
    walk.value(schema, node, &At { path: &[], subject, anchor: &node.span, model: None });
    walk.findings
}

struct Walk<'a> {
    root: &'a Json,
    findings: Vec<Finding>,
}

/// Where the walk is.
struct At<'a> {
    path: &'a [String],
    /// What the value is called: `store `school``.
    subject: &'a str,
    /// Where to point for what is missing: the key that leads here.
    anchor: &'a Range<usize>,
    /// The name of the model's type, where there is one.
    model: Option<&'a str>,
}

impl<'a> Walk<'a> {
    fn found(
        &mut self,
        mistake: Mistake,
        span: &Range<usize>,
        path: &[String],
        message: String,
        expected: impl Into<String>,
    ) -> &mut Finding {
        let finding = Finding {
            mistake,
            span: span.clone(),
            path: path.to_vec(),
            message,
            expected: expected.into(),
            help: None,
            nearest: None,
            valid: Vec::new(),
        };
        let index = self.findings.len();
        self.findings.push(finding);
        &mut self.findings[index]
    }

    fn value(&mut self, schema: &'a Json, node: &Node, at: &At<'_>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let Some(name) = reference.strip_prefix("#/$defs/") else { return };
            let named = At { model: Some(name), ..*at };
            return self.value(&self.root["$defs"][name], node, &named);
        }
        if let Some(branches) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
            return self.branches(branches, node, at);
        }
        if let Some(values) = schema["enum"].as_array() {
            return self.choice(&values.iter().filter_map(Json::as_str).collect::<Vec<_>>(), node, at);
        }
        if let Some(value) = schema["const"].as_str() {
            return self.choice(&[value], node, at);
        }
        if !self.is_type(schema, node, at) {
            return;
        }
        match &node.value {
            Value::Mapping(_) => self.fields(schema, node, at),
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = extend(at.path, &index.to_string());
                    let what = if schema["items"]["$ref"] == "#/$defs/StepSpec" { "step" } else { "item" };
                    let subject = format!("{what} {} of {}", index + 1, at.subject);
                    // A list in braces has its own place; one made of dashes points at its first word.
                    let anchor = first_place(item);
                    self.value(&schema["items"], item, &At { path: &path, subject: &subject, anchor: &anchor, model: None });
                }
            }
            Value::Text(text) => self.quantity(schema, text, node, at),
            Value::Number(number) => self.range(schema, number, node, at),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Whether a number lies in its range; that of its Rust type is given as a `format`.
    fn range(&mut self, schema: &Json, number: &serde_json::Number, node: &Node, at: &At<'_>) {
        let of_type: Option<(i64, i64)> = match schema["format"].as_str() {
            Some("uint8") => Some((0, u8::MAX.into())),
            Some("uint16") => Some((0, u16::MAX.into())),
            Some("uint32") => Some((0, u32::MAX.into())),
            Some("int32") => Some((i32::MIN.into(), i32::MAX.into())),
            _ => None,
        };
        let least =
            if schema["minimum"].is_null() { of_type.map_or(Json::Null, |(least, _)| least.into()) } else { schema["minimum"].clone() };
        let most =
            if schema["maximum"].is_null() { of_type.map_or(Json::Null, |(_, most)| most.into()) } else { schema["maximum"].clone() };
        let value = number.as_f64().unwrap_or_default();
        if least.as_f64().is_none_or(|least| value >= least) && most.as_f64().is_none_or(|most| value <= most) {
            return;
        }
        let range = match (least.is_null(), most.is_null()) {
            (false, false) => format!("from {least} to {most}"),
            (false, true) => format!("{least} or more"),
            _ => format!("at most {most}"),
        };
        let message = format!("{} is {number}, which is out of range", called(at));
        self.found(Mistake::InvalidValue, &node.span, at.path, message, format!("expected {range}"));
    }

    /// True if the value is of the schema's type; else says what was expected.
    fn is_type(&mut self, schema: &Json, node: &Node, at: &At<'_>) -> bool {
        let types: Vec<&str> = match &schema["type"] {
            Json::String(one) => vec![one.as_str()],
            Json::Array(many) => many.iter().filter_map(Json::as_str).collect(),
            _ => return true,
        };
        let fits = types.iter().any(|&name| match (&node.value, name) {
            (Value::Null, "null")
            | (Value::Bool(_), "boolean")
            | (Value::Number(_), "number")
            | (Value::Text(_), "string")
            | (Value::Sequence(_), "array")
            | (Value::Mapping(_), "object") => true,
            (Value::Number(number), "integer") => number.is_i64() || number.is_u64(),
            _ => false,
        });
        // `deadline:` with nothing behind it is a forgotten value, although the field may be left out.
        let forgotten = matches!(node.value, Value::Null) && types.contains(&"null");
        if fits && !forgotten {
            return true;
        }
        let format = schema["format"].as_str();
        let wanted = types.iter().find(|&&name| name != "null").copied().unwrap_or("null");
        let expected = match (wanted, format) {
            ("string", Some(DURATION_FORMAT)) => "a duration",
            ("string", Some(SIZE_FORMAT)) => "a size",
            ("string", Some(RATE_FORMAT)) => "a rate",
            ("string", _) => "text",
            ("integer", _) => "a whole number",
            ("number", _) => "a number",
            ("boolean", _) => "`true` or `false`",
            ("array", _) => "a list",
            ("object", _) => "a group of fields",
            _ => "nothing",
        };
        let empty = matches!(node.value, Value::Null);
        let span = if empty && at.anchor.len() > node.span.len() { at.anchor } else { &node.span };
        let message = if empty {
            format!("{} is empty where {expected} is expected", called(at))
        } else {
            // A password may be all digits.
            let there = if format == Some(TEMPLATE_FORMAT) && matches!(node.value, Value::Number(_)) {
                "a number".to_owned()
            } else {
                node.describe()
            };
            format!("{} is {there} where {expected} is expected", called(at))
        };
        let help = match (wanted, format, &node.value) {
            (_, Some(DURATION_FORMAT), _) => Some("write a duration with its unit, such as `16h`, `30s`, `250ms` or `1h30m`".to_owned()),
            (_, Some(SIZE_FORMAT), _) => Some("write a size with its unit, such as `512KiB`, `4MiB` or `1GB`".to_owned()),
            (_, Some(RATE_FORMAT), _) => Some("write how much in a second, such as `20MiB/s`".to_owned()),
            (_, Some(TEMPLATE_FORMAT), _) => Some("write text in quotes; secrets by reference only, such as `${env:NAME}`".to_owned()),
            ("string", _, Value::Number(_) | Value::Bool(_)) => Some("write it in quotes to make it text".to_owned()),
            ("array", _, Value::Null) => Some("write `[]` for an empty list, or leave the field out".to_owned()),
            (_, _, Value::Null) => Some("give it a value, or leave the field out if it is not required".to_owned()),
            ("array", _, _) => Some("write a list: `[a, b]`, or each item on a line of its own after `- `".to_owned()),
            _ => None,
        };
        self.found(Mistake::WrongType, &span.clone(), at.path, message, format!("expected {expected}")).help = help;
        false
    }

    /// A choice between schemas: an enum with documented values, an option, a tagged enum.
    fn branches(&mut self, branches: &'a [Json], node: &Node, at: &At<'_>) {
        let constants: Vec<&str> = branches
            .iter()
            .flat_map(|branch| {
                branch["const"].as_str().into_iter().chain(branch["enum"].as_array().into_iter().flatten().filter_map(Json::as_str))
            })
            .collect();
        let solid: Vec<&'a Json> = branches.iter().filter(|branch| branch["type"] != "null").collect();
        if !constants.is_empty() && solid.iter().all(|branch| !branch["const"].is_null() || !branch["enum"].is_null()) {
            return self.choice(&constants, node, at);
        }
        let mut best: Option<Vec<Finding>> = None;
        for branch in solid {
            let mut walk = Walk { root: self.root, findings: Vec::new() };
            walk.value(branch, node, at);
            if walk.findings.is_empty() {
                return;
            }
            if best.as_ref().is_none_or(|least| walk.findings.len() < least.len()) {
                best = Some(walk.findings);
            }
        }
        self.findings.extend(best.unwrap_or_default());
    }

    fn choice(&mut self, valid: &[&str], node: &Node, at: &At<'_>) {
        let message = match node.text() {
            Some(text) if valid.contains(&text) => return,
            Some(text) => format!("{} can't be `{text}`", called(at)),
            None => format!("{} is {} where a word is expected", called(at), node.describe()),
        };
        let near = node.text().and_then(|text| nearest(text, valid.iter().copied())).map(str::to_owned);
        let finding = self.found(Mistake::InvalidValue, &node.span, at.path, message, "not one of the valid words");
        finding.nearest = near;
        finding.valid = valid.iter().map(|&word| word.to_owned()).collect();
    }

    fn quantity(&mut self, schema: &Json, text: &str, node: &Node, at: &At<'_>) {
        let result: Result<(), QuantityError> = match schema["format"].as_str() {
            Some(DURATION_FORMAT) => text.parse::<HumanDuration>().map(|_| ()),
            Some(SIZE_FORMAT) => text.parse::<HumanSize>().map(|_| ()),
            Some(RATE_FORMAT) => text.parse::<HumanRate>().map(|_| ()),
            _ => return,
        };
        if let Err(error) = result {
            let finding = self.found(
                Mistake::InvalidQuantity,
                &node.span,
                at.path,
                format!("{}: {error}", called(at)),
                format!("expected a {}", error.what),
            );
            finding.help = Some(error.help().to_owned());
        }
    }

    fn fields(&mut self, schema: &'a Json, node: &Node, at: &At<'_>) {
        static NO_PROPERTIES: std::sync::LazyLock<serde_json::Map<String, Json>> = std::sync::LazyLock::new(serde_json::Map::new);
        let properties = schema["properties"].as_object().unwrap_or(&NO_PROPERTIES);
        let subject = subject(at, node);
        for entry in node.entries() {
            let path = extend(at.path, &entry.key);
            let inner = At { path: &path, subject: &field_subject(&entry.key, &subject, at), anchor: &entry.key_span, model: None };
            if let Some(property) = properties.get(&entry.key) {
                self.value(property, &entry.value, &inner);
            } else if schema["additionalProperties"].is_object() {
                let subject = format!("`{}`", entry.key);
                self.value(&schema["additionalProperties"], &entry.value, &At { subject: &subject, ..inner });
            } else if schema["additionalProperties"] == false {
                let valid: Vec<String> = properties.keys().cloned().collect();
                let near = nearest(&entry.key, properties.keys().map(String::as_str)).map(str::to_owned);
                let (word, label) = if at.model == Some("Stages") { ("stage", "no such stage") } else { ("field", "no such field") };
                let message = if word == "stage" {
                    format!("unknown stage `{}`", entry.key)
                } else {
                    format!("unknown field `{}` in {subject}", entry.key)
                };
                let finding = self.found(Mistake::UnknownField, &entry.key_span, &path, message, label);
                finding.help = valid.is_empty().then(|| "no field can stand here; remove it".to_owned());
                finding.nearest = near;
                finding.valid = valid;
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if node.field(name).is_none() {
                let about = properties.get(name).and_then(|property| property["description"].as_str());
                let anchor = if at.anchor.is_empty() { first_place(node) } else { at.anchor.clone() };
                let finding = self.found(
                    Mistake::MissingField,
                    &anchor,
                    at.path,
                    format!("{subject} lacks the field `{name}`"),
                    format!("`{name}` is missing here"),
                );
                finding.help = about.map(|about| format!("`{name}`: {}", about.replace('\n', " ")));
            }
        }
    }
}

/// How a value is called where it stands as a field: by the field's name.
fn called(at: &At<'_>) -> String {
    match at.path.last() {
        Some(name) if name.parse::<usize>().is_err() => format!("`{name}`"),
        _ => at.subject.to_owned(),
    }
}

/// How a field is called; a stage needs no "of `stages` of the playbook".
fn field_subject(name: &str, subject: &str, at: &At<'_>) -> String {
    if at.model == Some("Stages") { format!("`{name}`") } else { format!("`{name}` of {subject}") }
}

/// How a group of fields is called.
fn subject(at: &At<'_>, node: &Node) -> String {
    match (at.model, at.path.last()) {
        (Some("Store"), Some(name)) => format!("store `{name}`"),
        (Some("StepSpec"), _) => node.field_text("id").map_or_else(|| at.subject.to_owned(), |(id, _)| format!("step `{id}`")),
        _ => at.subject.to_owned(),
    }
}

/// Where a value begins to be visible: mappings written with indentation have no place of their own.
fn first_place(node: &Node) -> Range<usize> {
    match &node.value {
        _ if !node.span.is_empty() => node.span.clone(),
        Value::Mapping(entries) => entries.first().map_or_else(|| node.span.clone(), |entry| entry.key_span.clone()),
        Value::Sequence(items) => items.first().map_or_else(|| node.span.clone(), first_place),
        _ => node.span.clone(),
    }
}

fn extend(path: &[String], name: &str) -> Vec<String> {
    path.iter().cloned().chain(std::iter::once(name.to_owned())).collect()
}
