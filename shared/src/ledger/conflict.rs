//! What forbids to begin: files and ledger contradict each other, or a rule of order says no.

use super::undo::NotUndone;
use crate::id::Digest;
use crate::migration::Version;
use crate::retry::Retryability;

/// Why nothing is begun. Each names the version and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// An applied migration's file was changed.
    #[error(
        "migration {version} \"{name}\" was applied with checksum {} and its file now has {}\n  help: an applied migration is history: put the file back as it was, and make a new migration for the change",
        applied.short(), file.short()
    )]
    Edited {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
        /// As applied: the key of its text in `confiture.script`.
        applied: Digest,
        /// Of the file.
        file: Digest,
    },
    /// No down is written, and the file is not the one that was applied.
    #[error(
        "migration {version} \"{name}\" cannot be undone by its steps: it was applied with checksum {} and its file now has {}\n  help: put the file back as it was, or write a down for it",
        applied.short(), file.short()
    )]
    EditedUndo {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
        /// As applied: the key of its text in `confiture.script`.
        applied: Digest,
        /// Of the file.
        file: Digest,
    },
    /// A step that is done or begun was changed in a migration that is half done.
    #[error(
        "migration {version} \"{name}\" is half done, and its step {step} ({title}), which is done or begun, was changed: {change}\n  help: put that step back as it was; steps after it may be changed"
    )]
    EditedStep {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
        /// From 1.
        step: u32,
        /// As recorded.
        title: String,
        /// Both checksums, for people.
        change: String,
    },
    /// An applied version has no file, and newer ones do.
    #[error(
        "migration {version} \"{name}\" was applied here and its file is missing, though the set has newer ones\n  help: put the file back (its text is kept in the table confiture.script)"
    )]
    Missing {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
    },
    /// A version to be undone is newer than all files.
    #[error(
        "migration {version} \"{name}\" was applied here and is newer than all of these files\n  help: undo it with the files it came from (its text is kept in the table confiture.script)"
    )]
    Ahead {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
    },
    /// A half-done version has no file.
    #[error(
        "migration {version} \"{name}\" is half done here and its file is missing\n  help: put the file back (its text is kept in the table confiture.script) and run the same command again"
    )]
    MissingPartial {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
    },
    /// A pending version below an applied one.
    #[error(
        "migration {version} \"{name}\" is pending, but the newer {applied} is applied already\n  help: give it a version above {applied}, or say --out-of-order if the two do not depend on each other"
    )]
    OutOfOrder {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
        /// The newest applied.
        applied: Version,
    },
    /// An undo is half done.
    #[error(
        "migration {version} \"{name}\" is being undone and that is half done\n  help: finish it with `confiture migrate down`, then run `up`"
    )]
    Undoing {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
    },
    /// `--target` names no migration of the set.
    #[error("the set has no version {version}\n  help: `confiture migrate status` lists its versions")]
    NoSuchTarget {
        /// Which.
        version: Version,
    },
    /// No down is written, or it is for the whole of a migration that is half done; and a step cannot be undone
    /// automatically.
    #[error(
        "migration {version} \"{name}\" cannot be undone: {}, and step {step} ({title}) has no automatic undo: {why}\n  help: {}",
        match extent { Extent::Whole => "no down is written", Extent::Half => "it is half applied, which a written down is not made for" },
        match extent { Extent::Whole => "write a down for it", Extent::Half => "finish it with `confiture migrate up`, after correcting the steps that are left" }
    )]
    NoUndo {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
        /// From 1.
        step: usize,
        /// What it does.
        title: String,
        /// Why.
        why: &'static str,
        /// How much of the migration was to be undone.
        extent: Extent,
    },
    /// What a rollout applied is not to be undone here.
    #[error("not undone: {0}")]
    NotUndone(NotUndone),
    /// The undo of a rollout would lose values or rows, and nobody has said that it may.
    #[error(
        "the way down of migration {version} \"{name}\" loses data: {title}\n  help: say --allow-data-loss if what was written there since may go"
    )]
    LosesData {
        /// Which.
        version: Version,
        /// Its name.
        name: String,
        /// What the step does.
        title: String,
    },
}

/// How much of a migration is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Some of its steps.
    Half,
}

impl Conflict {
    /// Whether another try makes sense: never, and where someone is to decide for all databases not elsewhere either.
    pub fn retryability(&self) -> Retryability {
        match self {
            Self::LosesData { .. } => Retryability::StopRollout,
            _ => Retryability::GiveUp,
        }
    }

    /// Whether it is the user's input rather than a rule of safety that forbids it.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::NoSuchTarget { .. })
    }
}
