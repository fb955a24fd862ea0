//! What kind of host the target is, and how much room it has.

use super::{Gathered, Part};
use crate::mysql::connect::Session;
use crate::mysql::error::Result;

/// Room on the target's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetDisk {
    /// Bytes that are free.
    pub free: u64,
    /// Who said so.
    pub said_by: &'static str,
}

impl Gathered {
    /// RDS puts procedures of its own into `mysql`, and its programs under `/rdsdbbin`.
    pub(super) async fn rds(&mut self, target: &mut Session) -> Result<()> {
        if let Some(base) = self.target.variables.get("basedir").filter(|base| base.starts_with("/rdsdbbin")) {
            self.rds = Some(format!("basedir = {base}"));
            return Ok(());
        }
        let query =
            "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'mysql' AND ROUTINE_NAME LIKE 'rds\\_%' LIMIT 1";
        let rows = self.rows(target, Part::TargetSettings, query).await?;
        self.rds = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).map(|name| format!("procedure mysql.{name}"));
        Ok(())
    }

    /// MariaDB with its plugin DISKS tells; of all others a person has to.
    pub(super) async fn target_disk(&mut self, target: &mut Session, told: Option<u64>) -> Result<()> {
        if let Some(free) = told {
            self.target_disk = Some(TargetDisk { free, said_by: "`target_free` of the playbook" });
            return Ok(());
        }
        if self.target.version.mariadb {
            let query = "SELECT Path, Available FROM information_schema.DISKS";
            let disks = target.rows(query, "reading the target's disks").await;
            if let Ok(disks) = disks {
                let of = |row: &Vec<Option<String>>, at: usize| row.get(at).and_then(Clone::clone).unwrap_or_default();
                // The disk of the data directory is that with the longest path that leads to it.
                let mut holding: Vec<_> = disks.iter().filter(|row| self.target.datadir.starts_with(&of(row, 0))).collect();
                holding.sort_by_key(|row| of(row, 0).len());
                if let Some(kib) = holding.last().and_then(|row| of(row, 1).parse::<u64>().ok()) {
                    self.target_disk = Some(TargetDisk { free: kib << 10, said_by: query });
                    return Ok(());
                }
            }
        }
        let why = "the target does not tell how much room it has: say `target_free: \"500GiB\"` in the step `mysql.assess`";
        self.unread.insert(Part::TargetDisk, why.to_owned());
        Ok(())
    }
}
