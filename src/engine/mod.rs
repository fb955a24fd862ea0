//! Runs a playbook: steps, scheduler, journal, lease, budget, certificate. Knows no store.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`step`], [`context`] | the contract with the stores: the five verbs, and what a step is handed |
//! | [`run`] | the way in: what to drive, [`drive`](run::drive), what comes back |
//! | [`journal`] | the append-only record; state is a fold over it |
//! | [`lease`], [`handover`] | one driver per run, and how one hands over to the next |
//! | `driver`, `gates`, `resume` | a run from where it stands to where it should go; what may be started; what a crash left open |
//! | `beforehand` | what is refused before a running driver is asked for its run |
//! | `scheduler`, `execute`, `undo`, `graph` | a stage's steps side by side; one step's run; undo; who waits for whom |
//! | `way_back` | rollback: clients back to the source behind the point of no return |
//! | [`budget`], [`deadline`] | the forecast, the deadline, when to refuse and when to give up |
//! | [`certificate`] | what a passed rehearsal leaves behind |
//! | [`load`] | what runs beside a rehearsal in clients' place, and whether following kept up with it |
//! | [`production`] | what a rehearsal sent to production |
//! | [`approval`] | a person's yes: how it is given, what it is good for |
//! | [`control`], [`steering`] | a run told to pause, slow down, wait or end; what its steps hear of it |
//! | [`guards`] | conditions that are watched meanwhile, and what is done when one fails |
//! | [`moments`] | hooks: what is called at named moments |
//! | [`drift`] | whether a playbook changed under a run |
//! | [`observer`] | what a person sees meanwhile |
//! | [`outcome`] | how a run ends, and the exit codes |
//! | [`crash`] | where a test may pull the plug |

pub mod approval;
mod beforehand;
pub mod budget;
pub mod certificate;
pub mod context;
pub mod control;
pub mod crash;
pub mod deadline;
pub mod drift;
mod driver;
mod execute;
mod gates;
mod graph;
pub mod guards;
pub mod handover;
pub mod held;
pub mod journal;
pub mod lease;
pub mod load;
pub mod moments;
pub mod observer;
pub mod outcome;
pub mod production;
mod resume;
pub mod run;
mod scheduler;
pub mod steering;
pub mod step;
mod undo;
mod way_back;
