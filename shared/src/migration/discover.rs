//! discover
use super::{File, Problems, Set};
use crate::id::SetName;
impl Set {
    /// Reads the files of a set.
    ///
    /// # Errors
    /// All problems at once.
    pub fn parse(_set: Option<SetName>, _files: &[File]) -> Result<Self, Problems> {
        Err(Problems(Vec::new()))
    }
}
