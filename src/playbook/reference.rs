//! `${kind:rest}` references in a playbook's texts.
//!
//! | written | gives |
//! | --- | --- |
//! | `${env:NAME}` | an environment variable of dbmove |
//! | `${file:/absolute/or/relative/path}` | a file's content without its last line end |
//! | `${exec:command argument 'one argument'}` | what a command prints, without its last line end |
//! | `${step:ID.output}` | what an earlier step left behind |
//! | `$${` | the characters `${` |
//!
//! A `$` before anything but `{` stands for itself. References do not nest.
//!
//! A command is run without a shell. Its words are split at blanks; `'…'` and `"…"` hold a word
//! together; within `"…"` a backslash takes `"` or `\` literally, and everywhere else it is a
//! backslash. No variables, no globs, no pipes: what needs those is a script. A `}` inside quotes
//! does not end the reference.
//!
//! Nothing is resolved on loading. [`Template::resolve_secret`] and [`Template::resolve_text`]
//! resolve at use, and what they find never gets into an error message.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::zeroize::Zeroizing;
use secrecy::{SecretBox, SecretString};

use super::known;
use super::model::Template;
use super::secret::{self, ReferenceError};

/// The `format` that marks a text with references in the JSON Schema.
pub(crate) const TEMPLATE_FORMAT: &str = "dbmove-template";

/// The kinds of reference.
pub const KINDS: [&str; 4] = ["env", "file", "exec", "step"];

/// One piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Stands for itself.
    Text(String),
    /// Is resolved at use.
    Reference(Reference),
}

/// What a `${…}` refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An environment variable.
    Environment(String),
    /// A file's content.
    File(PathBuf),
    /// A command's output: the program and its arguments, at least one word.
    Command(Vec<String>),
    /// An output of an earlier step.
    StepOutput {
        /// The step's id.
        step: String,
        /// The output's name.
        output: String,
    },
}

/// A text whose references can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// How it is written.
    pub help: String,
    /// The bytes of the text it is about.
    pub span: Range<usize>,
}

/// Where references lead: this process's environment and files, and the outputs of earlier steps.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    outputs: Arc<BTreeMap<String, BTreeMap<String, serde_json::Value>>>,
    limits: secret::Limits,
}

impl Resolver {
    /// With the outputs of earlier steps, by step id and output name.
    #[must_use]
    pub fn new(outputs: Arc<BTreeMap<String, BTreeMap<String, serde_json::Value>>>) -> Self {
        Resolver { outputs, limits: secret::Limits::default() }
    }
    /// With other limits for files and commands.
    #[must_use]
    pub fn limits(mut self, limits: secret::Limits) -> Self {
        self.limits = limits;
        self
    }

    async fn resolve(&self, reference: &Reference) -> Result<Zeroizing<String>, ReferenceError> {
        match reference {
            Reference::Environment(name) => secret::environment(name),
            Reference::File(path) => secret::file(path, self.limits).await,
            Reference::Command(words) => secret::command(words, self.limits).await,
            Reference::StepOutput { step, output } => self.output(step, output).map(Zeroizing::new),
        }
    }

    fn output(&self, step: &str, output: &str) -> Result<String, ReferenceError> {
        let Some(outputs) = self.outputs.get(step) else {
            return Err(ReferenceError::NoSuchStep { step: step.to_owned(), output: output.to_owned() });
        };
        match outputs.get(output) {
            Some(serde_json::Value::String(text)) => Ok(text.clone()),
            Some(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => Ok(value.to_string()),
            Some(_) => Err(ReferenceError::NotText { step: step.to_owned(), output: output.to_owned() }),
            None => Err(ReferenceError::NoSuchOutput {
                step: step.to_owned(),
                output: output.to_owned(),
                there: outputs.keys().cloned().collect(),
            }),
        }
    }
}

impl Template {
    /// The text's pieces.
    ///
    /// # Errors
    /// If a `${…}` is not closed, of no known kind, or incomplete.
    pub fn parse(&self) -> Result<Vec<Piece>, TemplateError> {
        parse(&self.0).map(|pieces| pieces.into_iter().map(|(piece, _)| piece).collect())
    }

    /// The text with all references resolved, as a secret.
    ///
    /// # Errors
    /// If a reference can't be resolved, or the secret is empty. The message never holds what was found.
    pub async fn resolve_secret(&self, resolver: &Resolver) -> Result<SecretString, ReferenceError> {
        let text = self.resolve(resolver, known::found).await?;
        if text.is_empty() {
            return Err(ReferenceError::Empty { reference: self.0.clone() });
        }
        Ok(SecretBox::new(text.as_str().into()))
    }

    /// The text with all references resolved, for what is not secret (addresses, file contents).
    ///
    /// # Errors
    /// If a reference can't be resolved. The message never holds what was found.
    pub async fn resolve_text(&self, resolver: &Resolver) -> Result<String, ReferenceError> {
        Ok(self.resolve(resolver, |_, _| {}).await?.as_str().to_owned())
    }

    /// The text with all references resolved, and by itself each value that may be a secret: whoever sends it on keeps these from what
    /// comes back. Outputs of steps are none; they are kept in the journal.
    ///
    /// # Errors
    /// As [`Template::resolve_secret`].
    pub async fn resolve_with_secrets(&self, resolver: &Resolver) -> Result<(SecretString, Vec<SecretString>), ReferenceError> {
        let mut text = Zeroizing::new(String::new());
        let mut secrets = Vec::new();
        for piece in self.parse()? {
            match piece {
                Piece::Text(plain) => text.push_str(&plain),
                Piece::Reference(reference) => {
                    let value = resolver.resolve(&reference).await?;
                    known::found(&reference, &value);
                    text.push_str(&value);
                    if !matches!(reference, Reference::StepOutput { .. }) {
                        secrets.push(SecretBox::new(value.as_str().into()));
                    }
                }
            }
        }
        if text.is_empty() {
            return Err(ReferenceError::Empty { reference: self.0.clone() });
        }
        Ok((SecretBox::new(text.as_str().into()), secrets))
    }

    async fn resolve(&self, resolver: &Resolver, found: impl Fn(&Reference, &str)) -> Result<Zeroizing<String>, ReferenceError> {
        let mut text = Zeroizing::new(String::new());
        for piece in self.parse()? {
            match piece {
                Piece::Text(plain) => text.push_str(&plain),
                Piece::Reference(reference) => {
                    let value = resolver.resolve(&reference).await?;
                    found(&reference, &value);
                    text.push_str(&value);
                }
            }
        }
        Ok(text)
    }
}

/// The pieces with the bytes they stand in.
pub(crate) fn parse(text: &str) -> Result<Vec<(Piece, Range<usize>)>, TemplateError> {
    let mut pieces: Vec<(Piece, Range<usize>)> = Vec::new();
    let (mut plain, mut plain_start, mut at) = (String::new(), 0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("$${") {
            plain.push_str("${");
            at += 3;
        } else if rest.starts_with("${") {
            if !plain.is_empty() {
                pieces.push((Piece::Text(std::mem::take(&mut plain)), plain_start..at));
            }
            let length = reference_length(rest).ok_or_else(|| TemplateError {
                message: "a `${` is not closed by `}`".to_owned(),
                help: if rest.starts_with("${exec:") && rest.contains('}') {
                    "a quote in the command is not closed; quotes hold one argument together: `'one argument'`".to_owned()
                } else {
                    "references look like `${env:NAME}`; write `$${` for the characters `${` themselves".to_owned()
                },
                span: at..text.len(),
            })?;
            let span = at..at + length;
            let reference = reference(&rest[2..length - 1], span.clone())?;
            pieces.push((Piece::Reference(reference), span));
            at += length;
            plain_start = at;
        } else {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            plain.push_str(&rest[..next]);
            at += next;
        }
    }
    if !plain.is_empty() {
        pieces.push((Piece::Text(plain), plain_start..at));
    }
    Ok(pieces)
}

/// How long the reference at the start of `rest` is, its `${` and `}` included. Quotes of a command may hold a `}`.
fn reference_length(rest: &str) -> Option<usize> {
    if !rest.starts_with("${exec:") {
        return rest.find('}').map(|end| end + 1);
    }
    let (mut quote, mut escaped) = (None, false);
    for (offset, c) in rest.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '}') => return Some(offset + 1),
            _ => {}
        }
    }
    None
}

fn reference(inside: &str, span: Range<usize>) -> Result<Reference, TemplateError> {
    let error = |message: String, help: String| Err(TemplateError { message, help, span: span.clone() });
    let Some((kind, rest)) = inside.split_once(':') else {
        // Only what looks like a name is repeated: the rest may be a pasted secret.
        let help = if !inside.is_empty() && inside.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && inside.len() <= 64 {
            format!("write `${{env:{inside}}}` for the environment variable, or `$${{` for the characters `${{` themselves")
        } else {
            "references look like `${env:NAME}`, `${file:PATH}`, `${exec:COMMAND}`, `${step:ID.OUTPUT}`".to_owned()
        };
        return error("a `${…}` has no kind".to_owned(), help);
    };
    match kind {
        "env" => {
            let mut characters = rest.chars();
            let starts = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !starts || !characters.all(|c| c.is_ascii_alphanumeric() || c == '_') {
                return error(
                    "`${env:…}` names no environment variable".to_owned(),
                    "write `${env:NAME}`: letters, digits and `_`, no digit first".to_owned(),
                );
            }
            Ok(Reference::Environment(rest.to_owned()))
        }
        "file" if rest.is_empty() || rest.contains('\0') => {
            error("`${file:…}` names no file".to_owned(), "write `${file:/path/to/file}`".to_owned())
        }
        "file" => Ok(Reference::File(PathBuf::from(rest))),
        "exec" => match split_words(rest) {
            Ok(words) if !words.is_empty() && !words[0].is_empty() => Ok(Reference::Command(words)),
            Ok(_) => error("`${exec:…}` names no command".to_owned(), "write `${exec:command argument}`".to_owned()),
            Err(quote) => {
                error(format!("a {quote} in `${{exec:…}}` is not closed"), "quotes hold one argument together: `'one argument'`".to_owned())
            }
        },
        "step" => match rest.split_once('.') {
            Some((step, output)) if is_name(step) && !output.is_empty() => {
                Ok(Reference::StepOutput { step: step.to_owned(), output: output.to_owned() })
            }
            _ => error(
                "`${step:…}` names no output of a step".to_owned(),
                "write `${step:ID.OUTPUT}`, such as `${step:assess.server}`".to_owned(),
            ),
        },
        _ => {
            let near = super::nearest::nearest(kind, KINDS);
            let meant = near.map(|near| format!("did you mean `${{{near}:…}}`? ")).unwrap_or_default();
            let shown: String = kind.chars().take(24).collect();
            error(
                format!("there is no kind of reference `{shown}`"),
                format!("{meant}kinds are `env`, `file`, `exec` and `step`; write `$${{` for the characters `${{` themselves"),
            )
        }
    }
}

/// The words of a command, by the rules in the module's comment; the quote that is not closed as the error.
fn split_words(text: &str) -> Result<Vec<String>, char> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"'), '\\') if matches!(characters.peek(), Some('"' | '\\')) => {
                word.get_or_insert_default().extend(characters.next());
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.map_or(Ok(words), Err)
}

/// Whether a text is a name as playbooks, stores and steps have them: letters, digits, `-` and `_`.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<Piece> {
        Template(text.to_owned()).parse().unwrap()
    }

    #[test]
    fn reads_every_kind() {
        assert_eq!(pieces("plain $1 {x}"), [Piece::Text("plain $1 {x}".to_owned())]);
        assert_eq!(
            pieces("a${env:HOST}b"),
            [Piece::Text("a".into()), Piece::Reference(Reference::Environment("HOST".into())), Piece::Text("b".into())]
        );
        assert_eq!(pieces("${file:/run/secrets/x}"), [Piece::Reference(Reference::File("/run/secrets/x".into()))]);
        assert_eq!(
            pieces("${step:provision.endpoint}"),
            [Piece::Reference(Reference::StepOutput { step: "provision".into(), output: "endpoint".into() })]
        );
        assert_eq!(pieces("$${env:X}"), [Piece::Text("${env:X}".into())]);
        assert_eq!(pieces(""), []);
    }

    #[test]
    fn commands_split_without_a_shell() {
        let words = |text: &str| match &pieces(text)[..] {
            [Piece::Reference(Reference::Command(words))] => words.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(words("${exec:pass show  db}"), ["pass", "show", "db"]);
        assert_eq!(words("${exec:jq '{a}' \"b c\" d'e f'}"), ["jq", "{a}", "b c", "de f"]);
        assert_eq!(words(r#"${exec:x "a\"b\\" c\d ''}"#), ["x", "a\"b\\", "c\\d", ""]);
        assert_eq!(words("${exec:x $HOME *}"), ["x", "$HOME", "*"]);
    }

    #[test]
    fn broken_references_are_placed() {
        for (text, message, span) in [
            ("ab${env:X", "a `${` is not closed by `}`", 2..9),
            ("${HOME}", "a `${…}` has no kind", 0..7),
            ("é${evn:X}", "there is no kind of reference `evn`", 2..10),
            ("${env:1X}", "`${env:…}` names no environment variable", 0..9),
            ("${file:}", "`${file:…}` names no file", 0..8),
            ("${exec: }", "`${exec:…}` names no command", 0..9),
            ("${step:x}", "`${step:…}` names no output of a step", 0..9),
            ("${exec:a 'b}", "a `${` is not closed by `}`", 0..12),
        ] {
            let error = Template(text.to_owned()).parse().unwrap_err();
            assert_eq!((error.message.as_str(), error.span), (message, span), "{text}");
        }
        assert!(Template("${evn:X}".to_owned()).parse().unwrap_err().help.contains("did you mean `${env:…}`?"));
    }

    #[tokio::test]
    async fn step_outputs_resolve_or_say_what_is_there() {
        let outputs = serde_json::from_value(serde_json::json!({"a": {"host": "db", "port": 3306, "list": [1]}})).unwrap();
        let resolver = Resolver::new(Arc::new(outputs));
        let text = async |text: &str| Template(text.to_owned()).resolve_text(&resolver).await;
        assert_eq!(text("${step:a.host}:${step:a.port}").await.unwrap(), "db:3306");
        assert_eq!(text("${step:a.hst}").await.unwrap_err().to_string(), "step `a` left no output `hst`; it left `host`, `list`, `port`");
        assert_eq!(text("${step:b.x}").await.unwrap_err().to_string(), "step `b` has not run, so its output `x` is not known");
        assert!(text("${step:a.list}").await.unwrap_err().to_string().contains("neither text nor a number"));
    }
}
