//! The JSON Schema, read by a checker of our own that knows exactly the keywords it uses.

use dbmove::playbook::ready::READY;
use dbmove::playbook::schema::schema;
use dbmove::playbook::vocabulary::Vocabulary;
use serde_json::{Value, json};

use crate::vocabulary::VOCABULARY;
use crate::{stem, yaml_files};

/// Keywords that say nothing about validity.
const ANNOTATIONS: [&str; 7] = ["$schema", "$id", "$defs", "title", "description", "default", "format"];

/// Draft 2020-12 for the keywords that are used; panics on any other, so that none is passed over.
fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(keywords) = schema.as_object() else { return schema.as_bool().unwrap() };
    let list = |keyword: &Value| keyword.as_array().unwrap().clone();
    keywords.iter().all(|(name, keyword)| match name.as_str() {
        name if ANNOTATIONS.contains(&name) => true,
        "$ref" => {
            let target = root.pointer(keyword.as_str().unwrap().strip_prefix('#').unwrap());
            valid(root, target.unwrap_or_else(|| panic!("{keyword} leads nowhere")), value)
        }
        "type" => {
            let types = if keyword.is_array() { list(keyword) } else { vec![keyword.clone()] };
            types.iter().any(|name| match name.as_str().unwrap() {
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                "null" => value.is_null(),
                other => panic!("type {other}"),
            })
        }
        "properties" => {
            keyword.as_object().unwrap().iter().all(|(name, inner)| value.get(name).is_none_or(|field| valid(root, inner, field)))
        }
        "additionalProperties" => value.as_object().is_none_or(|fields| {
            let known = schema.get("properties").and_then(Value::as_object);
            fields
                .iter()
                .filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)))
                .all(|(_, field)| valid(root, keyword, field))
        }),
        "required" => value.as_object().is_none_or(|fields| list(keyword).iter().all(|name| fields.contains_key(name.as_str().unwrap()))),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| valid(root, keyword, item))),
        "enum" => list(keyword).contains(value),
        "const" => keyword == value,
        "oneOf" => list(keyword).iter().filter(|inner| valid(root, inner, value)).count() == 1,
        "anyOf" => list(keyword).iter().any(|inner| valid(root, inner, value)),
        "allOf" => list(keyword).iter().all(|inner| valid(root, inner, value)),
        "if" => !valid(root, keyword, value) || keywords.get("then").is_none_or(|then| valid(root, then, value)),
        "then" => keywords.contains_key("if"),
        "minimum" => value.as_f64().is_none_or(|number| number >= keyword.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|number| number <= keyword.as_f64().unwrap()),
        // Patterns of quantities: what the quantities' own tests read is not read again here.
        "pattern" => keyword.is_string(),
        other => panic!("the schema uses `{other}`, which this checker does not know"),
    })
}

fn is_valid(text: &str) -> bool {
    valid_under(text, VOCABULARY)
}

fn valid_under(text: &str, vocabulary: Vocabulary) -> bool {
    let schema = schema(vocabulary);
    // As YAML 1.2 has it (and editors): `off` is a word.
    let options = serde_saphyr::options! { strict_booleans: true };
    valid(&schema, &schema, &serde_saphyr::from_str_with_options(text, options).unwrap())
}

#[test]
fn good_playbooks_are_valid() {
    for ready in READY {
        assert!(valid_under(ready.text, dbmove::steps::vocabulary()), "{}", ready.name);
    }
    for path in yaml_files("fixtures/playbooks/good") {
        assert!(is_valid(&std::fs::read_to_string(&path).unwrap()), "{}", path.display());
    }
}

#[test]
fn mistakes_of_shape_are_not_valid() {
    let of_shape = [
        "unknown_",
        "missing_field",
        "missing_include",
        "missing_store",
        "wrong_type_number",
        "wrong_type_text",
        "wrong_kind",
        "wrong_tls",
        "wrong_stage",
        "invalid_retries",
        "argument_unknown",
        "argument_wrong",
        "argument_out",
        "argument_missing",
        "argument_all",
        "argument_for_none",
        "argument_not",
        "store_for_storeless",
        "not_a_mapping",
        "just_text",
    ];
    // A schema can't know which names the playbook gives, nor the range of a Rust type (a `format`).
    let beyond = ["unknown_store", "invalid_retries_large"];
    let mut seen = 0;
    for path in yaml_files("fixtures/playbooks/broken") {
        let name = stem(&path);
        if of_shape.iter().any(|start| name.starts_with(start)) && !beyond.contains(&name.as_str()) {
            seen += 1;
            assert!(!is_valid(&std::fs::read_to_string(&path).unwrap()), "{name}");
        }
    }
    assert!(seen >= 20, "{seen}");
}

#[test]
fn the_schema_says_what_it_is() {
    let schema = schema(VOCABULARY);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let step = &schema["$defs"]["StepSpec"];
    let words: Vec<&str> =
        step["properties"]["run"]["oneOf"].as_array().unwrap().iter().map(|word| word["const"].as_str().unwrap()).collect();
    assert_eq!(words, VOCABULARY.steps.iter().map(|word| word.name).collect::<Vec<_>>());
    assert_eq!(step["allOf"].as_array().unwrap().len(), VOCABULARY.steps.len());
    // Nested definitions of a step's arguments are found under names of their own.
    assert!(schema["$defs"]["with.mysql.verify.Scope"].is_object());
    assert_eq!(schema["$defs"]["with.mysql.snapshot"]["properties"]["workers"]["maximum"], json!(64));
}
