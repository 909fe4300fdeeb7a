//! A data type as SQL writes it (`numeric(10,2)`, `timestamp with time zone`, `"My Enum"[]`).

use crate::migration::checksum::tokens;
use serde::Deserialize;

/// The text of a data type. It goes into our statements as it stands, so it may only be what a type can be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TypeName(String);

/// The text was not a data type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a data type, or more than one: write it as in CREATE TABLE, such as `numeric(10,2)`")]
pub struct Error(String);

impl TypeName {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is no type but a default: PostgreSQL makes a sequence, and rewrites a table that gets such a column.
    pub fn is_serial(&self) -> bool {
        let tokens = tokens(&self.0);
        [
            "serial",
            "serial2",
            "serial4",
            "serial8",
            "smallserial",
            "bigserial",
        ]
        .contains(&tokens.as_str())
    }
}

impl TryFrom<String> for TypeName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        if crate::migration::expression::is_type(&text) {
            Ok(Self(text.trim().to_owned()))
        } else {
            Err(Error(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<TypeName, Error> {
        TypeName::try_from(text.to_owned())
    }

    #[test]
    fn a_type_is_kept_as_written() {
        assert_eq!(name("NUMERIC(10, 2)[]").unwrap().as_str(), "NUMERIC(10, 2)[]");
        assert!(
            name("int NOT NULL")
                .unwrap_err()
                .to_string()
                .contains("`int NOT NULL`")
        );
        assert_eq!(name(" int\n").unwrap().as_str(), "int");
    }

    #[test]
    fn what_is_no_type_but_a_default_is_told_apart() {
        assert!(name("BigSerial").unwrap().is_serial());
        assert!(!name("app.serial").unwrap().is_serial());
        assert!(!name("\"serial\"").unwrap().is_serial());
        assert!(!name("bigint").unwrap().is_serial());
    }
}
