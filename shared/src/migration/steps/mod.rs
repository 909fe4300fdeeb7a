//! The kinds of steps. A further kind is one file here plus one line in the list below.

mod add_check;
mod add_column;
mod add_enum_value;
mod add_foreign_key;
mod add_unique;
mod assert;
mod backfill;
mod batched;
mod change_type;
mod contract;
mod create_index;
mod create_table;
mod delete;
mod drop_column;
mod drop_constraint;
mod drop_default;
mod drop_index;
mod drop_not_null;
mod drop_sync;
mod drop_table;
mod drop_unique;
mod own_rows;
mod reindex;
mod rename_column;
mod rename_table;
mod set_default;
mod set_not_null;
mod sql;
mod sync;
#[cfg(test)]
mod tests;
mod vacuuming;

use crate::id::Digest;
use crate::migration::checksum;
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal};
use crate::sql::TypeName;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use add_check::AddCheck;
pub use add_column::AddColumn;
pub use add_enum_value::AddEnumValue;
pub use add_foreign_key::{AddForeignKey, References};
pub use add_unique::AddUnique;
pub use assert::Assert;
pub use backfill::{Backfill, NewRows};
pub use batched::BatchOptions;
pub use change_type::ChangeType;
pub use contract::Contract;
pub use create_index::{CreateIndex, Extent};
pub use create_table::{Check, Column, CreateTable};
pub use delete::Delete;
pub use drop_column::DropColumn;
pub use drop_constraint::{DropConstraint, Missing};
pub use drop_default::DropDefault;
pub use drop_index::DropIndex;
pub use drop_not_null::DropNotNull;
pub use drop_sync::DropSync;
pub use drop_table::{DropTable, Rows};
pub use drop_unique::DropUnique;
pub use reindex::Reindex;
pub use rename_column::RenameColumn;
pub use rename_table::RenameTable;
pub use set_default::SetDefault;
pub use set_not_null::SetNotNull;
pub use sql::{Execution, Outside, Session, Sql};
pub use sync::Sync;
pub use vacuuming::Vacuuming;

/// What every kind of step can do. All of it is pure.
pub trait Kind: DeserializeOwned {
    /// What can be said wrong from the text alone. Texts in lower case, without a full stop.
    ///
    /// # Errors
    /// All problems, each one sentence.
    fn check(&self) -> Result<(), Vec<String>>;

    /// What the step means, for its checksum: see [`crate::migration::checksum::Canonical`]. SQL by its tokens, names
    /// quoted; without what only paces the work or words a message.
    fn canonical(&self) -> String;

    /// One line for people: what it does to what.
    fn title(&self) -> String;

    /// The tables whose facts [`Kind::plan`] needs.
    fn tables(&self) -> Vec<&Table>;

    /// The enum types whose facts [`Kind::plan`] needs.
    fn types(&self) -> Vec<&Table> {
        Vec::new()
    }

    /// The columns about which [`Kind::plan`] must know what needs them: see [`Facts::uses`].
    fn columns(&self) -> Vec<(&Table, Ident)> {
        Vec::new()
    }

    /// The data types that [`Kind::plan`] compares: see [`Facts::type_name`].
    fn data_types(&self) -> Vec<&TypeName> {
        Vec::new()
    }

    /// The expressions whose functions [`Kind::plan`] must know: see [`Facts::volatile`].
    fn expressions(&self) -> Vec<&Expression> {
        Vec::new()
    }

    /// What the step becomes on a database with these facts, in order of execution. Nothing to do is an empty list.
    ///
    /// # Errors
    /// When a rule forbids it there, or something it names is missing.
    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal>;

    /// The facts after the step, so that a dry run can plan the next one.
    fn effect(&self, facts: &mut Facts);

    /// Whether rows or values of columns are gone for good after it.
    fn loses_data(&self) -> bool {
        false
    }

    /// The step that takes it back, when no `down` is written.
    fn undo(&self) -> Undo;
}

/// How a step is taken back when the author wrote no `down`.
#[derive(Debug, Clone, PartialEq)]
pub enum Undo {
    /// By this change.
    By(Box<Change>),
    /// Nothing needs to be done: the step left nothing behind.
    Nothing,
    /// It cannot be.
    Impossible {
        /// Why, as the end of the sentence "has no automatic undo: ...".
        why: &'static str,
    },
}

macro_rules! steps {
    ($($name:literal => $variant:ident,)*) => {
        /// One change, by kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Change {
            $(#[doc = concat!("The step `", $name, "`.")] $variant($variant),)*
        }

        impl Change {
            /// The names of all kinds, as written in YAML.
            pub const KNOWN: &[&str] = &[$($name),*];

            /// The kind's name, as written in YAML.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// Reads the body of a step of the kind `name`; `None` when there is no such kind.
            ///
            /// # Errors
            /// Those of the deserializer, with its own positions.
            pub fn deserialize<'de, D: serde::Deserializer<'de>>(name: &str, body: D) -> Option<Result<Self, D::Error>> {
                match name {
                    $($name => Some($variant::deserialize(body).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }

        impl Change {
            /// See [`Kind::check`].
            ///
            /// # Errors
            /// All problems, each one sentence.
            pub fn check(&self) -> Result<(), Vec<String>> {
                match self { $(Self::$variant(step) => step.check(),)* }
            }

            /// The checksum of the step.
            pub fn checksum(&self) -> Digest {
                checksum::step(self.name(), &self.canonical())
            }

            /// See [`Kind::canonical`].
            pub fn canonical(&self) -> String {
                match self { $(Self::$variant(step) => step.canonical(),)* }
            }

            /// See [`Kind::title`].
            pub fn title(&self) -> String {
                match self { $(Self::$variant(step) => step.title(),)* }
            }

            /// See [`Kind::tables`].
            pub fn tables(&self) -> Vec<&Table> {
                match self { $(Self::$variant(step) => step.tables(),)* }
            }

            /// See [`Kind::types`].
            pub fn types(&self) -> Vec<&Table> {
                match self { $(Self::$variant(step) => step.types(),)* }
            }

            /// See [`Kind::columns`].
            pub fn columns(&self) -> Vec<(&Table, Ident)> {
                match self { $(Self::$variant(step) => step.columns(),)* }
            }

            /// See [`Kind::data_types`].
            pub fn data_types(&self) -> Vec<&TypeName> {
                match self { $(Self::$variant(step) => step.data_types(),)* }
            }

            /// See [`Kind::expressions`].
            pub fn expressions(&self) -> Vec<&Expression> {
                match self { $(Self::$variant(step) => step.expressions(),)* }
            }

            /// See [`Kind::plan`].
            ///
            /// # Errors
            /// When a rule forbids it there, or something it names is missing.
            pub fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
                match self { $(Self::$variant(step) => step.plan(facts),)* }
            }

            /// See [`Kind::effect`].
            pub fn effect(&self, facts: &mut Facts) {
                match self { $(Self::$variant(step) => step.effect(facts),)* }
            }

            /// See [`Kind::loses_data`].
            pub fn loses_data(&self) -> bool {
                match self { $(Self::$variant(step) => step.loses_data(),)* }
            }

            /// See [`Kind::undo`].
            pub fn undo(&self) -> Undo {
                match self { $(Self::$variant(step) => step.undo(),)* }
            }
        }
    };
}

steps! {
    "sql" => Sql,
    "create_table" => CreateTable,
    "rename_table" => RenameTable,
    "drop_table" => DropTable,
    "add_column" => AddColumn,
    "rename_column" => RenameColumn,
    "drop_column" => DropColumn,
    "change_type" => ChangeType,
    "contract" => Contract,
    "set_default" => SetDefault,
    "drop_default" => DropDefault,
    "set_not_null" => SetNotNull,
    "drop_not_null" => DropNotNull,
    "add_check" => AddCheck,
    "add_foreign_key" => AddForeignKey,
    "drop_constraint" => DropConstraint,
    "add_enum_value" => AddEnumValue,
    "backfill" => Backfill,
    "delete" => Delete,
    "drop_sync" => DropSync,
    "assert" => Assert,
    "create_index" => CreateIndex,
    "drop_index" => DropIndex,
    "reindex" => Reindex,
    "add_unique" => AddUnique,
    "drop_unique" => DropUnique,
}
