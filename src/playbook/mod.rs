//! The playbook: a YAML file that says which stores move and in which steps. Data, not code.

pub mod model;
