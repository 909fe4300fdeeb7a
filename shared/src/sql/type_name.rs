//! A data type as SQL writes it (`numeric(10,2)`, `timestamp with time zone`, `"My Enum"[]`).

use serde::Deserialize;

/// The text of a data type. It goes into our statements as it stands, so it may only be what a type can be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TypeName(String);

/// The text was not a data type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a data type")]
pub struct Error(String);

impl TypeName {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TypeName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        if crate::migration::expression::is_type(&text) {
            Ok(Self(text))
        } else {
            Err(Error(text))
        }
    }
}
