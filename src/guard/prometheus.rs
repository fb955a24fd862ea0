//! The guard `prometheus.query`: what Prometheus says of an expression, now (`/api/v1/query`).
//!
//! With `above` or `below` every series of the answer has to be on the right side, and an answer without any series is no answer:
//! the metric may have died with what it measured. Without them the expression is written as an alert is: it has to give no series at
//! all (`mysql_up == 0`). A value that is no number is no answer either.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::{TIMEOUT, checked, remarks};
use super::without_an_answer;
use crate::engine::guards::{Guard, Look, Sight, Unseen};
use crate::engine::step::StepError;
use crate::http::{HttpEndpoint, Method};
use crate::playbook::model::Template;
use crate::playbook::quantity::HumanDuration;
use crate::playbook::reference::Resolver;
use crate::telemetry::printable::printable;

/// What `prometheus.query` can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrometheusArguments {
    /// Where Prometheus is: `http://prometheus:9090`, without `/api/v1/query`.
    pub url: Template,
    /// The expression.
    pub query: String,
    /// A higher value is too high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// A lower value is too low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// More headers, by name. What looks like a secret is given by reference: `Authorization: "Bearer ${env:TOKEN}"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Template>,
    /// A PEM file of the authorities that may vouch for the server, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long an answer may take. Default `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// The guard `prometheus.query`.
pub struct PrometheusQuery {
    endpoint: HttpEndpoint,
    query: String,
    above: Option<f64>,
    below: Option<f64>,
}

/// The answer, as Prometheus documents it (HTTP API, "instant queries").
#[derive(Deserialize)]
struct Answered {
    status: String,
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Series>),
    /// Moment and value.
    Scalar((f64, String)),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
}

impl PrometheusQuery {
    /// The name in a playbook.
    pub const NAME: &'static str = "prometheus.query";

    /// From the arguments.
    ///
    /// # Errors
    /// If the url, a header or the expression can't be used.
    pub fn new(arguments: PrometheusArguments) -> Result<PrometheusQuery, StepError> {
        let PrometheusArguments { url, query, above, below, headers, ca, timeout } = arguments;
        if query.trim().is_empty() {
            return Err(StepError::definite("`query` is empty").hint("write an expression, such as `mysql_global_status_threads_running`"));
        }
        if url.0.contains('?') {
            return Err(StepError::definite("`url` holds a `?`, and dbmove puts the query there itself"));
        }
        let url = Template(format!("{}/api/v1/query", url.0.trim_end_matches('/')));
        let endpoint = checked(HttpEndpoint { url, headers, ca, timeout: Some(timeout.unwrap_or(TIMEOUT)) })?;
        Ok(PrometheusQuery { endpoint, query, above, below })
    }

    fn judge(&self, answered: Answered) -> Result<Look, Unseen> {
        let Answered { status, data, error } = answered;
        if status != "success" {
            return Err(Unseen(format!("Prometheus says: {}", printable(&error.unwrap_or(status)))));
        }
        let series: Vec<(String, String)> = match data {
            Some(Data::Vector(series)) => {
                let value = |series: Series| series.value.map(|(_, value)| (named(&series.metric), value));
                series.into_iter().map(value).collect::<Option<_>>().ok_or_else(|| Unseen("a series has no value".to_owned()))?
            }
            Some(Data::Scalar((_, value))) => vec![(String::new(), value)],
            Some(Data::Matrix(_)) => return Err(Unseen("the query gives a range of values, and one value is needed".to_owned())),
            Some(Data::String(_)) => return Err(Unseen("the query gives a text, and a number is needed".to_owned())),
            None => return Err(Unseen("Prometheus answered without any data".to_owned())),
        };
        if self.above.is_none() && self.below.is_none() {
            return Ok(match series.first() {
                None => Look::Holds(format!("`{}` gives no series", self.query)),
                Some((name, value)) => {
                    let more = if series.len() > 1 { format!(" and {} more", series.len() - 1) } else { String::new() };
                    Look::Fails(format!("`{}` gives {} for `{}`{more}", self.query, printable(value), printable(name)))
                }
            });
        }
        if series.is_empty() {
            return Err(Unseen(format!("`{}` gives no series", self.query)));
        }
        let mut found = String::new();
        for (name, text) in series {
            let value: f64 = text
                .parse()
                .ok()
                .filter(|value: &f64| !value.is_nan())
                .ok_or_else(|| Unseen(format!("`{}` gives `{}`, which is no number", self.query, printable(&text))))?;
            let of = if name.is_empty() { String::new() } else { format!(" for `{}`", printable(&name)) };
            found = format!("`{}` is {value}{of}", self.query);
            if self.above.is_some_and(|most| value > most) || self.below.is_some_and(|least| value < least) {
                return Ok(Look::Fails(format!("{found}, and {}", self.condition())));
            }
        }
        Ok(Look::Holds(found))
    }
}

/// A series by its labels, as Prometheus writes it; not more of it than one line takes.
fn named(metric: &BTreeMap<String, String>) -> String {
    let name = metric.get("__name__").cloned().unwrap_or_default();
    let labels: Vec<String> =
        metric.iter().filter(|(label, _)| *label != "__name__").map(|(label, value)| format!("{label}={value}")).collect();
    let whole = if labels.is_empty() { name } else { format!("{name}{{{}}}", labels.join(",")) };
    whole.chars().take(120).collect()
}

#[async_trait]
impl Guard for PrometheusQuery {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn condition(&self) -> String {
        match (self.below, self.above) {
            (None, None) => format!("`{}` has to give no series", self.query),
            (None, Some(most)) => format!("`{}` has to be at most {most}", self.query),
            (Some(least), None) => format!("`{}` has to be at least {least}", self.query),
            (Some(least), Some(most)) => format!("`{}` has to be from {least} to {most}", self.query),
        }
    }
    fn remarks(&self) -> Vec<String> {
        remarks(&self.endpoint)
    }
    async fn look(&self, sight: &Sight) -> Result<Look, Unseen> {
        let resolver = Resolver::new(sight.outputs.clone());
        let asked = async { self.endpoint.request(Method::Get, &resolver).await?.query("query", &self.query)?.send().await };
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(error) => return without_an_answer(&error),
        };
        // An expression that is none is answered with status 400 and the reason.
        match serde_json::from_slice::<Answered>(&answer.body) {
            Ok(answered) if answer.is_success() || answered.status == "error" => self.judge(answered),
            _ => Err(Unseen(format!("`{}` does not answer as Prometheus does: {}", self.endpoint.url.0, answer.shown()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(above: Option<f64>, below: Option<f64>, answered: serde_json::Value) -> Result<Look, Unseen> {
        let (url, query) = (Template("http://p:9090/".to_owned()), "q".to_owned());
        let guard =
            PrometheusQuery::new(PrometheusArguments { url, query, above, below, headers: BTreeMap::new(), ca: None, timeout: None })
                .unwrap();
        assert_eq!(guard.endpoint.url.0, "http://p:9090/api/v1/query");
        guard.judge(serde_json::from_value(answered).unwrap())
    }

    fn vector(values: &[(&str, &str)]) -> serde_json::Value {
        let series: Vec<_> =
            values.iter().map(|(name, value)| json!({ "metric": { "__name__": "m", "on": name }, "value": [1.5, value] })).collect();
        json!({ "status": "success", "data": { "resultType": "vector", "result": series } })
    }

    #[test]
    fn every_series_has_to_be_on_the_right_side() {
        assert!(matches!(judged(Some(5.0), None, vector(&[("a", "5"), ("b", "-1")])), Ok(Look::Holds(_))));
        let failed = judged(Some(5.0), None, vector(&[("a", "5"), ("b", "5.5")]));
        assert_eq!(failed, Ok(Look::Fails("`q` is 5.5 for `m{on=b}`, and `q` has to be at most 5".to_owned())));
        assert!(matches!(judged(None, Some(1.0), vector(&[("a", "0")])), Ok(Look::Fails(_))));
        assert!(matches!(judged(Some(5.0), None, vector(&[("a", "+Inf")])), Ok(Look::Fails(_))));
        let scalar = json!({ "status": "success", "data": { "resultType": "scalar", "result": [1, "7"] } });
        assert!(matches!(judged(Some(5.0), None, scalar), Ok(Look::Fails(_))));
    }

    #[test]
    fn an_alert_gives_no_series() {
        assert!(matches!(judged(None, None, vector(&[])), Ok(Look::Holds(_))));
        assert_eq!(
            judged(None, None, vector(&[("a", "0"), ("b", "0")])),
            Ok(Look::Fails("`q` gives 0 for `m{on=a}` and 1 more".to_owned()))
        );
    }

    #[test]
    fn what_is_no_answer_is_not_taken_for_a_good_one() {
        let matrix = json!({ "status": "success", "data": { "resultType": "matrix", "result": [] } });
        let error = json!({ "status": "error", "errorType": "bad_data", "error": "parse \u{1b}[2J error" });
        for answered in [vector(&[]), vector(&[("a", "NaN")]), matrix, error, json!({ "status": "success" })] {
            let unseen = judged(Some(5.0), None, answered).unwrap_err();
            assert!(!unseen.0.contains('\u{1b}'), "{unseen}");
        }
    }
}
