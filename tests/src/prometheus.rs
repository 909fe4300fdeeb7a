//! A throw-away Prometheus, and its checker.

use crate::directory::Directory;
use crate::port::Port;
use crate::process::Process;
use crate::wait::eventually;
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const START: Duration = Duration::from_secs(30);

/// How often it scrapes.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// One that scrapes; gone with its data when dropped.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    port: Port,
    _folder: Directory,
}

/// One series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: Value,
    /// Its value; may be no number.
    pub value: f64,
}

impl Prometheus {
    /// Starts one that scrapes these jobs, each a name and a port of this machine, and waits until it answers.
    pub async fn start(jobs: &[(&str, u16)]) -> anyhow::Result<Self> {
        let jobs: Vec<Value> = jobs
            .iter()
            .map(|(job, port)| {
                serde_json::json!({
                    "job_name": job,
                    "static_configs": [{ "targets": [format!("127.0.0.1:{port}")] }],
                })
            })
            .collect();
        let interval = format!("{}s", INTERVAL.as_secs());
        let settings = serde_json::json!({
            "global": { "scrape_interval": interval, "evaluation_interval": interval },
            "scrape_configs": jobs,
        });
        let (folder, port) = (Directory::new()?, Port::claim()?);
        folder.write("prometheus.yml", settings.to_string())?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .arg("--config.file")
            .arg(folder.path().join("prometheus.yml"))
            .arg("--storage.tsdb.path")
            .arg(folder.path().join("data"));
        let prometheus = Self {
            process: Process::start("prometheus", command)?,
            port,
            _folder: folder,
        };
        eventually("Prometheus to answer", START, || async {
            prometheus.ask("vector(1)").await.map(Some)
        })
        .await
        .with_context(|| prometheus.process.stderr())?;
        Ok(prometheus)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// What an expression gives now.
    pub async fn ask(&self, expression: &str) -> anyhow::Result<Vec<Sample>> {
        let url = format!("{}/api/v1/query", self.url());
        let answer = reqwest::Client::new()
            .get(url)
            .query(&[("query", expression)])
            .timeout(START)
            .send()
            .await?;
        let answer: Value = answer.json().await?;
        ensure!(
            answer["status"] == "success",
            "`{expression}`: {}",
            answer["error"].as_str().unwrap_or_default()
        );
        let result = &answer["data"]["result"];
        if answer["data"]["resultType"] == "scalar" {
            return Ok(vec![sample(&Value::Null, result)?]);
        }
        let series = result.as_array().context("no list of series")?;
        series
            .iter()
            .map(|series| sample(&series["metric"], &series["value"]))
            .collect()
    }
}

fn sample(labels: &Value, value: &Value) -> anyhow::Result<Sample> {
    let text = value[1].as_str().context("a sample without a value")?;
    Ok(Sample {
        labels: labels.clone(),
        value: text.parse()?,
    })
}

/// `promtool ARGS.. < INPUT`, which must find nothing to complain about.
pub fn promtool(args: &[&str], folder: &Path, input: &str) -> anyhow::Result<()> {
    let mut child = Command::new("promtool")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run promtool")?;
    let mut stdin = child.stdin.take().context("it has no input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let ended = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    if !ended.status.success() {
        bail!("promtool {}: {said}", args.join(" "));
    }
    Ok(())
}

/// The sum of all series of one metric that have these labels (`outcome="missed"`), in a text of metrics; `None` where
/// there is none.
pub fn total(text: &str, metric: &str, labels: &[&str]) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let of_series = series.strip_prefix(metric)?;
        let is_it = of_series.is_empty() || of_series.starts_with('{');
        let has = labels.iter().all(|label| of_series.contains(label));
        (is_it && has).then(|| value.parse::<f64>().ok())?
    });
    values.reduce(|one, other| one + other)
}

/// What a page says: its status and its text.
pub async fn page(port: u16, path: &str) -> anyhow::Result<(u16, String)> {
    let answer = reqwest::get(format!("http://127.0.0.1:{port}{path}")).await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
