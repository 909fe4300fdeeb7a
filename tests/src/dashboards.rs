//! What `deploy/` asks of Prometheus: the expressions of its dashboards and rules.

use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// `deploy/` of this project.
pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// An expression, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The file, and what of it.
    pub place: String,
    /// For Prometheus, with the variables of Grafana.
    pub expression: String,
}

/// A dashboard's file and what is in it.
pub fn dashboards() -> anyhow::Result<Vec<(String, Value)>> {
    ["fleet.json", "database.json"]
        .into_iter()
        .map(|name| {
            let text = std::fs::read_to_string(deploy().join("grafana").join(name))?;
            Ok((name.to_owned(), serde_json::from_str(&text).context(name)?))
        })
        .collect()
}

/// The alerts of the rules.
pub fn alerts() -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(deploy().join("prometheus/rules.yaml"))?;
    let rules: Value = serde_saphyr::from_str(&text)?;
    let rules = rules["groups"][0]["rules"].as_array();
    Ok(rules.context("the rules have no group")?.clone())
}

/// All expressions of panels and rules.
pub fn expressions() -> anyhow::Result<Vec<Asked>> {
    let mut all = Vec::new();
    for (name, dashboard) in dashboards()? {
        for panel in dashboard["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                all.push(Asked {
                    place: format!("{name}, {}", panel["title"]),
                    expression: target["expr"]
                        .as_str()
                        .context("a target without a query")?
                        .to_owned(),
                });
            }
        }
    }
    for alert in alerts()? {
        all.push(Asked {
            place: format!("rules.yaml, {}", alert["alert"]),
            expression: alert["expr"]
                .as_str()
                .context("an alert without a query")?
                .to_owned(),
        });
    }
    Ok(all)
}

/// The metrics of ours that a text names, without what histograms add to them.
pub fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !is_part(c))
        .filter(|word| word.starts_with("confiture_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}
