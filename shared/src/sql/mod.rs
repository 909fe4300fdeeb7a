//! Every SQL text we send. Identifiers are quoted by [`crate::name::Ident`]'s `Display`; values are bind parameters.

mod change;
mod type_name;

pub use change::*;
pub use type_name::TypeName;
