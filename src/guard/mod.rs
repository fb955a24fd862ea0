//! Guards that look at no store. What follows when one fires is the engine's: see [`engine::guards`](crate::engine::guards).
//!
//! | file | what is watched |
//! | --- | --- |
//! | [`disk`] | `disk.free`: room where the run's state is kept |
//! | [`http`] | `http.probe`: what an address answers |
//! | [`prometheus`] | `prometheus.query`: what Prometheus says of an expression |

pub mod disk;
pub mod http;
pub mod prometheus;

use crate::engine::guards::{Look, Unseen};
use crate::http::HttpError;
use crate::playbook::secret::ReferenceError;

/// A look that ended before there was an answer: an output of a step that has not run is nothing to look at yet, all else is unseen.
fn without_an_answer(error: &HttpError) -> Result<Look, Unseen> {
    match error {
        HttpError::Reference { error: ReferenceError::NoSuchStep { .. }, .. } => Ok(Look::Nothing(error.to_string())),
        error => Err(Unseen(error.to_string())),
    }
}
