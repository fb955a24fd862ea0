//! The guard `disk.free`: room where the run's state is kept.
//!
//! That is the only disk dbmove can see. A MySQL server tells nobody by SQL how full its disk is; watch servers by
//! `prometheus.query`. Room is what an ordinary user may still write: what is kept back for root does not count.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::guards::{Guard, Look, Sight, Unseen};
use crate::engine::step::StepError;
use crate::playbook::quantity::HumanSize;

/// What `disk.free` can be told; at least one of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskArguments {
    /// Less room than this is too little: `5GiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<HumanSize>,
    /// Less than this part of the disk is too little, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub below_percent: Option<u8>,
}

/// The guard `disk.free`.
pub struct DiskFree {
    arguments: DiskArguments,
}

impl DiskFree {
    /// The name in a playbook.
    pub const NAME: &'static str = "disk.free";

    /// From the arguments.
    ///
    /// # Errors
    /// If there is no threshold.
    pub fn new(arguments: DiskArguments) -> Result<DiskFree, StepError> {
        if arguments.below.is_none() && arguments.below_percent.is_none() {
            return Err(StepError::definite("there is no threshold").hint("say `below: 5GiB` or `below_percent: 10`"));
        }
        Ok(DiskFree { arguments })
    }

    fn judge(&self, free: u64, whole: u64) -> Look {
        // Percent of nothing is nothing, and nothing is too little.
        let percent = u128::from(free) * 100 / u128::from(whole.max(1));
        let found = format!("the disk of the state directory has {} free ({percent} %)", shown(free));
        let too_little = self.arguments.below.is_some_and(|least| free < least.0)
            || self.arguments.below_percent.is_some_and(|least| percent < u128::from(least));
        if too_little { Look::Fails(format!("{found}, and {}", self.condition())) } else { Look::Holds(found) }
    }
}

/// A size in whole units, as nobody needs the bytes.
fn shown(bytes: u64) -> HumanSize {
    let unit = [30, 20, 10, 0].into_iter().find(|unit| bytes >> unit >= 10).unwrap_or(0);
    HumanSize(bytes >> unit << unit)
}

#[async_trait]
impl Guard for DiskFree {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn condition(&self) -> String {
        let size = self.arguments.below.map(|least| format!("{least}"));
        let percent = self.arguments.below_percent.map(|least| format!("{least} %"));
        let least: Vec<String> = size.into_iter().chain(percent).collect();
        format!("it has to have {}", least.join(" and "))
    }
    fn remarks(&self) -> Vec<String> {
        vec!["only the disk of the state directory is seen; no server tells by SQL how full its own is".to_owned()]
    }
    async fn look(&self, sight: &Sight) -> Result<Look, Unseen> {
        let directory = sight.state_directory.clone();
        let seen = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await;
        match seen {
            Ok(Ok(disk)) => {
                let of = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
                Ok(self.judge(of(disk.f_bavail), of(disk.f_blocks)))
            }
            Ok(Err(error)) => Err(Unseen(format!("the disk of the state directory can't be looked at: {error}"))),
            Err(error) => Err(Unseen(format!("the disk of the state directory was not looked at: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(below: Option<u64>, below_percent: Option<u8>) -> DiskFree {
        DiskFree::new(DiskArguments { below: below.map(HumanSize), below_percent }).unwrap()
    }

    #[test]
    fn either_threshold_is_enough() {
        let gibibyte = 1 << 30;
        assert!(matches!(disk(Some(5 * gibibyte), None).judge(5 * gibibyte, 100 * gibibyte), Look::Holds(_)));
        let few = disk(Some(5 * gibibyte), None).judge(5 * gibibyte - 1, 100 * gibibyte);
        assert_eq!(few, Look::Fails("the disk of the state directory has 5119MiB free (4 %), and it has to have 5GiB".to_owned()));
        assert!(matches!(disk(None, Some(10)).judge(9 * gibibyte, 100 * gibibyte), Look::Fails(_)));
        assert!(matches!(disk(Some(1), Some(10)).judge(10 * gibibyte, 100 * gibibyte), Look::Holds(_)));
        assert!(matches!(disk(Some(1), None).judge(0, 0), Look::Fails(_)));
        assert!(DiskFree::new(DiskArguments { below: None, below_percent: None }).is_err());
    }

    #[tokio::test]
    async fn a_real_disk_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let sight = |path: &std::path::Path| Sight {
            run: "r".into(),
            kind: crate::engine::context::RunKind::Production,
            outputs: std::sync::Arc::default(),
            state_directory: path.to_owned(),
            closing: tokio::sync::watch::channel(false).1,
        };
        assert!(matches!(disk(Some(1), None).look(&sight(directory.path())).await, Ok(Look::Holds(_))));
        assert!(matches!(disk(Some(u64::MAX), None).look(&sight(directory.path())).await, Ok(Look::Fails(_))));
        assert!(disk(Some(1), None).look(&sight(&directory.path().join("gone"))).await.is_err());
    }
}
