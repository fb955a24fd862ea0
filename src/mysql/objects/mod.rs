//! Views, routines, triggers and events: what a schema holds beside its tables.
//!
//! # What must hold
//!
//! * *Carried or named.* Every object that the playbook selects is created on the target from the source's own text, or stops the
//!   step with its name and the server's words, or was left behind by the playbook (`objects: leave`, `exclude`) and is listed as
//!   not carried. Whatever dbmove had to change is listed with a rule's name.
//! * *An object means the same there.* A body is bytes in the charset of whoever wrote it, and is read under the `sql_mode`, the
//!   charset, the collation and (events) the time zone it was made under. All of these are set in the session that creates it, and
//!   what the target then says of it is read back and compared.
//! * *No effect twice.* The rows that a trigger or event writes are in the source's binary log, so until the switch neither may
//!   exist on the target. Both are tried out while the schema is prepared (created and dropped at once, before any row is there), so
//!   that what the target refuses shows before the night. Triggers are created when following has ended; events too, but disabled:
//!   one that ran before the switch would leave something behind if the cutover was then undone. `mysql.disconnect` enables them.
//! * *Undone without a trace, done once.* An object is noted in `_dbmove.created_object` before it is created; undo drops what is
//!   noted and nothing else. After a crash a noted object without the hash of its end state is dropped and created again.
//!
//! A name is selected as a table's is: a routine or event moves if `include` and `exclude` say so of `database.name`, a trigger if
//! its table moves and `exclude` doesn't name it.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`read`] | the objects a server lists, and one object as the server prints it |
//! | [`rewrite`] | what is changed in an object's text, by named rules |
//! | [`create`] | one object on the target, under the settings it was made under |
//! | [`bring`] | all of some kinds: in order, noted, tried out, dropped again |
//! | [`compare`] | whether they still are on the target what dbmove made there |
//! | [`notes`] | what dbmove has created, on the target |

pub mod bring;
pub mod compare;
pub mod create;
pub mod notes;
pub mod read;
pub mod rewrite;

use super::catalog::{Catalog, ObjectKind, OtherObject};
use super::ddl::NotCarried;
use super::names::Selection;
use crate::playbook::model::ObjectsOption;

/// Made before the rows are there: nothing writes to the target through them.
pub const BEFORE_THE_ROWS: [ObjectKind; 3] = [ObjectKind::Function, ObjectKind::Procedure, ObjectKind::View];

/// Made when following has ended: they act by themselves.
pub const AT_THE_SWITCH: [ObjectKind; 2] = [ObjectKind::Trigger, ObjectKind::Event];

/// How an object is called in messages.
#[must_use]
pub fn named(object: &OtherObject) -> String {
    format!("{} `{}.{}`", object.kind, object.database, object.name)
}

/// What SQL calls such an object; `None` if dbmove does not move it.
#[must_use]
pub fn word(kind: ObjectKind) -> Option<&'static str> {
    Some(match kind {
        ObjectKind::View => "VIEW",
        ObjectKind::Procedure => "PROCEDURE",
        ObjectKind::Function => "FUNCTION",
        ObjectKind::Trigger => "TRIGGER",
        ObjectKind::Event => "EVENT",
        ObjectKind::Sequence | ObjectKind::Package => return None,
    })
}

/// Whether dbmove knows how to move objects of this kind.
#[must_use]
pub fn is_moved(kind: ObjectKind) -> bool {
    word(kind).is_some()
}

/// Whether the playbook selects it; its table has to be selected too, if it is a trigger's.
#[must_use]
pub fn selects(selection: &Selection, object: &OtherObject) -> bool {
    match object.kind {
        ObjectKind::Trigger => !selection.excludes(&object.database, &object.name),
        _ => selection.contains(&object.database, &object.name),
    }
}

/// What of the source's objects the target will not have, and why.
#[must_use]
pub fn left_behind(catalog: &Catalog, selection: &Selection, option: ObjectsOption) -> Vec<NotCarried> {
    let why = |object: &OtherObject| {
        if !is_moved(object.kind) {
            Some(format!("dbmove does not carry a {}: create it on the target by hand after the switch", object.kind))
        } else if option == ObjectsOption::Leave {
            Some("the playbook says `objects: leave`".to_owned())
        } else if !selects(selection, object) {
            Some("`include` does not name it, or `exclude` does".to_owned())
        } else {
            None
        }
    };
    let left = catalog.others.iter().filter_map(|object| why(object).map(|why| (object, why)));
    left.map(|(object, why)| NotCarried { kind: object.kind.to_string(), name: format!("{}.{}", object.database, object.name), why })
        .collect()
}
