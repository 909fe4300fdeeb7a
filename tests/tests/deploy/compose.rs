//! `docker-compose.yml` as values.

use anyhow::Context as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The whole file.
pub(crate) struct Compose(BTreeMap<String, Value>);

/// One service of it.
pub(crate) struct Service {
    pub(crate) name: String,
    value: Value,
}

impl Compose {
    pub(crate) fn read() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root().join("docker-compose.yml"))?;
        // The one variable, as it is where nobody sets it.
        let text = text.replace("${DEMO_PASSWORD:-demo}", "demo");
        anyhow::ensure!(!text.contains("${"), "a variable that this test does not know");
        let mut file: Value = serde_saphyr::from_str(&text)?;
        Ok(Self(serde_json::from_value(file["services"].take())?))
    }

    pub(crate) fn services(&self) -> Vec<Service> {
        self.0
            .iter()
            .map(|(name, value)| Service {
                name: name.clone(),
                value: value.clone(),
            })
            .collect()
    }

    /// Those that run this image.
    pub(crate) fn services_of(&self, image: &str) -> Vec<Service> {
        self.services()
            .into_iter()
            .filter(|service| service.value["image"] == image)
            .collect()
    }

    pub(crate) fn service(&self, name: &str) -> anyhow::Result<Service> {
        let value = self.0.get(name).with_context(|| format!("no service {name}"))?;
        Ok(Service {
            name: name.to_owned(),
            value: value.clone(),
        })
    }
}

impl Service {
    pub(crate) fn command(&self) -> Vec<String> {
        words(&self.value["command"])
    }

    /// The command of the health check, up to a pipe.
    pub(crate) fn health_check(&self) -> Vec<String> {
        let shell = self.health_check_shell();
        shell
            .split('|')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    /// The health check as a shell would read it.
    pub(crate) fn health_check_shell(&self) -> String {
        words(&self.value["healthcheck"]["test"])[1..].join(" ")
    }

    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let pairs = self.value["environment"].as_object().into_iter().flatten();
        pairs
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect()
    }

    /// Files and folders of this repository with their places in the container.
    pub(crate) fn bind_mounts(&self) -> Vec<(String, String)> {
        let volumes = words(&self.value["volumes"]);
        let bound = volumes.iter().filter_map(|volume| volume.strip_prefix("./"));
        bound
            .filter_map(|volume| {
                let (source, rest) = volume.split_once(':')?;
                Some((source.to_owned(), rest.trim_end_matches(":ro").to_owned()))
            })
            .collect()
    }

    /// The file in this repository that is mounted where `--config` says.
    pub(crate) fn settings_file(&self) -> anyhow::Result<String> {
        let words = self.command();
        let config = words
            .iter()
            .skip_while(|word| *word != "--config")
            .nth(1)
            .context("no --config")?;
        let mounts = self.bind_mounts();
        let (source, _) = mounts
            .iter()
            .find(|(_, target)| target == config)
            .with_context(|| format!("{config} is not mounted"))?;
        Ok(source.clone())
    }

    /// The ports of the container that are published.
    pub(crate) fn published_ports(&self) -> Vec<u16> {
        words(&self.value["ports"])
            .iter()
            .filter_map(|port| port.rsplit(':').next()?.parse().ok())
            .collect()
    }

    /// The port in a flag's URL.
    pub(crate) fn flag_port(&self, flag: &str) -> anyhow::Result<u16> {
        let words = self.command();
        let url = words
            .iter()
            .find_map(|word| word.strip_prefix(flag)?.strip_prefix('='))
            .context("no such flag")?;
        url.rsplit(':')
            .next()
            .context("no port")?
            .parse()
            .context("reading the port")
    }

    pub(crate) fn depends_on(&self) -> Vec<(String, String)> {
        let others = self.value["depends_on"].as_object().into_iter().flatten();
        others
            .map(|(name, how)| {
                (
                    name.clone(),
                    how["condition"].as_str().unwrap_or_default().to_owned(),
                )
            })
            .collect()
    }

    /// Dockerfile and stage, where the image is built here.
    pub(crate) fn build(&self) -> Option<(String, String)> {
        let build = self.value["build"].as_object()?;
        let text = |key: &str| Some(build.get(key)?.as_str()?.to_owned());
        Some((text("dockerfile")?, text("target")?))
    }
}

fn words(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}
