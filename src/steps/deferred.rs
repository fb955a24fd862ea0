//! A step that refers to secrets or to outputs of earlier steps, in its arguments or in its store's address: resolved each
//! time it acts, and forgotten after.
//!
//! A playbook is built hours before its last step acts: an output it refers to may not exist yet, and a secret should not lie in memory
//! for the night. So the step is made twice: once with its references as written, which tells what it is (its kind, whether it can
//! be undone) and finds wrong arguments before anything starts; and for every verb that acts, from what the references lead to then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::Constructor;
use super::registry::MakeMysql;
use super::shared::{Materials, Shared};
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Estimate, Output, Plan, Probe, Step, StepError, StepKind, Undoable};
use crate::playbook::model::Template;
use crate::playbook::reference::{Piece, Resolver};
use crate::playbook::secret::ReferenceError;
use crate::playbook::vocabulary::ArgumentError;

/// The argument whose values are secrets by name.
const ENVIRONMENT: &str = "env";
/// The argument that is one secret.
const PASSWORD: &str = "password";

/// A step's arguments with what they refer to.
pub struct Resolved {
    /// The arguments, texts resolved; secrets as they are written.
    pub with: Map<String, Value>,
    /// The values of `env`.
    pub environment: BTreeMap<String, SecretString>,
    /// The value of `password`.
    pub password: Option<SecretString>,
}

/// A step that is made anew whenever it acts.
pub struct Deferred {
    with: Map<String, Value>,
    constructor: Constructor,
    shared: Arc<Shared>,
    /// Tells what the step is; never acts.
    shape: Arc<dyn Step>,
}

/// Refuses references in arguments that are used as they are written.
///
/// # Errors
/// Names the first such argument.
pub fn no_references(with: &Map<String, Value>, arguments: &[&str]) -> Result<(), ArgumentError> {
    fn holds_reference(value: &Value) -> bool {
        match value {
            Value::String(text) => {
                Template(text.clone()).parse().is_ok_and(|pieces| pieces.iter().any(|piece| matches!(piece, Piece::Reference(_))))
            }
            Value::Array(items) => items.iter().any(holds_reference),
            Value::Object(fields) => fields.values().any(holds_reference),
            _ => false,
        }
    }
    for argument in arguments {
        if with.get(*argument).is_some_and(holds_reference) {
            let message =
                format!("`{argument}` is used as it is written and can't hold a reference; give a command what it needs through `env`");
            return Err(ArgumentError::field(*argument, message));
        }
    }
    Ok(())
}

impl Deferred {
    /// A step of arguments as written. One of a MySQL store that is known refers to nothing, and is made once.
    ///
    /// # Errors
    /// What the step has against its arguments.
    pub fn step(with: Map<String, Value>, constructor: Constructor, shared: Arc<Shared>) -> Result<Arc<dyn Step>, StepError> {
        let shape = match constructor {
            Constructor::Arguments { make, .. } => {
                let names = with.get(ENVIRONMENT).and_then(Value::as_object).into_iter().flatten();
                let environment = names.map(|(name, _)| (name.clone(), SecretString::default())).collect();
                make(&Resolved { with: with.clone(), environment, password: None }, shared.shape())?
            }
            Constructor::Mysql(make) => mysql_step(make, &with, shared.shape())?,
        };
        if matches!(constructor, Constructor::Mysql(_)) && !shared.is_late() && !shared.is_filled() {
            return Ok(shape);
        }
        Ok(Arc::new(Deferred { with, constructor, shared, shape }))
    }

    /// The step as it acts now.
    async fn resolved(&self, context: &StepContext) -> Result<Arc<dyn Step>, StepError> {
        let (make, texts) = match self.constructor {
            Constructor::Arguments { make, texts } => (make, texts),
            Constructor::Mysql(make) => {
                return mysql_step(make, &self.with, &*self.shared.bound(&context.run, &context.outputs).await?);
            }
        };
        let resolver = Resolver::new(Arc::clone(&context.outputs));
        let failed =
            |argument: &str, error: &ReferenceError| StepError::definite(format!("`{argument}` of step `{}`: {error}", context.step));
        let mut with = self.with.clone();
        for argument in texts {
            if unused(argument, &self.with, context.kind) {
                continue;
            }
            if let Some(Value::String(text)) = with.get_mut(*argument) {
                *text = Template(text.clone()).resolve_text(&resolver).await.map_err(|error| failed(argument, &error))?;
            }
        }
        let mut environment = BTreeMap::new();
        for (name, value) in with.get(ENVIRONMENT).and_then(Value::as_object).into_iter().flatten() {
            if let Value::String(text) = value {
                environment
                    .insert(name.clone(), secret(text, &resolver).await.map_err(|error| failed(&format!("{ENVIRONMENT}.{name}"), &error))?);
            }
        }
        let password = match with.get(PASSWORD) {
            Some(Value::String(text)) => Some(secret(text, &resolver).await.map_err(|error| failed(PASSWORD, &error))?),
            _ => None,
        };
        let materials = self.shared.bound(&context.run, &context.outputs).await?;
        make(&Resolved { with, environment, password }, &materials)
    }
}

fn mysql_step(make: MakeMysql, with: &Map<String, Value>, materials: &Materials) -> Result<Arc<dyn Step>, StepError> {
    match &materials.mysql {
        Some(store) => make(Arc::clone(store), with),
        None => Err(StepError::definite("it works on a MySQL store: name one with `store`")),
    }
}

/// Whether this kind of run does not look at the argument: production leaves `rehearsal_…` alone, and a rehearsal what it has
/// a `rehearsal_…` counterpart for. What they refer to need not be there then.
fn unused(argument: &str, with: &Map<String, Value>, kind: RunKind) -> bool {
    match kind {
        RunKind::Production => argument.starts_with("rehearsal_"),
        RunKind::Rehearsal => with.contains_key(&format!("rehearsal_{argument}")),
    }
}

async fn secret(text: &str, resolver: &Resolver) -> Result<SecretString, ReferenceError> {
    Template(text.to_owned()).resolve_secret(resolver).await
}

#[async_trait]
impl Step for Deferred {
    fn name(&self) -> &'static str {
        self.shape.name()
    }
    fn kind(&self) -> StepKind {
        self.shape.kind()
    }
    fn undoable(&self) -> Undoable {
        self.shape.undoable()
    }
    fn undo_does(&self) -> String {
        self.shape.undo_does()
    }
    fn volatile(&self) -> bool {
        self.shape.volatile()
    }
    fn stops_within(&self) -> Duration {
        self.shape.stops_within()
    }
    fn holds_writes(&self) -> bool {
        self.shape.holds_writes()
    }
    fn check_write_gap(&self, max_write_gap: Duration) -> Result<(), StepError> {
        self.shape.check_write_gap(max_write_gap)
    }
    fn question(&self) -> Option<&str> {
        self.shape.question()
    }
    fn keeps_way_back(&self) -> bool {
        self.shape.keeps_way_back()
    }
    fn ends_way_back(&self) -> bool {
        self.shape.ends_way_back()
    }
    fn holds_clients(&self) -> bool {
        self.shape.holds_clients()
    }
    /// With what is known now: an output of a step that has not run is shown as the reference it is. The shape of a MySQL step
    /// has no server to ask, and one whose source is filled in the run has nothing there to look at.
    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let unresolved = match self.resolved(context).await {
            Ok(step) => match step.plan(context).await {
                Err(_) if self.shared.is_filled() => StepError::definite("the rehearsal's source is filled first"),
                planned => return planned,
            },
            Err(unresolved) => unresolved,
        };
        let mut plan = match self.constructor {
            Constructor::Arguments { .. } if !self.shared.is_filled() => self.shape.plan(context).await?,
            Constructor::Arguments { .. } => Plan::default(),
            Constructor::Mysql(_) => Plan { lines: Vec::new(), warnings: Vec::new() },
        };
        plan.lines.push(format!("not known yet: {}", unresolved.message));
        Ok(plan)
    }
    async fn estimate(&self, context: &StepContext) -> Result<Estimate, StepError> {
        match self.constructor {
            // No secret is looked up, and no command run, for a figure.
            Constructor::Arguments { .. } => self.shape.estimate(context).await,
            Constructor::Mysql(_) => match self.resolved(context).await {
                Ok(step) => match step.estimate(context).await {
                    Err(_) if self.shared.is_filled() => Ok(Estimate::Unknown("the rehearsal's source is filled first".to_owned())),
                    estimated => estimated,
                },
                Err(_) => Ok(Estimate::Unknown("its server is not known yet".to_owned())),
            },
        }
    }
    async fn facts_today(&self, context: &StepContext) -> Result<Option<BTreeMap<String, Value>>, StepError> {
        match self.constructor {
            // No secret is looked up, and no command run, for what they don't tell.
            Constructor::Arguments { .. } => self.shape.facts_today(context).await,
            Constructor::Mysql(_) => self.resolved(context).await?.facts_today(context).await,
        }
    }
    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        self.resolved(context).await?.run(context).await
    }
    async fn finish(&self, context: &StepContext) -> Result<(), StepError> {
        self.resolved(context).await?.finish(context).await
    }
    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        self.resolved(context).await?.probe(context).await
    }
    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        self.resolved(context).await?.undo(context).await
    }
    async fn near_back(&self, context: &StepContext) -> Result<(), StepError> {
        self.resolved(context).await?.near_back(context).await
    }
    async fn take_back(&self, context: &StepContext, watched: bool) -> Result<Output, StepError> {
        self.resolved(context).await?.take_back(context, watched).await
    }
    async fn keep_held(&self, context: &StepContext) -> Result<(), StepError> {
        match self.constructor {
            // No secret is looked up while clients wait: what is kept is with the store.
            Constructor::Arguments { .. } => self.shape.keep_held(context).await,
            Constructor::Mysql(_) => self.resolved(context).await?.keep_held(context).await,
        }
    }
    async fn keep_back(&self, context: &StepContext) -> Result<(), StepError> {
        self.resolved(context).await?.keep_back(context).await
    }
    async fn give_back(&self, context: &StepContext) -> Result<(), StepError> {
        self.resolved(context).await?.give_back(context).await
    }
    async fn hold_for_rollback(&self, context: &StepContext) -> Result<(), StepError> {
        self.resolved(context).await?.hold_for_rollback(context).await
    }
    async fn let_through_again(&self, context: &StepContext) -> Result<(), StepError> {
        self.resolved(context).await?.let_through_again(context).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_kind_of_run_resolves_its_own_arguments() {
        let with = Map::from_iter([("content".to_owned(), Value::from("a")), ("rehearsal_content".to_owned(), Value::from("b"))]);
        let looked_at = |kind| ["content", "rehearsal_content"].into_iter().filter(|name| !unused(name, &with, kind)).collect::<Vec<_>>();
        assert_eq!(looked_at(RunKind::Production), ["content"]);
        assert_eq!(looked_at(RunKind::Rehearsal), ["rehearsal_content"]);
        assert!(!unused("content", &Map::new(), RunKind::Rehearsal));
    }

    #[test]
    fn words_of_a_command_hold_no_references() {
        let with = json!({ "command": ["notify", "--token", "${env:TOKEN}"], "env": { "TOKEN": "${env:TOKEN}" } });
        let with = with.as_object().unwrap();
        assert_eq!(no_references(with, &["command"]).unwrap_err().field.as_deref(), Some("command"));
        assert!(no_references(with, &["undo"]).is_ok());
        assert!(no_references(json!({ "command": ["a", "$HOME"] }).as_object().unwrap(), &["command"]).is_ok());
    }
}
