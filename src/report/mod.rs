//! From the journal to what people and programs read about a run.
//!
//! Everything here is made from the journal alone, with or without a driver running, so that a report can be made a year later from a copied
//! state directory. One view model ([`model::Report`]) feeds both the terminal's summary and `report.json`, so the two can't disagree.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`model`] | the report: versioned, with a JSON Schema |
//! | [`gather`] | journal → report |
//! | [`timeline`] | the newest cutover and rollback, second by second |
//! | [`verification`] | what verifying steps left in the journal, and how it is read |
//! | [`terminal`] | report → text: the verdict first |
//! | [`status`] | where the runs of a state directory stand, and who drives them |
//! | [`held`](mod@held) | what becomes of held writes if the run is ended now |
//! | [`next`](mod@next) | the commands that make sense now |

pub mod gather;
pub mod held;
pub mod model;
pub mod next;
pub mod status;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod timeline;
pub mod verification;
