//! `traffic.file`: whole or not at all, never through a link, never production in a rehearsal, and back exactly.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use dbmove::engine::context::{RunKind, StepContext};
use dbmove::engine::step::{Failure, Probe, Step as _};
use dbmove::traffic::file::{FileArguments, TrafficFile};
use dbmove::traffic::route::RouteFile;

use crate::memory::context;

const SOURCE: &str = "127.0.0.1:3306\n";
const TARGET: &str = "127.0.0.2:3306\n";

fn step(path: &Path) -> TrafficFile {
    TrafficFile::new(FileArguments { path: path.to_owned(), content: TARGET.to_owned(), rehearsal_path: None, rehearsal_content: None })
        .unwrap()
}

fn production() -> StepContext {
    context("switch", RunKind::Production)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// What lies in the directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn switches_probes_and_puts_back_to_the_byte_and_mode() {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    std::fs::write(&route, SOURCE).unwrap();
    std::fs::set_permissions(&route, PermissionsExt::from_mode(0o640)).unwrap();
    let (step, context) = (step(&route), production());
    assert_eq!(step.probe(&context).await.unwrap(), Probe::NotStarted);
    let plan = step.plan(&context).await.unwrap();
    assert_eq!(plan.lines, [format!("replace `{}`, now \"127.0.0.1:3306\\n\"", route.display()), "with \"127.0.0.2:3306\\n\"".to_owned()]);
    assert_eq!(read(&route), SOURCE);

    step.run(&context).await.unwrap();
    assert_eq!(read(&route), TARGET);
    assert_eq!(std::fs::metadata(&route).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(step.probe(&context).await.unwrap(), Probe::Done);
    // Again after a crash: what was there first is not forgotten.
    step.run(&context).await.unwrap();

    step.undo(&context).await.unwrap();
    assert_eq!(read(&route), SOURCE);
    assert_eq!(std::fs::metadata(&route).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(step.probe(&context).await.unwrap(), Probe::NotStarted);
    step.undo(&context).await.unwrap();
    assert_eq!(read(&route), SOURCE);
    assert_eq!(names(directory.path()), ["route"]);
}

#[tokio::test]
async fn a_file_that_was_not_there_is_made_readable_and_removed_again() {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    let (step, context) = (step(&route), production());
    step.run(&context).await.unwrap();
    assert_eq!(read(&route), TARGET);
    assert_eq!(std::fs::metadata(&route).unwrap().permissions().mode() & 0o7777, 0o644);
    step.undo(&context).await.unwrap();
    assert_eq!(names(directory.path()), Vec::<String>::new());
    step.undo(&context).await.unwrap();
}

#[tokio::test]
async fn an_undo_after_a_run_that_got_nowhere_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    std::fs::write(&route, "somebody's\n").unwrap();
    step(&route).undo(&production()).await.unwrap();
    assert_eq!(read(&route), "somebody's\n");
}

#[tokio::test]
async fn somebody_elses_content_is_shown_and_left() {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    std::fs::write(&route, SOURCE).unwrap();
    let (step, context) = (step(&route), production());
    step.run(&context).await.unwrap();
    std::fs::write(&route, "10.9.9.9:1\u{1b}\n").unwrap();
    let Probe::Foreign { found } = step.probe(&context).await.unwrap() else { panic!("foreign content was not seen") };
    let words = format!(
        "the route file `{}` holds \"10.9.9.9:1\\u{{1b}}\\n\"; dbmove writes \"127.0.0.2:3306\\n\", before it was \"127.0.0.1:3306\\n\"",
        route.display()
    );
    assert_eq!(found, words);
    for error in [step.run(&context).await.unwrap_err(), step.undo(&context).await.unwrap_err()] {
        assert_eq!(error.failure, Failure::Definite);
        assert!(error.message.starts_with(&words), "{error}");
    }
    assert_eq!(read(&route), "10.9.9.9:1\u{1b}\n");
    // Removed is foreign too: it was there before.
    std::fs::remove_file(&route).unwrap();
    assert!(matches!(step.probe(&context).await.unwrap(), Probe::Foreign { found } if found.contains("it is not there")));
}

#[tokio::test]
async fn another_content_on_a_later_attempt_still_goes_back_to_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    std::fs::write(&route, SOURCE).unwrap();
    let context = production();
    step(&route).run(&context).await.unwrap();
    let moved = TrafficFile::new(FileArguments {
        path: route.clone(),
        content: "127.0.0.3:3306\n".to_owned(),
        rehearsal_path: None,
        rehearsal_content: None,
    })
    .unwrap();
    assert_eq!(moved.probe(&context).await.unwrap(), Probe::NotStarted);
    moved.run(&context).await.unwrap();
    assert_eq!(read(&route), "127.0.0.3:3306\n");
    moved.undo(&context).await.unwrap();
    assert_eq!(read(&route), SOURCE);
}

#[tokio::test]
async fn a_rehearsal_writes_where_its_own_target_is() {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    std::fs::write(&route, SOURCE).unwrap();
    let trial = "127.0.0.9:3306\n".to_owned();
    let arguments =
        FileArguments { path: route.clone(), content: TARGET.to_owned(), rehearsal_path: None, rehearsal_content: Some(trial.clone()) };
    let step = TrafficFile::new(arguments).unwrap();
    let rehearsal = context("switch", RunKind::Rehearsal);
    step.run(&rehearsal).await.unwrap();
    assert_eq!((read(&route), read(&directory.path().join("route.rehearsal"))), (SOURCE.to_owned(), trial));
    assert_eq!(step.probe(&rehearsal).await.unwrap(), Probe::Done);
    step.undo(&rehearsal).await.unwrap();
    assert_eq!(names(directory.path()), ["route"]);
    let production = production();
    step.run(&production).await.unwrap();
    assert_eq!(read(&route), TARGET);
    assert_eq!(step.probe(&production).await.unwrap(), Probe::Done);
}

#[tokio::test]
async fn a_rehearsal_never_writes_the_production_path() {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    std::fs::write(&route, SOURCE).unwrap();
    let rehearsal = context("switch", RunKind::Rehearsal);
    step(&route).run(&rehearsal).await.unwrap();
    assert_eq!((read(&route), read(&directory.path().join("route.rehearsal"))), (SOURCE.to_owned(), TARGET.to_owned()));
    step(&route).undo(&rehearsal).await.unwrap();
    assert_eq!(names(directory.path()), ["route"]);

    let named = |path: PathBuf| {
        TrafficFile::new(FileArguments {
            path: route.clone(),
            content: TARGET.to_owned(),
            rehearsal_path: Some(path),
            rehearsal_content: None,
        })
    };
    named(directory.path().join("elsewhere")).unwrap().run(&rehearsal_again()).await.unwrap();
    assert_eq!(names(directory.path()), ["elsewhere", "route"]);

    // The production path by other names.
    let linked = tempfile::tempdir().unwrap();
    symlink(directory.path(), linked.path().join("in")).unwrap();
    for path in [route.clone(), directory.path().join("./route"), linked.path().join("in/route")] {
        let error = named(path).err().unwrap();
        assert_eq!(error.failure, Failure::Refused);
        assert!(error.message.contains(&format!("is the production route file `{}`", route.display())), "{error}");
    }
    // A directory that becomes a link to production's after the step was made.
    let later = linked.path().join("later");
    std::fs::create_dir(&later).unwrap();
    let step = named(later.join("route")).unwrap();
    std::fs::remove_dir(&later).unwrap();
    symlink(directory.path(), &later).unwrap();
    assert_eq!(step.run(&rehearsal_again()).await.unwrap_err().failure, Failure::Refused);
    assert_eq!(read(&route), SOURCE);
}

fn rehearsal_again() -> StepContext {
    context("switch", RunKind::Rehearsal)
}

#[tokio::test]
async fn a_link_is_neither_followed_nor_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    std::fs::write(&victim, "precious\n").unwrap();
    let route = directory.path().join("route");
    symlink(&victim, &route).unwrap();
    let (step, context) = (step(&route), production());
    for error in [step.plan(&context).await.unwrap_err(), step.run(&context).await.unwrap_err(), step.probe(&context).await.unwrap_err()] {
        assert_eq!(
            error.message,
            format!("the route file `{}` is a symbolic link, not a plain file; it was left as it is", route.display())
        );
        assert!(error.hint.unwrap().contains("readlink -f"));
    }
    assert_eq!(read(&victim), "precious\n");
    assert!(std::fs::symlink_metadata(&route).unwrap().is_symlink());

    // A link planted where the new content is prepared is removed, not written through.
    std::fs::remove_file(&route).unwrap();
    symlink(&victim, directory.path().join(".route.dbmove-new")).unwrap();
    step.run(&context).await.unwrap();
    assert_eq!((read(&route), read(&victim)), (TARGET.to_owned(), "precious\n".to_owned()));
    assert_eq!(names(directory.path()), ["route", "victim"]);

    // A link that comes after the switch does not make undo write elsewhere.
    std::fs::remove_file(&route).unwrap();
    symlink(&victim, &route).unwrap();
    assert!(step.undo(&context).await.unwrap_err().message.contains("is a symbolic link"));
    assert_eq!(read(&victim), "precious\n");
}

#[test]
fn links_swapped_in_at_full_speed_never_reach_the_file_behind_them() {
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    std::fs::write(&victim, "precious\n").unwrap();
    let route = directory.path().join("route");
    std::fs::write(&route, SOURCE).unwrap();
    let over = AtomicBool::new(false);
    let (mut written, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let planted = directory.path().join("planted");
            while !over.load(Ordering::Relaxed) {
                for place in [&route, &directory.path().join(".route.dbmove-new")] {
                    let _ = std::fs::remove_file(&planted);
                    symlink(&victim, &planted).unwrap();
                    let _ = std::fs::rename(&planted, place);
                }
                let _ = std::fs::remove_file(&route);
            }
        });
        for _ in 0..400 {
            match RouteFile::new(&route).write(TARGET.as_bytes()) {
                Ok(()) => written += 1,
                Err(_) => refused += 1,
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    eprintln!("written {written}, refused {refused}");
    assert_eq!(read(&victim), "precious\n");
}

#[test]
fn a_reader_never_sees_a_torn_file() {
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    let contents = ["a".repeat(300_000), "b".repeat(200_000)];
    std::fs::write(&route, &contents[0]).unwrap();
    let over = AtomicBool::new(false);
    let mut seen = [0_u32; 2];
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for turn in 0..200 {
                RouteFile::new(&route).write(contents[turn % 2].as_bytes()).unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) && !writer.is_finished() {
            let text = read(&route);
            let which = contents.iter().position(|content| *content == text).unwrap_or_else(|| panic!("torn: {} bytes", text.len()));
            seen[which] += 1;
        }
        writer.join().unwrap();
    });
    eprintln!("readers saw {seen:?}");
    assert!(seen.iter().all(|&times| times > 0), "the reader never saw both: {seen:?}");
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let inside = directory.path().join("is-a-directory");
    std::fs::create_dir(&inside).unwrap();
    let error = step(&inside).run(&production()).await.unwrap_err();
    assert_eq!(error.message, format!("the route file `{}` is a directory, not a plain file; it was left as it is", inside.display()));

    let lost = directory.path().join("no/such/route");
    let error = step(&lost).run(&production()).await.unwrap_err();
    assert!(
        error.message.starts_with(&format!(
            "the directory `{}` of the route file `{}` can't be opened: No such file",
            lost.parent().unwrap().display(),
            lost.display()
        )),
        "{error}"
    );
    assert_eq!(error.hint.as_deref(), Some("create the directory first; dbmove makes none"));

    let big = directory.path().join("big");
    std::fs::write(&big, vec![b'x'; 2 << 20]).unwrap();
    let error = step(&big).plan(&production()).await.unwrap_err();
    assert_eq!(error.message, format!("the route file `{}` holds 2097152 bytes; a route file has at most 1048576", big.display()));

    let relative = FileArguments { path: "route".into(), content: TARGET.to_owned(), rehearsal_path: None, rehearsal_content: None };
    assert_eq!(TrafficFile::new(relative).err().unwrap().message, "`path` has to be a full path, `route` is not");
    let slash = directory.path().join("big/");
    assert!(step(&slash).run(&production()).await.unwrap_err().message.contains("does not name a file"));
}

#[tokio::test]
async fn a_directory_without_write_permission_is_named() {
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere on a writable file system; /proc is one place where it may not.
        let error = step(Path::new("/proc/dbmove-route")).run(&production()).await.unwrap_err();
        assert!(error.message.contains("`/proc/dbmove-route`"), "{error}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let route = directory.path().join("route");
    std::fs::write(&route, SOURCE).unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o555)).unwrap();
    let error = step(&route).run(&production()).await.unwrap_err();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(
        error.message,
        format!("cannot replace the route file `{}`: Permission denied (os error 13); it was left as it is", route.display())
    );
    assert!(error.hint.unwrap().contains("write permission on the directory"));
    assert_eq!(read(&route), SOURCE);
}
