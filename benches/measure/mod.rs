//! What the measurements share: the machine, `dbmove run` itself ([`moving`]), processes watched while they work, medians,
//! and the page the figures go to.
//!
//! A figure says nothing without what was measured beside it in the same run, on the same machine: every table made
//! here names the machine and has a column of ratios. [`record`] puts a table into `docs/benchmarks.md` between two
//! marks, so that each bench owns its part of the page and nothing is copied by hand.
#![allow(dead_code, reason = "each bench uses its own part of this")]

pub mod moving;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A bench that could not be carried out: what failed, in words.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A setting of a bench from the environment.
///
/// # Errors
/// If it is set to something that can't be read.
pub fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T, Failure> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("`{name}={text}` can't be read").into()),
        Err(_) => Ok(default),
    }
}

/// The middle one of some figures; for an even number of them the mean of the two in the middle.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
        length => sorted[length / 2],
    }
}

/// Cores, memory and processor of this machine.
#[must_use]
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0);
    let processor = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown processor".to_owned());
    format!("{cores} cores ({processor}), {:.0} GiB of memory; servers, tool and bench share them", memory / (1 << 20) as f64)
}

/// How many processes wanted to run, averaged over the last minute: others at work make figures worse.
#[must_use]
pub fn load_average() -> f64 {
    std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Processor time, in seconds.
    pub processor: f64,
    /// The most memory it ever had resident (`VmHWM`), in bytes.
    pub peak_memory: u64,
}

/// Reads what a process has used; nothing once it is gone.
#[must_use]
pub fn used(pid: u32) -> Option<Used> {
    // Fields 14 and 15 of `stat`, counted behind the name, which may hold anything: hundredths of seconds on Linux.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse::<u64>().ok()?;
    Some(Used { processor: ticks / 100.0, peak_memory: peak * 1024 })
}

/// Watches processes until dropped; what each used is asked every tenth of a second, so the last tenth is missing.
pub struct Watch {
    seen: Arc<Mutex<BTreeMap<u32, Used>>>,
    before: BTreeMap<u32, Used>,
    watching: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Starts watching.
    #[must_use]
    pub fn start(pids: &[u32]) -> Watch {
        let seen: Arc<Mutex<BTreeMap<u32, Used>>> = Arc::default();
        let before: BTreeMap<u32, Used> = pids.iter().filter_map(|&pid| Some((pid, used(pid)?))).collect();
        let (pids, into) = (pids.to_vec(), seen.clone());
        let watching = tokio::spawn(async move {
            loop {
                for &pid in &pids {
                    if let (Some(used), Ok(mut seen)) = (used(pid), into.lock()) {
                        seen.insert(pid, used);
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Watch { seen, before, watching }
    }

    /// What a process used since the start, and its peak.
    #[must_use]
    pub fn of(&self, pid: u32) -> Used {
        let seen = self.seen.lock().ok().and_then(|seen| seen.get(&pid).copied()).unwrap_or_default();
        let before = self.before.get(&pid).copied().unwrap_or_default();
        Used { processor: seen.processor - before.processor, peak_memory: seen.peak_memory }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Prints a part of the report, and puts it into `docs/benchmarks.md` if `DBMOVE_BENCH_RECORD` is set.
///
/// # Errors
/// If the page can't be written or has no place for this part.
pub fn record(part: &str, text: &str) -> Result<(), Failure> {
    println!("\n{text}");
    if std::env::var_os("DBMOVE_BENCH_RECORD").is_none() {
        return Ok(());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let page = std::fs::read_to_string(&path)?;
    let (begin, end) = (format!("<!-- begin {part} -->\n"), format!("<!-- end {part} -->\n"));
    let (before, rest) = page.split_once(&begin).ok_or_else(|| format!("`docs/benchmarks.md` has no line `{}`", begin.trim()))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| format!("`docs/benchmarks.md` has no line `{}`", end.trim()))?;
    std::fs::write(&path, format!("{before}{begin}\n{text}\n{end}{after}"))?;
    Ok(())
}
