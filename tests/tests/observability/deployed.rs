//! What `deploy/` has for operators: dashboards, rules, runbook.

use runtime::telemetry::Kind;
use serde_json::Value;
use std::collections::BTreeSet;
use tests::dashboards::{alerts, dashboards, deploy, expressions, metrics_in};
use tests::process::Confiture;
use tests::prometheus::promtool;

fn known() -> BTreeSet<String> {
    coordinator::metrics::METRICS
        .iter()
        .chain(agent::metrics::METRICS)
        .map(|metric| metric.name.to_owned())
        .collect()
}

#[test]
fn rules_are_sound_and_fire_when_they_should_alone() -> anyhow::Result<()> {
    let folder = deploy().join("prometheus");
    promtool(&["check", "rules", "rules.yaml"], &folder, "")?;
    promtool(&["check", "config", "prometheus.yaml"], &folder, "")?;
    promtool(&["test", "rules", "rules_test.yaml"], &folder, "")?;
    // Each alert has a time at which it fires, and one at which it does not.
    let tests = std::fs::read_to_string(folder.join("rules_test.yaml"))?;
    let tests: Value = serde_saphyr::from_str(&tests)?;
    let cases: Vec<&Value> = tests["tests"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten())
        .collect();
    for alert in alerts()? {
        let of = |fires: bool| {
            cases.iter().any(|case| {
                let expected = case["exp_alerts"]
                    .as_array()
                    .is_some_and(|alerts| !alerts.is_empty());
                case["alertname"] == alert["alert"] && expected == fires
            })
        };
        assert!(of(true) && of(false), "{}", alert["alert"]);
    }
    Ok(())
}

#[test]
fn each_alert_has_a_page_and_each_page_an_alert() -> anyhow::Result<()> {
    let folder = deploy().join("runbook");
    let index = std::fs::read_to_string(folder.join("README.md"))?;
    let mut pages = BTreeSet::from(["README.md".to_owned(), "metrics.md".to_owned()]);
    for alert in alerts()? {
        let name = alert["alert"].as_str().unwrap_or_default();
        let page = format!("{name}.md");
        assert_eq!(alert["annotations"]["runbook"], page.as_str());
        assert!(
            index.contains(&format!("[{name}]({page})")),
            "{name} is not in the index"
        );
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(
            index.contains(&format!("[{name}]({page}) | {severity} |")),
            "{name}'s severity"
        );
        let text = std::fs::read_to_string(folder.join(&page))?;
        assert!(text.starts_with(&format!("# {name}\n")), "{page}");
        pages.insert(page);
    }
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        there.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    assert_eq!(there, pages);
    Ok(())
}

#[tokio::test]
async fn commands_of_the_runbook_are_those_of_the_program() -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(deploy().join("runbook"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        let quoted = text.split('`').skip(1).step_by(2);
        seen.extend(quoted.filter_map(|code| code.strip_prefix("confiture ").map(ToOwned::to_owned)));
    }
    assert!(seen.len() > 15, "{seen:?}");
    for command in seen {
        let words: Vec<&str> = command
            .split(' ')
            .filter(|word| !word.starts_with('\''))
            .collect();
        Confiture::check_usage(&words)
            .await
            .map_err(|error| error.context(command.clone()))?;
    }
    Ok(())
}

#[test]
fn what_is_shown_and_told_of_is_what_the_code_counts() -> anyhow::Result<()> {
    let asked: BTreeSet<String> = expressions()?
        .iter()
        .flat_map(|asked| metrics_in(&asked.expression))
        .collect();
    let documented = metrics_in(&std::fs::read_to_string(deploy().join("runbook/metrics.md"))?);
    assert_eq!(asked, known());
    assert_eq!(documented, known());
    // Each under its kind, in one of the tables.
    let page = std::fs::read_to_string(deploy().join("runbook/metrics.md"))?;
    for metric in coordinator::metrics::METRICS
        .iter()
        .chain(agent::metrics::METRICS)
    {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let row = format!("| `{}` | {kind} |", metric.name);
        assert!(page.contains(&row), "{row}");
    }
    Ok(())
}

#[test]
fn the_guides_panels_and_names_are_there() -> anyhow::Result<()> {
    let titles: BTreeSet<String> = dashboards()?
        .iter()
        .flat_map(|(_, dashboard)| dashboard["panels"].as_array().cloned().unwrap_or_default())
        .filter_map(|panel| panel["title"].as_str().map(ToOwned::to_owned))
        .collect();
    for title in [
        "p95 of migration duration",
        "p99 of lock wait",
        "Error rate",
        "Pool utilisation",
    ] {
        assert!(titles.contains(title), "{title}");
    }
    for name in [
        "confiture_migration_duration_seconds",
        "confiture_migration_lock_wait_seconds",
        "confiture_migration_total",
        "confiture_migration_errors_total",
        "confiture_connection_pool_size",
        "confiture_connection_pool_waiting",
        "confiture_connection_pool_max",
    ] {
        assert!(known().contains(name), "{name}");
    }
    Ok(())
}

#[test]
fn panels_do_not_lie_on_each_other() -> anyhow::Result<()> {
    for (name, dashboard) in dashboards()? {
        let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
        let ids: BTreeSet<i64> = panels.iter().filter_map(|panel| panel["id"].as_i64()).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: ids");
        let mut taken = BTreeSet::new();
        for panel in &panels {
            let at = |key: &str| panel["gridPos"][key].as_i64().unwrap_or(-1);
            let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
            assert!(
                x >= 0 && y >= 0 && w > 0 && h > 0 && x + w <= 24,
                "{name}: {}",
                panel["title"]
            );
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{name}: {} at {cell:?}", panel["title"]);
            }
        }
    }
    Ok(())
}
