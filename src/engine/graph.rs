//! The steps of a playbook as a graph: who waits for whom, and where the point of no return lies.
//!
//! A step without `needs` waits for the one written before it in its stage; with `needs` it waits for those alone. The point of no
//! return is a barrier: it waits for everything written before it in `cutover`, and everything written after waits for
//! it. So nothing of the stage is still moving when the engine decides whether to take that step, and nothing that belongs
//! behind it can happen before. If no step is marked, the first one in `cutover` that can't be undone is it.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::PlannedStep;
use super::run::{BuiltStep, EngineError};
use super::step::{StepKind, Undoable};
use crate::playbook::model::StageName;

/// Steps in the order of their stages, with what each waits for.
pub(super) struct Graph {
    pub steps: Vec<BuiltStep>,
    pub needs: Vec<BTreeSet<usize>>,
    pub point_of_no_return: Option<usize>,
}

impl Graph {
    /// Checks that the steps fit together.
    pub fn new(mut steps: Vec<BuiltStep>) -> Result<Graph, EngineError> {
        let wrong = |message: String| Err(EngineError::Playbook(message));
        steps.sort_by_key(|built| built.stage);
        let mut index_of: BTreeMap<String, usize> = BTreeMap::new();
        for (index, built) in steps.iter().enumerate() {
            if index_of.insert(built.spec.id.clone(), index).is_some() {
                return wrong(format!("two steps are called `{}`; give each its own id", built.spec.id));
            }
        }
        let mut marked = None;
        for (index, built) in steps.iter().enumerate().filter(|(_, built)| built.spec.point_of_no_return) {
            if built.stage != StageName::Cutover {
                return wrong(format!(
                    "step `{}` is marked as point of no return, but lies in `{}`: it must be in `cutover`",
                    built.spec.id,
                    built.stage.as_str()
                ));
            }
            if let Some(other) = marked.replace(index) {
                return wrong(format!(
                    "steps `{}` and `{}` are both marked as point of no return; there is only one",
                    steps[other].spec.id, built.spec.id
                ));
            }
        }
        let point = marked.or_else(|| {
            steps.iter().position(|built| built.stage == StageName::Cutover && matches!(built.step.undoable(), Undoable::No(_)))
        });
        let mut needs = Vec::with_capacity(steps.len());
        for (index, built) in steps.iter().enumerate() {
            let same_stage = |other: usize| steps[other].stage == built.stage;
            let mut mine = BTreeSet::new();
            match &built.spec.needs {
                None => mine.extend(index.checked_sub(1).filter(|before| same_stage(*before))),
                Some(ids) => {
                    for id in ids {
                        match index_of.get(id) {
                            Some(other) if same_stage(*other) && *other != index => mine.insert(*other),
                            Some(_) => {
                                return wrong(format!(
                                    "step `{}` needs `{id}`, which is not another step of stage `{}`",
                                    built.spec.id,
                                    built.stage.as_str()
                                ));
                            }
                            None => return wrong(format!("step `{}` needs `{id}`, but there is no such step", built.spec.id)),
                        };
                    }
                }
            }
            if let Some(point) = point.filter(|point| same_stage(*point)) {
                if index == point {
                    mine.extend((0..index).filter(|other| same_stage(*other)));
                } else if index > point {
                    mine.insert(point);
                }
            }
            needs.push(mine);
        }
        let graph = Graph { steps, needs, point_of_no_return: point };
        graph.order()?;
        Ok(graph)
    }

    /// The steps so that each comes after those it needs.
    fn order(&self) -> Result<Vec<usize>, EngineError> {
        let mut order: Vec<usize> = Vec::with_capacity(self.steps.len());
        while order.len() < self.steps.len() {
            let next =
                (0..self.steps.len()).find(|index| !order.contains(index) && self.needs[*index].iter().all(|need| order.contains(need)));
            match next {
                Some(next) => order.push(next),
                None => {
                    let stuck: Vec<String> = (0..self.steps.len())
                        .filter(|index| !order.contains(index))
                        .map(|index| format!("`{}`", self.steps[index].spec.id))
                        .collect();
                    return Err(EngineError::Playbook(format!(
                        "steps {} wait for each other (the point of no return waits for all steps written before it); take one of their `needs` away",
                        stuck.join(", ")
                    )));
                }
            }
        }
        Ok(order)
    }

    /// The steps of one stage.
    pub fn stage(&self, stage: StageName) -> Vec<usize> {
        (0..self.steps.len()).filter(|index| self.steps[*index].stage == stage).collect()
    }

    /// The id of a step.
    pub fn id(&self, index: usize) -> &str {
        &self.steps[index].spec.id
    }

    /// The index of a step.
    pub fn index(&self, id: &str) -> Option<usize> {
        self.steps.iter().position(|built| built.spec.id == id)
    }

    /// The steps for the journal.
    pub fn plan(&self) -> Vec<PlannedStep> {
        self.steps
            .iter()
            .enumerate()
            .map(|(index, built)| PlannedStep {
                id: built.spec.id.clone(),
                name: built.spec.run.clone(),
                stage: built.stage,
                service: built.step.kind() == StepKind::Service,
                point_of_no_return: self.point_of_no_return == Some(index),
                question: built.step.question().map(str::to_owned),
                keeps_way_back: built.step.keeps_way_back(),
            })
            .collect()
    }

    /// The longest way through steps that take so many seconds: its length, and which steps lie on it. Stages follow each other.
    pub fn critical_path(&self, seconds: &[f64]) -> (f64, BTreeSet<usize>) {
        let mut finish = vec![0.0_f64; self.steps.len()];
        let mut total = 0.0;
        let mut path = BTreeSet::new();
        // An acyclic graph has an order; `new` has made sure of it.
        let order = self.order().unwrap_or_default();
        for stage in StageName::ALL {
            let members: Vec<usize> = order.iter().copied().filter(|index| self.steps[*index].stage == stage).collect();
            for &index in &members {
                let before = self.needs[index].iter().map(|need| finish[*need]).fold(0.0, f64::max);
                finish[index] = before + seconds[index];
            }
            let mut last = members.iter().copied().max_by(|a, b| finish[*a].total_cmp(&finish[*b]));
            total += last.map_or(0.0, |last| finish[last]);
            while let Some(index) = last {
                path.insert(index);
                last = self.needs[index].iter().copied().max_by(|a, b| finish[*a].total_cmp(&finish[*b]));
            }
        }
        (total, path)
    }
}
