//! A case as its files say it: read, never guessed. A file that no part of the harness reads is an error.

use std::path::{Path, PathBuf};

use dbmove::local::ServerKind;

/// One directory of `fixtures/cases/`.
pub struct Case {
    pub name: String,
    directory: PathBuf,
    /// The text that a run refuses it with, if it must be refused.
    pub refusal: Option<String>,
}

impl Case {
    /// Those that apply to this pair, by name.
    pub fn all(source: ServerKind, target: ServerKind) -> Vec<Case> {
        let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cases");
        let only = std::env::var("DBMOVE_CASE").ok();
        let mut cases: Vec<Case> = std::fs::read_dir(all)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .map(Case::read)
            .filter(|case| case.applies(source, target))
            .filter(|case| only.as_ref().is_none_or(|words| case.name.contains(words) || case.name.starts_with("int")))
            .collect();
        cases.sort_by(|one, other| one.name.cmp(&other.name));
        cases
    }

    fn read(directory: PathBuf) -> Case {
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        for entry in std::fs::read_dir(&directory).unwrap() {
            let file = entry.unwrap().file_name();
            let known = ["schema.sql", "before.sql", "during.sql", "expect.sql", "expect.tsv", "expect.error", "expect.only"];
            assert!(known.iter().any(|known| file == *known), "`{name}` has a file {} that nothing reads", file.display());
        }
        let case = Case { name, directory, refusal: None };
        let schema = case.file("schema.sql").unwrap_or_else(|| panic!("`{}` has no schema.sql", case.name));
        assert!(schema.starts_with(b"-- "), "the first line of `{}`/schema.sql does not say what it pins", case.name);
        assert_eq!(case.file("expect.sql").is_some(), case.file("expect.tsv").is_some(), "`{}`: a question needs an answer", case.name);
        let refusal = case.file("expect.error").map(|text| String::from_utf8(text).unwrap().trim().to_owned());
        Case { refusal, ..case }
    }

    /// Whether `expect.only`, if there is one, names this source, and this target if it names targets (`to:KIND`).
    fn applies(&self, source: ServerKind, target: ServerKind) -> bool {
        let Some(only) = self.file("expect.only") else { return true };
        let only = String::from_utf8(only).unwrap();
        let words: Vec<&str> = only.split_whitespace().collect();
        for word in &words {
            let kind = word.trim_start_matches("to:");
            assert!(ServerKind::ALL.iter().any(|known| known.cache_name().starts_with(kind)), "`{}`: unknown server {kind}", self.name);
        }
        let (targets, sources): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with("to:"));
        let source_fits = sources.is_empty() || sources.iter().any(|kind| source.cache_name().starts_with(kind));
        source_fits && (targets.is_empty() || targets.iter().any(|kind| target.cache_name().starts_with(&kind[3..])))
    }

    pub fn database(&self) -> String {
        format!("case_{}", self.name)
    }

    /// Whether the database is this case's: its own, or one more that it made, `case_NAME:WORDS`.
    pub fn owns(&self, database: &str) -> bool {
        database.strip_prefix(&self.database()).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// The bytes of a file of the case.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.directory.join(name)).ok()
    }

    /// The statements of a file, each ending with `;` at the end of a line, and the `sql_mode` its header asks for.
    pub fn statements(&self, file: &str) -> (String, Vec<Vec<u8>>) {
        let Some(text) = self.file(file) else { return (String::new(), Vec::new()) };
        let mut mode = String::new();
        let mut statements = vec![Vec::new()];
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(asked) = line.strip_prefix(b"-- sql_mode:") {
                mode = String::from_utf8(asked.to_vec()).unwrap().trim().to_owned();
            }
            if line.starts_with(b"-- ") || line.is_empty() {
                continue;
            }
            let last = statements.last_mut().unwrap();
            last.extend_from_slice(line);
            last.push(b'\n');
            if line.ends_with(b";") {
                last.truncate(last.len() - 2);
                statements.push(Vec::new());
            }
        }
        let rest = statements.pop().unwrap();
        assert!(rest.is_empty(), "`{}`/{file} ends without `;`: {}", self.name, String::from_utf8_lossy(&rest));
        (mode, statements)
    }
}
