//! What the playbook accepts, by id and with a reason: `accept: [{id: no-primary-key, object: "school.log*", reason: "…"}]`.
//!
//! An accepted finding is still shown, with the reason, and refuses nothing. An acceptance that nobody needed is named: it may be
//! a mistyped object, or what it was for is gone. An id that no check has is a mistake in the playbook.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::names::glob;
use super::{Finding, checks};
use crate::playbook::nearest::nearest;
use crate::playbook::vocabulary::ArgumentError;

/// One acceptance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The check's id.
    pub id: String,
    /// The objects it is accepted for, with `*` and `?`; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Why, for whoever reads the report.
    pub reason: String,
}

/// An acceptance that matched nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unused {
    /// The check's id.
    pub id: String,
    /// The objects, as written.
    pub object: Option<String>,
}

/// Whether the acceptances can be used.
///
/// # Errors
/// The first that names no check, a check whose findings can't be accepted, or no reason.
pub fn check(accept: &[Acceptance]) -> Result<(), ArgumentError> {
    for (place, acceptance) in accept.iter().enumerate() {
        let id = &acceptance.id;
        let Some(known) = checks::all().find(|check| check.id == *id) else {
            let ids: Vec<&str> = checks::all().map(|check| check.id).collect();
            let near = nearest(id, ids.iter().copied()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let message = format!("there is no check `{id}` to accept findings of{near}");
            return Err(ArgumentError::field(format!("accept.{place}.id"), message).valid(ids));
        };
        if let Some(why) = known.never_accepted {
            return Err(ArgumentError::field(format!("accept.{place}.id"), format!("what `{id}` finds can't be accepted: {why}")));
        }
        if acceptance.reason.trim().is_empty() {
            return Err(ArgumentError::field(
                format!("accept.{place}.reason"),
                format!("`{id}` is accepted without a reason: say why, for whoever reads the report"),
            ));
        }
    }
    Ok(())
}

/// Marks what is accepted; gives back the acceptances that matched nothing.
pub fn apply(accept: &[Acceptance], findings: &mut [Finding]) -> Vec<Unused> {
    let mut unused = Vec::new();
    for acceptance in accept {
        let mut used = false;
        for finding in findings.iter_mut().filter(|finding| finding.id == acceptance.id) {
            if acceptance.object.as_ref().is_none_or(|pattern| glob(pattern, &finding.object)) {
                finding.accepted.get_or_insert_with(|| acceptance.reason.trim().to_owned());
                used = true;
            }
        }
        if !used {
            unused.push(Unused { id: acceptance.id.clone(), object: acceptance.object.clone() });
        }
    }
    unused
}

#[cfg(test)]
mod tests {
    use super::super::{Evidence, Level};
    use super::*;

    fn acceptance(id: &str, object: Option<&str>, reason: &str) -> Acceptance {
        Acceptance { id: id.to_owned(), object: object.map(str::to_owned), reason: reason.to_owned() }
    }

    fn finding(id: &'static str, object: &str) -> Finding {
        let evidence = Evidence { asked: String::new(), returned: String::new() };
        Finding {
            id,
            level: Level::Error,
            object: object.to_owned(),
            found: String::new(),
            evidence,
            why: "",
            fix: String::new(),
            accepted: None,
        }
    }

    #[test]
    fn what_matches_is_accepted_and_what_matches_nothing_is_named() {
        let mut findings =
            [finding("no-primary-key", "school.a"), finding("no-primary-key", "other.a"), finding("engine-myisam", "school.a")];
        let unused = apply(&[acceptance("no-primary-key", Some("school.*"), " old "), acceptance("zerofill", None, "x")], &mut findings);
        assert_eq!(findings.map(|finding| finding.accepted), [Some("old".to_owned()), None, None]);
        assert_eq!(unused, [Unused { id: "zerofill".to_owned(), object: None }]);
    }

    #[test]
    fn mistakes_are_named() {
        let error = check(&[acceptance("no-primary-kye", None, "x")]).unwrap_err();
        assert!(error.message.contains("did you mean `no-primary-key`?"), "{error}");
        assert_eq!(error.field.as_deref(), Some("accept.0.id"));
        assert!(check(&[acceptance("log-bin", None, "x")]).unwrap_err().message.contains("can't be accepted"));
        assert!(check(&[acceptance("no-primary-key", None, "  ")]).unwrap_err().message.contains("without a reason"));
        assert!(check(&[acceptance("no-primary-key", None, "x")]).is_ok());
    }
}
