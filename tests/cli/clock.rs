//! Somebody sets the machine's clock in the middle of the night: a deadline is kept by the clock that nobody sets.
//!
//! The driver's wall clock jumps by a library that is preloaded into it (`clock_jump.c`, built here with the compiler that Rust links with).

use std::process::{Command, Stdio};

use jiff::Timestamp;

use super::command::{Ended, Place};
use super::driving;

/// Builds the library.
fn library(place: &Place) -> std::path::PathBuf {
    let (from, to) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/clock_jump.c"), place.path("clock_jump.so"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&to).arg(from).output().expect("Rust links with `cc`");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    to
}

/// A cutover whose clock jumps while it copies; and how far apart its journal's first and last moments are, in seconds.
fn jumps(place: &Place, library: &std::path::Path, deadline: &str, seconds: &str, by: &str) -> (Ended, f64) {
    assert_eq!(place.line("rehearse move.yaml").code, 0);
    place.write("seconds", seconds);
    let mut command = place.command(&["cutover", "move.yaml", "--yes", "--deadline", deadline]);
    command.env("LD_PRELOAD", library).env("DBMOVE_JUMP_FILE", place.path("jump"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.wait_for("copy", "running");
    place.write("jump", by);
    let ended = Ended::of(&child.wait_with_output().unwrap());
    let report = place.line("report --json").json();
    let moment = |name: &str| report["run"][name].as_str().unwrap().parse::<Timestamp>().unwrap();
    let lasted = moment("last").duration_since(moment("started")).as_secs_f64();
    (ended, lasted)
}

#[test]
fn a_clock_that_jumps_ahead_undoes_nothing() {
    let place = driving::place();
    let library = library(&place);
    let (ended, lasted) = jumps(&place, &library, "1h", "2", "10800");
    assert!(lasted > 10_000.0, "the clock did not jump: {lasted}\n{}", ended.shown());
    assert_eq!(ended.code, 0, "{}", ended.shown());
    assert_eq!(driving::route(&place), "new\n");
    assert_eq!(place.line("audit").code, 0);
}

#[test]
fn a_clock_that_jumps_back_lengthens_no_deadline() {
    let place = driving::place();
    let library = library(&place);
    let (ended, lasted) = jumps(&place, &library, "5s", "60", "-10800");
    assert!(lasted < -10_000.0, "the clock did not jump: {lasted}\n{}", ended.shown());
    assert_eq!(ended.code, 5, "{}", ended.shown());
    assert_eq!(driving::route(&place), "old\n");
    assert!(!place.path("held").exists());
    assert_eq!(place.line("audit").code, 0);
}
