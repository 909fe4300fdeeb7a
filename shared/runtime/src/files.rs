//! Reading whole files, with errors that say which file, why not, and what to look at.

use std::path::{Path, PathBuf};

/// The largest file read whole. Settings, migrations and certificates are far smaller; a device or a database dump
/// given by mistake must not fill the memory.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why: missing, no permission, a directory.
        #[source]
        source: std::io::Error,
    },
    /// Larger than [`MAX_BYTES`].
    #[error("cannot read `{}`: it is larger than {} MiB", path.display(), MAX_BYTES / 1024 / 1024)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not UTF-8 text.
    #[error("cannot read `{}`: line {line} is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line of the first bad byte, from 1.
        line: usize,
    },
}

/// The whole content of a file.
///
/// # Errors
/// When it cannot be read or is larger than [`MAX_BYTES`].
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;

    let path = path.as_ref();
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut content = Vec::new();
    // Pipes and devices tell no size beforehand, so the bound is on what is read.
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(Error::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(content)
}

/// The whole content of a text file in UTF-8.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String, Error> {
    let path = path.as_ref();
    String::from_utf8(read(path)?).map_err(|problem| {
        let good = problem.utf8_error().valid_up_to();
        let line = problem.as_bytes()[..good].split(|byte| *byte == b'\n').count();
        Error::NotText {
            path: path.to_owned(),
            line,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of this test process, removed when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("confiture-files-{}-{name}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_text_file_is_read_whole() {
        let file = Scratch::new("good", "übung\n".as_bytes());
        assert_eq!(read_text(&file.0).unwrap(), "übung\n");
    }

    #[test]
    fn a_missing_file_is_named_with_its_cause() {
        let error = read("/nowhere/confiture.yaml").unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/nowhere/confiture.yaml`");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No such file"), "{source}");
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_line() {
        let file = Scratch::new("latin1", b"one\ntwo\n\xfcbung\n");
        let error = read_text(&file.0).unwrap_err().to_string();
        assert!(error.ends_with("line 3 is not UTF-8 text"), "{error}");
    }

    #[test]
    fn an_endless_device_is_refused() {
        assert!(matches!(read("/dev/zero"), Err(Error::TooLarge { .. })));
    }
}
