//! All servers of one record: looked at together, and changed at the first.
//!
//! The steps know records and this, and not how a change travels: another way to change a zone (a cloud's API) would stand here.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::future::join_all;
use hickory_proto::rr::{Name, RecordType, TSigner};
use tokio::time::Instant;

use super::error::DnsError;
use super::record::{Record, Ttl, Value};
use super::server::{Change, NameServer};
use crate::engine::context::{Progress, StepContext};
use crate::engine::step::StepError;
use crate::hook::message::printable;
use crate::playbook::quantity::HumanDuration;

/// Between two looks at every server.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One record and every server that holds it.
#[derive(Clone)]
pub(super) struct Authority {
    pub(super) zone: Name,
    pub(super) name: Name,
    /// The first takes changes.
    pub(super) servers: Vec<NameServer>,
    /// The resolvers of clients.
    pub(super) resolvers: Vec<NameServer>,
    /// How long a change may take to be shown.
    pub(super) within: Duration,
}

/// Who does not show a record yet, and what they show instead.
pub(super) struct Lagging {
    /// A server that holds the zone is among them.
    authoritative: bool,
    what: Vec<String>,
}

impl Lagging {
    /// Everybody shows it.
    pub(super) fn is_empty(&self) -> bool {
        self.what.is_empty()
    }

    pub(super) fn told(&self) -> String {
        self.what.join("; ")
    }
}

/// What is waited for.
#[derive(Clone, Copy)]
pub(super) struct Awaited<'a> {
    /// Every server has to show this.
    pub(super) record: &'a Record,
    /// What resolvers may show until then, and for how long.
    pub(super) before: &'a Value,
    pub(super) kept_for: Ttl,
}

impl Authority {
    /// The server that takes changes.
    fn primary(&self) -> Result<&NameServer, StepError> {
        self.servers.first().ok_or_else(|| StepError::definite("`servers` is empty"))
    }

    /// The record at the server that takes changes.
    ///
    /// # Errors
    /// If it can't be told.
    pub(super) async fn look(&self) -> Result<Record, DnsError> {
        match self.servers.first() {
            Some(primary) => primary.authoritative(&self.name).await,
            None => Err(DnsError::NoRecord { server: "none".to_owned(), name: self.name.to_ascii() }),
        }
    }

    /// The record at every server that holds the zone, where they agree.
    ///
    /// # Errors
    /// If one can't be asked, or shows another value.
    pub(super) async fn look_everywhere(&self) -> Result<Record, StepError> {
        let records = join_all(self.servers.iter().map(|server| server.authoritative(&self.name))).await;
        let mut agreed: Option<Record> = None;
        for (server, record) in self.servers.iter().zip(records) {
            let record = record?;
            match &mut agreed {
                None => agreed = Some(record),
                Some(first) if first.value == record.value => first.ttl = first.ttl.max(record.ttl),
                Some(first) => {
                    return Err(StepError::definite(format!(
                        "the name servers disagree on `{}`: `{}` at `{}`, `{}` at `{}`. Nothing was changed",
                        self.name, first.value, self.servers[0].shown, record.value, server.shown
                    ))
                    .hint("see why that server does not follow the zone's primary (its transfers, the zone's serial)"));
                }
            }
        }
        agreed.ok_or_else(|| StepError::definite("`servers` is empty"))
    }

    /// A warning if the zone names more servers than are looked at.
    ///
    /// # Errors
    /// If it can't be told.
    pub(super) async fn overlooked(&self) -> Result<Option<String>, StepError> {
        let mut named = self.primary()?.name_servers(&self.zone).await?;
        // Servers turn their records around from one answer to the next.
        named.sort();
        let listed: Vec<String> = named.iter().map(|name| format!("`{}`", printable(name))).collect();
        Ok((named.len() > self.servers.len()).then(|| {
            format!(
                "`{}` names {} name servers ({}), and `servers` {}: one that is not named is not looked at",
                self.zone,
                named.len(),
                listed.join(", "),
                self.servers.len()
            )
        }))
    }

    /// Refuses a CNAME where other records stand: servers drop such a change without a word, after they have removed what was there.
    ///
    /// # Errors
    /// If there are any, or it can't be told.
    pub(super) async fn refuse_company(&self, wanted: &Value) -> Result<(), StepError> {
        if !matches!(wanted, Value::Cname(_)) {
            return Ok(());
        }
        let others = self.primary()?.beside(&self.name).await?;
        if others.is_empty() {
            return Ok(());
        }
        let others: Vec<String> = others.iter().map(RecordType::to_string).collect();
        Err(StepError::definite(format!(
            "`{}` can't become a CNAME: other records stand there ({}). Nothing was changed",
            self.name,
            others.join(", ")
        ))
        .hint("give the target by its address, or move those records to another name"))
    }

    /// Tells the server that takes changes to put `wanted` where `expected` is.
    ///
    /// # Errors
    /// What it answered; whether it did it is told by looking.
    pub(super) async fn change(&self, expected: Option<&Value>, wanted: &Record, signer: &TSigner) -> Result<(), StepError> {
        let primary = self.primary()?;
        tracing::info!(name = %self.name, server = %primary.shown, record = %wanted, "changing a DNS record");
        Ok(primary.change(&self.zone, &self.name, Change { expected, wanted }, signer).await?)
    }

    /// Who does not show what is awaited yet. A server that can't be asked does not show it.
    pub(super) async fn lagging(&self, awaited: Awaited<'_>) -> Lagging {
        let Awaited { record, before, .. } = awaited;
        let mut lagging = Lagging { authoritative: false, what: Vec::new() };
        let held = join_all(self.servers.iter().map(|server| server.authoritative(&self.name))).await;
        for (server, held) in self.servers.iter().zip(held) {
            let shows = match held {
                Ok(held) if held == *record => continue,
                Ok(held) => format!("`{}` shows {held}", server.shown),
                Err(error) => error.to_string(),
            };
            lagging.authoritative = true;
            lagging.what.push(printable(&shows));
        }
        // A resolver keeps each type by itself: what clients ask for when they get the old value, and when they get the new one.
        let mut kinds = vec![record.value.asked_for()];
        if before.asked_for() != record.value.asked_for() {
            kinds.push(before.asked_for());
        }
        let seen = join_all(self.resolvers.iter().map(|resolver| async {
            let mut all = Vec::new();
            for kind in &kinds {
                all.extend(resolver.resolved(&self.name, *kind).await?);
            }
            Ok::<_, DnsError>(all)
        }))
        .await;
        for (resolver, seen) in self.resolvers.iter().zip(seen) {
            let shows = match seen {
                Ok(seen) if !seen.is_empty() && seen.iter().all(|seen| seen.value == record.value && seen.ttl <= record.ttl) => continue,
                Ok(seen) if seen.is_empty() => format!("the resolver `{}` shows nothing", resolver.shown),
                Ok(seen) => {
                    let mut shows = format!("the resolver `{}` shows", resolver.shown);
                    for seen in seen {
                        // A String takes everything.
                        let _ = write!(shows, " {seen}");
                    }
                    shows
                }
                Err(error) => error.to_string(),
            };
            lagging.what.push(printable(&shows));
        }
        lagging
    }

    /// Waits until every server and resolver shows what is awaited; `Err` holds who does not. Servers of the zone have `within` for it, resolvers
    /// as long as they may keep what was there before on top.
    ///
    /// # Errors
    /// The outer one if the step is asked to stop.
    pub(super) async fn wait_until_shown(&self, context: &StepContext, awaited: Awaited<'_>) -> Result<Result<(), Lagging>, StepError> {
        let began = Instant::now();
        let patience = self.within + awaited.kept_for.duration();
        loop {
            let lagging = self.lagging(awaited).await;
            if lagging.is_empty() {
                return Ok(Ok(()));
            }
            let limit = if lagging.authoritative { self.within } else { patience };
            if began.elapsed() > limit {
                return Ok(Err(lagging));
            }
            context.report(Progress {
                note: format!(
                    "`{}` is `{}`, up to {} until all show it: {}",
                    self.name,
                    awaited.record.value,
                    HumanDuration(limit),
                    lagging.told()
                ),
                ..Progress::default()
            });
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = context.cancel.cancelled() => return Err(StepError::cancelled()),
            }
        }
    }

    /// The same without the resolvers.
    pub(super) fn without_resolvers(&self) -> Authority {
        Authority { resolvers: Vec::new(), ..self.clone() }
    }

    /// Every server there is, for people.
    pub(super) fn shown(&self) -> String {
        let of =
            |servers: &[NameServer]| servers.iter().map(|server| format!("`{}`", printable(&server.shown))).collect::<Vec<_>>().join(", ");
        match self.resolvers.is_empty() {
            true => of(&self.servers),
            false => format!("{} and the resolvers {}", of(&self.servers), of(&self.resolvers)),
        }
    }
}
