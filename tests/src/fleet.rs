//! Coordinators and agents over many databases.
