//! What `traffic.lower_ttl` can be told of a record, and what comes of it for one kind of run.
//!
//! `traffic.dns` and `traffic.restore_ttl` are told at most which record: they act on what the step that lowered its TTL was told, so that the
//! three can't mean different ones. What the arguments refer to is resolved each time a step acts, and forgotten after.

use std::time::Duration;

use hickory_proto::rr::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::key::KeyArguments;
use super::record::{Ttl, Value, name};
use super::server::{NameServer, parse_server};
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Failure, StepError};
use crate::hook::message::printable;
use crate::playbook::model::Template;
use crate::playbook::quantity::HumanDuration;
use crate::playbook::reference::Resolver;
use crate::traffic::exec::SkippedSwitch;

/// How long clients may keep the record around the switch, unless the playbook says otherwise.
const DEFAULT_TTL: Duration = Duration::from_secs(5);
/// The longest such time: the switch waits as long, and has a minute in all.
const LONGEST_TTL: Duration = Duration::from_secs(30);
/// How long servers may take to show a change beyond the time they may keep the old record.
const DEFAULT_WITHIN: Duration = Duration::from_secs(10);
const LONGEST_WITHIN: Duration = Duration::from_secs(20);

/// What `traffic.lower_ttl` can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LowerArguments {
    /// The name clients connect to: `db.school.example`. One address (A or AAAA) or a CNAME stands there.
    pub name: String,
    /// The zone it is in: `school.example`.
    pub zone: String,
    /// Every name server that holds the zone, `host`, `address` or `address:port`. The first takes changes (RFC 2136).
    pub servers: Vec<Template>,
    /// The key that may change the record.
    pub key: KeyArguments,
    /// Where the record will lead: an address, or a host name for a CNAME. Default: the host of the store's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Template>,
    /// For how long clients may keep the record around the switch, 1s to 30s. Default `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<HumanDuration>,
    /// The resolvers that clients use: the switch waits until they show it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<Template>,
    /// How long the servers may take to show a change, beyond the time they may keep the old record; up to 20s. Default `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<HumanDuration>,
    /// What a rehearsal changes instead. Left out: a rehearsal is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<DnsRehearsal>,
}

/// What a rehearsal does in place of changing production's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DnsRehearsal {
    /// It changes another record.
    Record(Box<RehearsalRecord>),
    /// It leaves the record alone.
    Skip(SkippedSwitch),
}

/// The rehearsal's record. What is left out is as in production.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RehearsalRecord {
    /// Another name than production's: `db-rehearsal.school.example`.
    pub name: String,
    /// The zone it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Every name server that holds the zone; the first takes changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<Vec<Template>>,
    /// The key that may change the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyArguments>,
    /// Where the record will lead. Default: the host of the rehearsal's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Template>,
    /// The resolvers that are asked too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolvers: Option<Vec<Template>>,
}

/// What `traffic.dns` and `traffic.restore_ttl` can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordArguments {
    /// Which record, as the `traffic.lower_ttl` of the same store names it. Needed only if the store has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A record of one kind of run, references as they are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: Name,
    zone: Name,
    servers: Vec<Template>,
    key: KeyArguments,
    target: Option<Template>,
    pub(super) ttl: Ttl,
    resolvers: Vec<Template>,
    pub(super) within: Duration,
}

/// What a run does with the record.
#[derive(Clone, Debug)]
enum Rehearsed {
    Record(Box<Named>),
    Skip(String),
    Missing,
}

/// A record of both kinds of run.
#[derive(Clone, Debug)]
pub(super) struct Records {
    pub(super) production: Named,
    rehearsal: Rehearsed,
}

/// The record of a run, or the reason why there is none in a rehearsal.
pub(super) enum OfRun<'a> {
    Record(&'a Named),
    Skipped(&'a str),
}

fn read_name(argument: &str, text: &str) -> Result<Name, StepError> {
    name(text).ok_or_else(|| {
        StepError::definite(format!("`{argument}`: `{}` is no host name", printable(text))).hint("such as `db.school.example`")
    })
}

fn read_time(
    argument: &str,
    given: Option<HumanDuration>,
    default: Duration,
    shortest: Duration,
    longest: Duration,
) -> Result<Duration, StepError> {
    let time = given.map_or(default, |given| given.0);
    if (shortest..=longest).contains(&time) {
        return Ok(time);
    }
    let (shortest, longest) = (HumanDuration(shortest), HumanDuration(longest));
    Err(StepError::definite(format!("`{argument}` has to be between {shortest} and {longest}, not {}", HumanDuration(time)))
        .hint("the switch waits as long, while it has a minute in all"))
}

impl Named {
    fn check(&self, prefix: &str) -> Result<(), StepError> {
        if !self.zone.zone_of(&self.name) {
            return Err(StepError::definite(format!("`{prefix}name`: `{}` is not in the zone `{}`", self.name, self.zone)));
        }
        if self.servers.is_empty() {
            return Err(StepError::definite(format!("`{prefix}servers` is empty")).hint("name every server that holds the zone"));
        }
        self.key.check(prefix)?;
        let written = |template: &Template| !template.0.contains("${");
        for (argument, servers) in [("servers", &self.servers), ("resolvers", &self.resolvers)] {
            if let Some(broken) = servers.iter().find(|server| written(server) && parse_server(&server.0).is_none()) {
                return Err(StepError::definite(format!("`{prefix}{argument}`: `{}` is no server", printable(&broken.0)))
                    .hint("write `192.0.2.1`, `192.0.2.1:53` or `ns1.example.org`"));
            }
        }
        if let Some(target) = self.target.as_ref().filter(|target| written(target)) {
            self.leads_to(prefix, &target.0)?;
        }
        Ok(())
    }

    /// The value that leads to a host.
    fn leads_to(&self, prefix: &str, host: &str) -> Result<Value, StepError> {
        let value = Value::of_host(host).ok_or_else(|| {
            StepError::definite(format!("`{prefix}target`: `{}` is neither an address nor a host name", printable(host)))
                .hint("such as `10.0.0.5`, or `school.abc.eu-west-1.rds.amazonaws.com`; without a port")
        })?;
        match &value {
            Value::Cname(_) if self.name == self.zone => {
                Err(StepError::definite(format!("`{}` is the zone itself, where no CNAME can stand (RFC 1034)", self.name))
                    .hint("give clients a name inside the zone, or give `target` as an address"))
            }
            Value::Cname(target) if name(target).as_ref() == Some(&self.name) => {
                Err(StepError::definite(format!("`{prefix}target` is `{}` itself: a record that leads to itself leads nowhere", self.name)))
            }
            _ => Ok(value),
        }
    }

    /// True if a server is given by reference.
    pub(super) fn refers(&self) -> bool {
        self.servers.iter().chain(&self.resolvers).any(|server| server.0.contains("${"))
    }

    /// The servers, for looking.
    ///
    /// # Errors
    /// If a reference or a server can't be resolved.
    pub(super) async fn authority(&self, context: &StepContext) -> Result<Authority, StepError> {
        let resolver = Resolver::new(context.outputs.clone());
        let servers = found("servers", &self.servers, &resolver).await?;
        let resolvers = found("resolvers", &self.resolvers, &resolver).await?;
        Ok(Authority { zone: self.zone.clone(), name: self.name.clone(), servers, resolvers, within: self.within })
    }

    /// What signs changes.
    ///
    /// # Errors
    /// If the secret can't be had.
    pub(super) async fn signer(&self, context: &StepContext) -> Result<hickory_proto::rr::TSigner, StepError> {
        self.key.signer(&Resolver::new(context.outputs.clone())).await
    }

    /// Where the record will lead; `host` is that of the store's target.
    ///
    /// # Errors
    /// If it can't be told, or nothing can lead there.
    pub(super) async fn wanted(&self, context: &StepContext, host: &str) -> Result<Value, StepError> {
        let Some(target) = &self.target else { return self.leads_to("", host) };
        let resolver = Resolver::new(context.outputs.clone());
        let host = target.resolve_text(&resolver).await.map_err(|error| StepError::definite(format!("`target`: {error}")))?;
        self.leads_to("", &host)
    }
}

async fn found(argument: &str, servers: &[Template], resolver: &Resolver) -> Result<Vec<NameServer>, StepError> {
    let mut found = Vec::new();
    for server in servers {
        let text = server.resolve_text(resolver).await.map_err(|error| StepError::definite(format!("`{argument}`: {error}")))?;
        found.push(NameServer::find(text.trim()).await?);
    }
    Ok(found)
}

impl Records {
    /// From the arguments.
    ///
    /// # Errors
    /// If an argument can't be used, or a rehearsal would change production's record; the message names it.
    pub(super) fn read(arguments: &LowerArguments) -> Result<Records, StepError> {
        let second = Duration::from_secs(1);
        let ttl = read_time("ttl", arguments.ttl, DEFAULT_TTL, second, LONGEST_TTL)?;
        let within = read_time("within", arguments.within, DEFAULT_WITHIN, second, LONGEST_WITHIN)?;
        // At most [`LONGEST_TTL`].
        let ttl = Ttl(u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX));
        let production = Named {
            name: read_name("name", &arguments.name)?,
            zone: read_name("zone", &arguments.zone)?,
            servers: arguments.servers.clone(),
            key: arguments.key.clone(),
            target: arguments.target.clone(),
            ttl,
            resolvers: arguments.resolvers.clone(),
            within,
        };
        production.check("")?;
        let rehearsal = match &arguments.rehearsal {
            None => Rehearsed::Missing,
            Some(DnsRehearsal::Skip(SkippedSwitch { skip })) if skip.trim().is_empty() => {
                return Err(
                    StepError::definite("`rehearsal.skip` gives no reason").hint("say in a sentence why the switch can't be rehearsed")
                );
            }
            Some(DnsRehearsal::Skip(SkippedSwitch { skip })) => Rehearsed::Skip(skip.clone()),
            Some(DnsRehearsal::Record(record)) => {
                let zone = record.zone.as_deref().map(|zone| read_name("rehearsal.zone", zone)).transpose()?;
                let named = Named {
                    name: read_name("rehearsal.name", &record.name)?,
                    zone: zone.unwrap_or_else(|| production.zone.clone()),
                    servers: record.servers.clone().unwrap_or_else(|| production.servers.clone()),
                    key: record.key.clone().unwrap_or_else(|| production.key.clone()),
                    target: record.target.clone(),
                    resolvers: record.resolvers.clone().unwrap_or_else(|| production.resolvers.clone()),
                    ttl,
                    within,
                };
                named.check("rehearsal.")?;
                if named.name == production.name {
                    return Err(StepError::new(
                        Failure::Refused,
                        format!("`rehearsal.name` is production's record, `{}`. Nothing was changed", named.name),
                    )
                    .hint("a rehearsal must not switch production: give it a record of its own, or `skip` with a reason"));
                }
                Rehearsed::Record(Box::new(named))
            }
        };
        Ok(Records { production, rehearsal })
    }

    /// The record of this run; never production's in a rehearsal.
    ///
    /// # Errors
    /// If a rehearsal has none.
    pub(super) fn of_run(&self, context: &StepContext) -> Result<OfRun<'_>, StepError> {
        match (context.kind, &self.rehearsal) {
            (RunKind::Production, _) => Ok(OfRun::Record(&self.production)),
            (RunKind::Rehearsal, Rehearsed::Record(record)) => Ok(OfRun::Record(record)),
            (RunKind::Rehearsal, Rehearsed::Skip(reason)) => Ok(OfRun::Skipped(reason)),
            (RunKind::Rehearsal, Rehearsed::Missing) => Err(StepError::new(
                Failure::Refused,
                format!(
                    "`{}` can't be rehearsed: it would change production's record `{}`. Nothing was changed",
                    context.step, self.production.name
                ),
            )
            .hint("add `rehearsal: { name: … }`: a record of its own, or `rehearsal: { skip: \"the reason\" }`")),
        }
    }

    /// Why production's switch was never rehearsed, if it was not.
    pub(super) fn never_rehearsed(&self) -> Option<&str> {
        match &self.rehearsal {
            Rehearsed::Skip(reason) => Some(reason),
            Rehearsed::Record(_) | Rehearsed::Missing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn read(more: Json) -> Result<Records, StepError> {
        let mut arguments = json!({"name": "db.school.example", "zone": "school.example", "servers": ["192.0.2.1"],
            "key": {"name": "dbmove", "secret": "${env:TSIG}"}});
        for (name, value) in more.as_object().unwrap() {
            arguments[name] = value.clone();
        }
        Records::read(&serde_json::from_value(arguments).unwrap())
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        assert!(read(json!({})).is_ok() && read(json!({"servers": ["${env:NS}"], "target": "${step:provision.endpoint}"})).is_ok());
        let refused = |more: Json| read(more).unwrap_err().message;
        assert!(refused(json!({"name": "db.other.example"})).contains("is not in the zone"));
        assert!(refused(json!({"name": "db school"})).contains("is no host name"));
        assert!(refused(json!({"servers": []})).contains("`servers` is empty"));
        assert!(refused(json!({"resolvers": ["a b"]})).contains("`resolvers`: `a b` is no server"));
        assert!(refused(json!({"target": "10.0.0.5:3306"})).contains("neither an address nor a host name"));
        assert!(refused(json!({"name": "school.example", "target": "db.other.example"})).contains("where no CNAME can stand"));
        assert!(refused(json!({"target": "DB.school.example."})).contains("leads to itself"));
        assert!(refused(json!({"ttl": "1m"})).contains("between 1s and 30s"));
        assert!(refused(json!({"within": "1m"})).contains("between 1s and 20s"));
        let key = |secret: &str| json!({"key": {"name": "dbmove", "secret": secret}});
        let error = refused(key("aHVudGVyMg=="));
        assert!(error.contains("by reference only") && !error.contains("aHVudGVyMg"), "{error}");
        assert!(refused(key("x${env:TSIG}")).contains("by reference only"));
    }

    #[test]
    fn a_rehearsal_never_gets_productions_record() {
        let refused = |rehearsal: Json| read(json!({ "rehearsal": rehearsal })).unwrap_err();
        for name in ["db.school.example", "DB.School.example."] {
            let error = refused(json!({ "name": name, "servers": ["192.0.2.9"] }));
            assert_eq!(error.failure, Failure::Refused);
            assert!(error.message.contains("is production's record"), "{error}");
        }
        assert!(refused(json!({"skip": " "})).message.contains("gives no reason"));
        let records = read(json!({"target": "10.0.0.5", "rehearsal": {"name": "try.school.example"}})).unwrap();
        let Rehearsed::Record(named) = records.rehearsal else { panic!("{records:?}") };
        // Production's target is not the rehearsal's.
        assert_eq!((named.servers.clone(), named.target.clone()), (vec![Template("192.0.2.1".to_owned())], None));
    }
}
