//! The step that no playbook names: it fills a rehearsal's source, where the store's `rehearsal` block asks for that.
//!
//! It is a step like any other, so that it is planned, forecast, journaled, taken up again after a crash and undone like one. It stands right before the
//! first step that works on its store, and that step and all of the same store and stage wait for it. In a production run there is none.

use std::sync::Arc;

use super::deferred::Deferred;
use super::shared::Shared;
use super::{Constructor, StepArguments};
use crate::engine::run::BuiltStep;
use crate::engine::step::StepError;
use crate::mysql::steps::fill::FillCopy;
use crate::playbook::model::{Playbook, StageName, StepSpec};

/// The step for a store; its stage is that of the step it stands before.
pub(super) fn step(playbook: &Playbook, store: &str, shared: &Arc<Shared>) -> Result<BuiltStep, StepError> {
    let mut id = format!("fill-{store}");
    while playbook.stages.iter().any(|(_, spec)| spec.id == id) {
        id.push('_');
    }
    let constructor = Constructor::Mysql(|store, _| Ok(Arc::new(FillCopy { store })));
    let step = Deferred::step(StepArguments::new(), constructor, Arc::clone(shared))?;
    let spec = StepSpec {
        id,
        run: FillCopy::NAME.to_owned(),
        store: Some(store.to_owned()),
        with: StepArguments::new(),
        needs: None,
        point_of_no_return: false,
        retries: None,
    };
    Ok(BuiltStep { spec, stage: StageName::Prepare, step })
}

/// Makes the other steps of the store wait for it, those too that say what they wait for.
pub(super) fn come_first(steps: &mut [BuiltStep]) {
    let fills: Vec<(Option<String>, StageName, String)> = steps
        .iter()
        .filter(|built| built.spec.run == FillCopy::NAME)
        .map(|built| (built.spec.store.clone(), built.stage, built.spec.id.clone()))
        .collect();
    for built in steps.iter_mut() {
        for (store, stage, fill) in &fills {
            if built.spec.store == *store
                && built.stage == *stage
                && built.spec.id != *fill
                && let Some(needs) = &mut built.spec.needs
            {
                needs.push(fill.clone());
            }
        }
    }
}
