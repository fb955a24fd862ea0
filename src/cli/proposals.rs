//! Commands that are proposed, as they have to be typed here.
//!
//! Report and engine know neither that `--state-dir` was typed nor, where they keep words in the journal, how the playbook is called. A command
//! that is copied without the one would work on another journal, in which there is no run to settle. So whatever proposes commands goes through here
//! before it is shown. A directory that comes from the environment is not added: the next command has it too.

use std::ffi::OsString;
use std::path::Path;

use super::answer::Refusal;
use crate::report::held::Held;
use crate::report::model::Report;
use crate::report::next::{in_commands, playbook_word, shell_word, with_playbook};
use crate::report::status::RunStatus;

/// Commands that are whole without a further word.
const WHOLE: [&str; 3] = ["status", "report", "audit"];
/// Commands that have no journal.
const WITHOUT_A_JOURNAL: [&str; 3] = ["playbook", "demo", "completions"];

/// What was typed, as far as other commands have to repeat it.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    line: Vec<String>,
    state_directory: Option<String>,
    playbook: Option<String>,
}

impl Typed {
    /// The words behind the program's name; `--state-dir`, if it is among them; and the playbook that they name.
    #[must_use]
    pub fn new(line: impl IntoIterator<Item = OsString>, state_directory: Option<&Path>, playbook: Option<&Path>) -> Typed {
        Typed {
            // Who gives the go-ahead need not be asked, and was not to be.
            line: line.into_iter().filter(|word| word != "--no-input").map(|word| shell_word(&word.to_string_lossy())).collect(),
            state_directory: state_directory.map(|directory| shell_word(&directory.display().to_string())),
            playbook: playbook.map(|playbook| playbook_word("", Some(playbook))),
        }
    }

    /// The command that was typed, word by word, with the go-ahead.
    #[must_use]
    pub fn with_go_ahead(&self) -> String {
        format!("dbmove {} --yes", self.line.join(" "))
    }

    /// A command, as it has to be typed here.
    #[must_use]
    pub fn command(&self, command: &str) -> String {
        let mut words = command.split(' ').skip_while(|word| *word == "dbmove");
        let name = words.next().unwrap_or_default();
        match &self.state_directory {
            Some(directory) if !WITHOUT_A_JOURNAL.contains(&name) && !command.contains("--state-dir") => {
                format!("{command} --state-dir {directory}")
            }
            _ => command.to_owned(),
        }
    }

    /// The same of several.
    #[must_use]
    pub fn commands(&self, commands: &[String]) -> Vec<String> {
        commands.iter().map(|command| self.command(command)).collect()
    }

    /// A text, with the commands that it proposes as they have to be typed here. One that only has its name there is no proposal.
    #[must_use]
    pub fn words(&self, text: &str) -> String {
        let text = self.playbook.as_ref().map_or_else(|| text.to_owned(), |playbook| with_playbook(text, playbook));
        in_commands(&text, |command| {
            let mut words = command.split(' ').skip(1);
            let whole = words.next().is_some_and(|name| WHOLE.contains(&name)) || words.next().is_some_and(|word| !word.starts_with('-'));
            if whole { self.command(command) } else { command.to_owned() }
        })
    }

    /// A refusal.
    #[must_use]
    pub fn refusal(&self, refusal: Refusal) -> Refusal {
        Refusal {
            message: self.words(&refusal.message),
            hint: refusal.hint.map(|hint| self.words(&hint)),
            next: self.commands(&refusal.next),
            ..refusal
        }
    }

    /// What is said of held writes.
    #[must_use]
    pub fn held(&self, held: &Held) -> Held {
        Held { asked: self.words(&held.asked), left: self.words(&held.left) }
    }

    /// A report.
    pub fn report(&self, report: &mut Report) {
        report.next = self.commands(&report.next);
        report.verdict.sentence = self.words(&report.verdict.sentence);
        report.verdict.hint = report.verdict.hint.as_ref().map(|hint| self.words(hint));
    }

    /// A run's status.
    pub fn status(&self, status: &mut RunStatus) {
        status.next = self.commands(&status.next);
        status.sentence = self.words(&status.sentence);
        status.rollback = self.command(&status.rollback);
        status.undo = self.command(&status.undo);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &[&str], state_directory: Option<&str>) -> Typed {
        Typed::new(line.iter().map(OsString::from), state_directory.map(Path::new), Some(Path::new("shop.yaml")))
    }

    #[test]
    fn what_was_typed_is_typed_again() {
        let line = ["cutover", "shop.yaml", "--no-input", "--without-rehearsal", "it's late"];
        assert_eq!(typed(&line, None).with_go_ahead(), r"dbmove cutover shop.yaml --without-rehearsal 'it'\''s late' --yes");
    }

    #[test]
    fn the_state_directory_goes_with_what_reads_a_journal() {
        let here = typed(&[], Some("/srv/the shop"));
        for (command, expected) in [
            ("dbmove cutover shop.yaml", "dbmove cutover shop.yaml --state-dir '/srv/the shop'"),
            ("dbmove ctl shop.yaml resume", "dbmove ctl shop.yaml resume --state-dir '/srv/the shop'"),
            ("dbmove playbook list", "dbmove playbook list"),
            ("dbmove undo shop.yaml --state-dir other", "dbmove undo shop.yaml --state-dir other"),
        ] {
            assert_eq!(here.command(command), expected);
            assert_eq!(typed(&[], None).command(command), command);
        }
    }

    #[test]
    fn words_keep_everything_but_the_commands_they_propose() {
        let text = "`db`.`t` differs; `dbmove undo` was begun, `dbmove assess --try` too. `dbmove status` names it, `dbmove verify PLAYBOOK --repair` copies `PLAYBOOK` again";
        assert_eq!(
            typed(&[], Some("s")).words(text),
            "`db`.`t` differs; `dbmove undo` was begun, `dbmove assess --try` too. `dbmove status --state-dir s` names it, `dbmove verify shop.yaml --repair --state-dir s` copies \
             `PLAYBOOK` again"
        );
        let nothing_named = Typed::new([], None, None);
        assert_eq!(nothing_named.words(text), text);
        assert_eq!(nothing_named.words("`dbmove und"), "`dbmove und");
    }
}
