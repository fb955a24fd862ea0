//! Foreign keys.

use super::super::DdlError;
use super::super::statement::{CreateTable, ItemKind};
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "foreign-key-parent",
    about: "Refuses a foreign key whose parent columns are no unique key, where the target does.",
    why: "MySQL 8.4 and later take one only with `restrict_fk_on_non_standard_key = OFF`; without the rule its refusal (error 6125) would come when the rows are in.",
    source: "MySQL manual, server system variable `restrict_fk_on_non_standard_key`; seen on 9.7.4.",
    apply: foreign_key_parent,
}];

fn foreign_key_parent(create: &mut CreateTable, context: &Context<'_>, _: &mut Changes) -> Result<(), DdlError> {
    if !context.standard_parents {
        return Ok(());
    }
    for item in create.items.iter().filter(|item| item.kind == ItemKind::ForeignKey) {
        let Some(key) = context.table.foreign_keys.iter().find(|key| key.name == item.name) else { continue };
        let Some(parent) = context.catalog.table(&key.parent) else { continue };
        if !parent.is_unique_over(&key.parent_columns) {
            let columns = key.parent_columns.join(", ");
            return Err(context.refused(&format!(
                "its foreign key `{}` references ({columns}) of `{}`, which is no unique key there; make it one, drop the foreign key, or set `restrict_fk_on_non_standard_key = OFF` on the target",
                key.name, key.parent
            )));
        }
    }
    Ok(())
}
