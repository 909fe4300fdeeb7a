//! Asks a Prometheus server for the present value of an expression, over its HTTP API.

use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// The whole of a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the server cannot be asked")]
    Http(#[from] reqwest::Error),
    #[error("the server says: {0}")]
    Refused(String),
    #[error("the expression gives nothing")]
    Empty,
    #[error("the expression gives {0}, where one value or a vector is needed")]
    Kind(String),
    #[error("the answer is not one of Prometheus")]
    Answer,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

/// The values of an expression: one, or those of a vector.
pub(super) async fn ask(server: &str, expression: &str) -> Result<Vec<f64>, Error> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let url = format!("{}/api/v1/query", server.trim_end_matches('/'));
    let answer = client.get(url).query(&[("query", expression)]).send().await?;
    let status = answer.status();
    let body = answer.bytes().await?;
    match serde_json::from_slice(&body) {
        Ok(response) => values(response),
        Err(_) if !status.is_success() => Err(Error::Refused(status.to_string())),
        Err(_) => Err(Error::Answer),
    }
}

fn values(response: Response) -> Result<Vec<f64>, Error> {
    if let Some(error) = response.error {
        return Err(Error::Refused(error));
    }
    let data = response.data.ok_or(Error::Answer)?;
    let values: Option<Vec<f64>> = match data.result_type.as_str() {
        "scalar" => value(&data.result).map(|value| vec![value]),
        "vector" => {
            let samples = data.result.as_array().ok_or(Error::Answer)?;
            samples.iter().map(|sample| value(&sample["value"])).collect()
        }
        other => return Err(Error::Kind(other.to_owned())),
    };
    match values {
        Some(values) if values.is_empty() => Err(Error::Empty),
        Some(values) if values.iter().any(|value| value.is_nan()) => Err(Error::Empty),
        Some(values) => Ok(values),
        None => Err(Error::Answer),
    }
}

/// `[moment, "value"]`
fn value(sample: &Value) -> Option<f64> {
    sample.get(1)?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(answer: Value) -> Result<Vec<f64>, String> {
        let response: Response = serde_json::from_value(answer).unwrap();
        values(response).map_err(|error| error.to_string())
    }

    fn success(kind: &str, result: &Value) -> Value {
        json!({ "status": "success", "data": { "resultType": kind, "result": result } })
    }

    #[test]
    fn one_value_and_vectors_are_read() {
        assert_eq!(read(success("scalar", &json!([1.5, "2"]))), Ok(vec![2.0]));
        let vector =
            json!([{ "metric": {}, "value": [1, "0.5"] }, { "metric": { "a": "b" }, "value": [1, "+Inf"] }]);
        assert_eq!(read(success("vector", &vector)), Ok(vec![0.5, f64::INFINITY]));
    }

    #[test]
    fn what_is_no_value_is_no_answer() {
        for (answer, part) in [
            (success("vector", &json!([])), "gives nothing"),
            (
                success("vector", &json!([{ "value": [1, "NaN"] }])),
                "gives nothing",
            ),
            (success("matrix", &json!([])), "gives matrix"),
            (
                success("vector", &json!([{ "value": [1] }])),
                "not one of Prometheus",
            ),
            (
                json!({ "status": "error", "error": "parse error" }),
                "parse error",
            ),
            (json!({}), "not one of Prometheus"),
        ] {
            let said = read(answer.clone()).unwrap_err();
            assert!(said.contains(part), "{answer}: {said}");
        }
    }
}
