//! The JSON Schema of playbooks (draft 2020-12), for editors and other programs.
//!
//! Made from the [`super::model`] and the vocabulary: `run` is one of the steps there are, and for
//! each of them an `if`/`then` gives `with` the step's own arguments and says whether `store` is
//! needed. What a schema can't say (unique ids, order, references) only `dbmove playbook check` knows.

use serde_json::{Map, Value, json};

use super::model::{Playbook, StageName};
use super::vocabulary::Vocabulary;

/// The `$id` of the schema: its version changes when an older playbook would no longer be valid.
const IDENTITY: &str = "urn:dbmove:playbook:1";

/// The schema as JSON.
#[must_use]
pub fn schema(Vocabulary { steps: vocabulary, guards, .. }: Vocabulary) -> Value {
    let mut schema = schemars::schema_for!(Playbook).to_value();
    schema["$id"] = json!(IDENTITY);
    schema["title"] = json!("dbmove playbook");
    let mut definitions = Map::new();
    let mut conditions = Vec::new();
    for word in vocabulary {
        let name = format!("with.{}", word.name);
        let required = add_arguments(&mut definitions, &name, (word.arguments)().to_value());
        let mut then = json!({ "properties": { "with": { "$ref": format!("#/$defs/{name}") } } });
        let mut needed: Vec<&str> = Vec::new();
        if required {
            needed.push("with");
        }
        if word.store.is_some() {
            needed.push("store");
        } else {
            then["properties"]["store"] = json!(false);
        }
        if !needed.is_empty() {
            then["required"] = json!(needed);
        }
        conditions.push(json!({ "if": { "properties": { "run": { "const": word.name } }, "required": ["run"] }, "then": then }));
    }
    let words: Vec<Value> = vocabulary.iter().map(|word| json!({ "const": word.name, "description": word.about })).collect();
    if let Some(step) = schema["$defs"]["StepSpec"].as_object_mut() {
        step["properties"]["run"] = json!({ "description": "What it does.", "type": "string", "oneOf": words });
        step.insert("allOf".to_owned(), json!(conditions));
    }
    let mut conditions = Vec::new();
    for word in guards {
        let name = format!("with.{}", word.name);
        let required = add_arguments(&mut definitions, &name, (word.arguments)().to_value());
        let mut then = json!({ "properties": { "with": { "$ref": format!("#/$defs/{name}") } } });
        let mut needed: Vec<&str> = if required { vec!["with"] } else { Vec::new() };
        if word.store.is_some() {
            needed.push("store");
        } else {
            then["properties"]["store"] = json!(false);
        }
        then["required"] = json!(needed);
        conditions.push(json!({ "if": { "properties": { "watch": { "const": word.name } }, "required": ["watch"] }, "then": then }));
    }
    let words: Vec<Value> = guards.iter().map(|word| json!({ "const": word.name, "description": word.about })).collect();
    if let Some(guard) = schema["$defs"]["GuardSpec"].as_object_mut() {
        guard["properties"]["watch"] = json!({ "description": "What is looked at.", "type": "string", "oneOf": words });
        guard.insert("allOf".to_owned(), json!(conditions));
    }
    for stage in StageName::ALL {
        let here: Vec<&str> = vocabulary.iter().filter(|word| word.stages.contains(&stage)).map(|word| word.name).collect();
        let items = &mut schema["$defs"]["Stages"]["properties"][stage.as_str()]["items"];
        *items = json!({ "allOf": [items.take(), { "properties": { "run": { "enum": here } } }] });
    }
    if let Some(all) = schema["$defs"].as_object_mut() {
        all.extend(definitions);
    }
    schema
}

/// Puts a step's argument schema among the definitions under names of its own; true if an argument is required.
fn add_arguments(definitions: &mut Map<String, Value>, name: &str, mut schema: Value) -> bool {
    let inner = schema.as_object_mut().and_then(|fields| {
        fields.remove("$schema");
        fields.remove("$defs")
    });
    let required = schema["required"].as_array().is_some_and(|required| !required.is_empty());
    rename(&mut schema, name);
    definitions.insert(name.to_owned(), schema);
    if let Some(Value::Object(inner)) = inner {
        for (key, mut value) in inner {
            rename(&mut value, name);
            definitions.insert(format!("{name}.{key}"), value);
        }
    }
    required
}

/// Two steps may have argument types of the same name: each gets its own definitions.
fn rename(value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                if key == "$ref"
                    && let Some(target) = field.as_str().and_then(|text| text.strip_prefix("#/$defs/"))
                {
                    *field = json!(format!("#/$defs/{name}.{target}"));
                } else {
                    rename(field, name);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, name)),
        _ => {}
    }
}
