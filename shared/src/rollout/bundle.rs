//! The files of one set as they travel: from a client through the coordinator to the agents, identified by content.

use crate::id::{Digest, SetName};
use crate::migration::File;

/// The files of one migration set, as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The set they belong to.
    pub set: SetName,
    /// In the order given by the client.
    pub files: Vec<File>,
}

/// The bytes were not a bundle; they were cut off or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored bundle is damaged at byte {at}")]
pub struct Damaged {
    /// Where reading failed.
    pub at: usize,
}

/// Begins every encoded bundle, so that a later form can be told apart.
const MAGIC: &[u8] = b"confiture bundle 1\n";

impl Bundle {
    /// What the bundle is known by: the hash of [`Self::to_bytes`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// The bundle as bytes: the set's name, then each file's path and content, each with its length (8 bytes, big
    /// endian) before it. Equal bundles have equal bytes; the order of files counts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let size: usize = self
            .files
            .iter()
            .map(|file| file.path.len() + file.content.len() + 16)
            .sum();
        let mut bytes = Vec::with_capacity(MAGIC.len() + size + 136);
        bytes.extend_from_slice(MAGIC);
        push(&mut bytes, self.set.as_str().as_bytes());
        for file in &self.files {
            push(&mut bytes, file.path.as_bytes());
            push(&mut bytes, &file.content);
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are cut off or are none of ours.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(Damaged { at: 0 });
        }
        let set = SetName::try_from(reader.text()?).map_err(|_| Damaged { at: reader.at })?;
        let mut files = Vec::new();
        while reader.at < bytes.len() {
            let path = reader.text()?;
            let content = reader.part()?.to_vec();
            files.push(File { path, content });
        }
        Ok(Self { set, files })
    }
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    // usize fits into u64 on every platform Rust knows.
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend_from_slice(part);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(Damaged { at: self.at })?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    fn part(&mut self) -> Result<&'a [u8], Damaged> {
        let at = self.at;
        let length: [u8; 8] = self.take(8)?.try_into().map_err(|_| Damaged { at })?;
        let length = usize::try_from(u64::from_be_bytes(length)).map_err(|_| Damaged { at })?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String, Damaged> {
        let at = self.at;
        String::from_utf8(self.part()?.to_vec()).map_err(|_| Damaged { at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(files: &[(&str, &[u8])]) -> Bundle {
        let files = files.iter().map(|(path, content)| File {
            path: (*path).to_owned(),
            content: content.to_vec(),
        });
        Bundle {
            set: SetName::default_set(),
            files: files.collect(),
        }
    }

    #[test]
    fn a_bundle_survives_its_bytes() {
        let bundle = bundle(&[("001_a.up.sql", b"SELECT 1"), ("002_b.yaml", b"\xff\x00")]);
        assert_eq!(Bundle::from_bytes(&bundle.to_bytes()), Ok(bundle));
    }

    #[test]
    fn moving_bytes_between_path_and_content_changes_the_digest() {
        assert_ne!(bundle(&[("ab", b"c")]).digest(), bundle(&[("a", b"bc")]).digest());
        assert_ne!(bundle(&[("a", b"")]).digest(), bundle(&[]).digest());
    }

    #[test]
    fn bytes_cut_off_anywhere_inside_a_part_are_refused() {
        let bytes = bundle(&[("001_a.up.sql", b"SELECT 1")]).to_bytes();
        let whole_parts = [bytes.len() - 16 - 8 - 12];
        for end in 0..bytes.len() {
            let cut = Bundle::from_bytes(&bytes[..end]);
            assert_eq!(cut.is_ok(), whole_parts.contains(&end), "{end}");
        }
    }

    #[test]
    fn a_length_beyond_all_memory_is_refused() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u64::MAX.to_be_bytes());
        assert!(Bundle::from_bytes(&bytes).is_err());
    }
}
