//! The statements of the typed steps.

use super::TypeName;
use crate::name::Ident;
use crate::plan::{Nullability, TableFacts};

/// `ALTER TABLE .. ADD COLUMN`.
pub fn add_column(
    table: &TableFacts,
    column: &Ident,
    data_type: &TypeName,
    default: Option<&str>,
    nullability: Nullability,
) -> String {
    // The line feed ends a comment that the value may end with.
    let default = default.map_or(String::new(), |value| format!(" DEFAULT ({value}\n)"));
    let not_null = if nullability == Nullability::NotNull {
        " NOT NULL"
    } else {
        ""
    };
    format!(
        "ALTER TABLE {} ADD COLUMN {column} {}{default}{not_null}",
        table.full_name(),
        data_type.as_str()
    )
}

/// `ALTER COLUMN .. SET DEFAULT`: rows that exist stay as they are.
pub fn set_default(table: &TableFacts, column: &Ident, value: &str) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {column} SET DEFAULT ({value}\n)",
        table.full_name()
    )
}

/// `ALTER COLUMN .. TYPE`, where it is a change of the catalog alone.
pub fn alter_type(table: &TableFacts, column: &Ident, data_type: &TypeName) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {column} TYPE {}",
        table.full_name(),
        data_type.as_str()
    )
}

/// `ALTER TABLE .. DROP COLUMN`, without CASCADE.
pub fn drop_column(table: &TableFacts, column: &Ident) -> String {
    format!("ALTER TABLE {} DROP COLUMN {column}", table.full_name())
}

/// The name of the check that [`add_not_null_check`] adds: the same for the same table and column, at most 63 bytes.
pub fn not_null_check(table: &TableFacts, column: &Ident) -> Ident {
    let digest = crate::id::Digest::of(format!("{}.{column}", table.full_name()).as_bytes());
    Ident::exact(format!("confiture_not_null_{}", digest.short())).expect("31 ASCII characters are a name")
}

/// A check that new rows obey at once; rows that exist are not looked at.
pub fn add_not_null_check(table: &TableFacts, column: &Ident, check: &Ident) -> String {
    format!(
        "ALTER TABLE {} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID",
        table.full_name()
    )
}

/// `SET NOT NULL`; does not scan where a validated check says the same.
pub fn set_not_null(table: &TableFacts, column: &Ident) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {column} SET NOT NULL",
        table.full_name()
    )
}

/// `DROP NOT NULL`.
pub fn drop_not_null(table: &TableFacts, column: &Ident) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {column} DROP NOT NULL",
        table.full_name()
    )
}
