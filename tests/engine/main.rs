//! The engine, driven for real: steps whose effects are lines in a file, processes that are killed with SIGKILL.
//!
//! | module | what it shows |
//! | --- | --- |
//! | [`world`] | where they act, and a driver in a process of its own |
//! | [`doubles`] | the test steps, guards and hooks |
//! | [`crashes`] | killed at every named point, the run ends as if nothing had happened |
//! | [`control`] | what a driver may be told, and when not |
//! | [`leases`] | one driver per run, takeover, handover, stale writes refused |
//! | [`scheduling`] | order, parallelism, retries, undo, services, drift |
//! | [`limits`] | deadline, write gap, point of no return |
//! | [`certificates`] | rehearsals to their end, and the certificates that cutovers ask for |
//! | [`guards`] | what is done about a guard that fires, and one that can't be asked |
//! | [`load`] | what runs beside a rehearsal in clients' place |
//! | [`hooks`] | what is called at the moments of a run, and that nothing is left out |
//! | [`journals`] | tampering, permissions, formats, a full disk |
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod certificates;
mod control;
mod crashes;
mod doubles;
mod guards;
mod hooks;
mod journals;
mod leases;
mod limits;
mod load;
mod scheduling;
mod world;
