//! The names of what is there while the type of a column is changed. All of them begin alike.

use crate::id::Digest;
use crate::name::Ident;
use crate::plan::{ColumnUses, TableFacts};

/// What the names of constraints and indexes begin with that stand ready for the swap.
const READY: &str = "confiture_type_";

/// The longest name that PostgreSQL keeps, in bytes.
const LONGEST: usize = 63;

/// The column with the new type, before the swap.
pub(super) fn new_name(column: &Ident) -> Ident {
    beside("confiture_new_", column)
}

/// The column with the old type, after the swap.
pub(in crate::migration::steps) fn old_name(column: &Ident) -> Ident {
    beside("confiture_old_", column)
}

fn beside(prefix: &str, column: &Ident) -> Ident {
    let name = format!("{prefix}{}", column.as_str());
    let name = if name.len() <= LONGEST {
        name
    } else {
        format!("{prefix}{}", Digest::of(column.as_str().as_bytes()).short())
    };
    Ident::exact(name).expect("at most 63 bytes, none of them zero")
}

/// What is to have another name once the names are swapped: an index or a constraint over the other column, until then.
pub(super) fn ready(table: &TableFacts, other: &Ident, what: &Ident) -> Ident {
    let digest = Digest::of(format!("{}.{other}:{what}", table.full_name()).as_bytes());
    Ident::exact(format!("{READY}{}", digest.short())).expect("31 ASCII characters are a name")
}

/// The check that every row has a value in the other column.
pub(super) fn filled(table: &TableFacts, other: &Ident) -> Ident {
    ready(table, other, other)
}

/// Leaves out what is there for the change alone.
pub(super) fn leave_ours_out(uses: &mut ColumnUses) {
    let theirs = |name: &Ident| !name.as_str().starts_with(READY);
    uses.checks.retain(|check| theirs(&check.name));
    uses.indexes.retain(|index| theirs(&index.name));
    uses.foreign_keys.retain(|key| theirs(&key.name));
}
