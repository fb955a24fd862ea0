//! Which steps come before which: stages in their order, and within a stage what `needs` says.
//!
//! Without `needs` a step follows the one written before it. With it (an empty list too) it starts
//! as soon as the named ones are done, beside others. The graph of one stage is therefore: for
//! each step the named ones, or else the one above. "Before" means reachable in that graph.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A step as far as order is concerned.
pub(crate) struct Ordered<'a> {
    pub id: &'a str,
    pub needs: Option<Vec<&'a str>>,
}

/// The ids each step of a stage directly follows.
pub(crate) fn followed<'a>(steps: &[Ordered<'a>]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut result = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        let follows: BTreeSet<&str> = match &step.needs {
            Some(needs) => needs.iter().copied().collect(),
            None => index.checked_sub(1).map(|above| steps[above].id).into_iter().collect(),
        };
        // A double id is another mistake; the first one stands.
        result.entry(step.id).or_insert(follows);
    }
    result
}

/// Everything that is done before `id` starts, within its stage.
pub(crate) fn before<'a>(followed: &BTreeMap<&'a str, BTreeSet<&'a str>>, id: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&'a str> = followed.get(id).into_iter().flatten().copied().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(followed.get(next).into_iter().flatten().copied());
        }
    }
    reached
}

/// A circle of steps that wait for each other, from the first one written, if there is one.
pub(crate) fn cycle<'a>(steps: &[Ordered<'a>], followed: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    let start = steps.iter().map(|step| step.id).find(|id| before(followed, id).contains(id))?;
    // Breadth first, so that the shortest circle is shown: it is the easiest to understand.
    let mut came_from: BTreeMap<&'a str, &'a str> = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(at) = open.pop_front() {
        for &next in followed.get(at).into_iter().flatten() {
            if next == start {
                let mut path = vec![start, at];
                let mut back = at;
                while back != start {
                    back = came_from.get(back)?;
                    path.push(back);
                }
                path.reverse();
                return Some(path);
            }
            if let Entry::Vacant(place) = came_from.entry(next) {
                place.insert(at);
                open.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step<'a>(id: &'a str, needs: Option<&[&'a str]>) -> Ordered<'a> {
        Ordered { id, needs: needs.map(<[&str]>::to_vec) }
    }

    #[test]
    fn without_needs_each_follows_the_one_above() {
        let graph = followed(&[step("a", None), step("b", None), step("c", None)]);
        assert_eq!(before(&graph, "c"), BTreeSet::from(["a", "b"]));
        assert_eq!(before(&graph, "a"), BTreeSet::new());
    }

    #[test]
    fn with_needs_a_step_runs_beside_others() {
        let graph = followed(&[step("a", None), step("b", Some(&[])), step("c", Some(&["a"])), step("d", None)]);
        assert_eq!(before(&graph, "c"), BTreeSet::from(["a"]));
        assert_eq!(before(&graph, "d"), BTreeSet::from(["a", "c"]));
    }

    #[test]
    fn circles_are_found_through_what_is_written_above_too() {
        let steps = [step("a", Some(&["b"])), step("b", None)];
        assert_eq!(cycle(&steps, &followed(&steps)), Some(vec!["a", "b", "a"]));
        let steps = [step("a", None), step("b", Some(&["b"]))];
        assert_eq!(cycle(&steps, &followed(&steps)), Some(vec!["b", "b"]));
        let steps = [step("a", None), step("b", None)];
        assert_eq!(cycle(&steps, &followed(&steps)), None);
        // `x` leads into the circle and is no part of it; a dead end is passed by.
        let steps = [step("a", Some(&["c"])), step("b", Some(&["a"])), step("c", Some(&["a", "b"])), step("x", Some(&["a"]))];
        assert_eq!(cycle(&steps, &followed(&steps)), Some(vec!["a", "c", "a"]));
    }
}
