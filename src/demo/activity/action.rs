//! The things users do, by name, and how often each is done.

use super::super::dice::Dice;

macro_rules! actions {
    ($($(#[doc = $doc:literal])+ $variant:ident, $name:literal, $weight:literal;)+) => {
        /// Something a user does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action { $($(#[doc = $doc])+ $variant,)+ }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Action] = &[$(Action::$variant),+];

            /// Its name in counts.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Action::$variant => $name),+ }
            }

            /// How often it is chosen, relative to the others.
            fn weight(self) -> u64 {
                match self { $(Action::$variant => $weight),+ }
            }
        }
    };
}

actions! {
    /// A row with latin1 and utf8 text.
    StudentJoins, "student_joins", 4;
    /// NULL and '' take turns.
    StudentChanges, "student_changes", 4;
    /// A student and all their enrolments go; the key is free.
    StudentLeaves, "student_leaves", 3;
    /// A freed key is used again, or a row is deleted and inserted in one transaction.
    StudentReturns, "student_returns", 3;
    /// Two students swap their unique e-mail addresses.
    EmailsSwap, "emails_swap", 4;
    /// A row with a composite key.
    EnrolmentBegins, "enrolment_begins", 5;
    /// A composite key changes.
    EnrolmentMoves, "enrolment_moves", 5;
    /// It goes.
    EnrolmentEnds, "enrolment_ends", 3;
    /// One statement, many rows.
    CourseProgresses, "course_progresses", 1;
    /// Floats, ENUM, SET, YEAR, BIT.
    CourseChanges, "course_changes", 4;
    /// A blob of up to 40 KB.
    WorkHandedIn, "work_handed_in", 4;
    /// Another blob in its place.
    WorkRevised, "work_revised", 3;
    /// It goes.
    WorkWithdrawn, "work_withdrawn", 3;
    /// INSERT … ON DUPLICATE KEY UPDATE on a second unique key.
    GradeGiven, "grade_given", 5;
    /// Only a DECIMAL changes.
    GradeCorrected, "grade_corrected", 4;
    /// It goes.
    GradeStruck, "grade_struck", 2;
    /// MyISAM: no transaction.
    PageHit, "page_hit", 5;
    /// Likewise.
    PageCounted, "page_counted", 4;
    /// Likewise.
    PageForgotten, "page_forgotten", 2;
    /// Keyless rows, some of them doubles.
    AuditWritten, "audit_written", 5;
    /// One of several equal rows changes.
    AuditAmended, "audit_amended", 3;
    /// One of several equal rows goes.
    AuditForgotten, "audit_forgotten", 3;
    /// Parent, child and grandchild in one transaction.
    ForumOpens, "forum_opens", 2;
    /// Child and grandchild.
    PostWritten, "post_written", 5;
    /// The child changes its parent.
    PostMoves, "post_moves", 2;
    /// One cascade.
    PostRemoved, "post_removed", 2;
    /// Two cascades, none of them in the log.
    ForumCloses, "forum_closes", 1;
    /// A text key changes in case only.
    SettingRecased, "setting_recased", 3;
    /// A row under a text key is written, or rewritten.
    SettingWritten, "setting_written", 3;
    /// A text key goes, and comes back in another case in the same transaction.
    SettingReplaced, "setting_replaced", 2;
    /// A key of either half of the unsigned range.
    DeviceAppears, "device_appears", 3;
    /// Such a key changes.
    DeviceChanges, "device_changes", 3;
    /// Such a key goes.
    DeviceVanishes, "device_vanishes", 2;
}

impl Action {
    /// One of them, by weight.
    pub(in crate::demo) fn choose(dice: &mut Dice) -> Action {
        let mut drawn = dice.below(Action::ALL.iter().map(|action| action.weight()).sum());
        for &action in Action::ALL {
            match drawn.checked_sub(action.weight()) {
                Some(rest) => drawn = rest,
                None => return action,
            }
        }
        Action::StudentJoins
    }
}
