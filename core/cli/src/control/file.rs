//! `control.json`: where the running node listens, and what proves that a client may ask it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// A secret of 32 random bytes, new at each start of the node.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Draws one from the system.
    pub fn new() -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(HEXLOWER.encode(&bytes)))
    }

    /// Whether that is it; takes as long whatever is wrong with it.
    pub fn matches(&self, offered: &str) -> bool {
        self.0.as_bytes().ct_eq(offered.as_bytes()).into()
    }

    /// For the request.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    port: u16,
    token: String,
}

/// The file as the running node holds it: removed when this is dropped.
pub struct ControlFile {
    path: PathBuf,
}

impl ControlFile {
    /// The file's place in a data folder.
    pub fn path_in(data: &Path) -> PathBuf {
        data.join("control.json")
    }

    /// Writes it, readable by this user only, in place of one that a killed node has left. The caller holds the
    /// data folder's lock.
    pub fn create(data: &Path, port: u16, token: &Token) -> io::Result<Self> {
        let path = Self::path_in(data);
        // Readers see the old file or the whole new one.
        let mut file = tempfile::Builder::new().prefix(".control").tempfile_in(data)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        serde_json::to_writer(&mut file, &Content { port, token: token.0.clone() })?;
        file.write_all(b"\n")?;
        file.persist(&path)?;
        Ok(Self { path })
    }

    /// Reads the one in a data folder.
    pub fn read(data: &Path) -> io::Result<(u16, Token)> {
        let Content { port, token } = serde_json::from_slice(&fs::read(Self::path_in(data))?)?;
        Ok((port, Token(token)))
    }
}

impl Drop for ControlFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "control.json could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_user_may_read_it_and_it_goes_with_its_owner() {
        let data = tempfile::tempdir().unwrap();
        let token = Token::new().unwrap();
        let file = ControlFile::create(data.path(), 4711, &token).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(ControlFile::path_in(data.path())).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let (port, read) = ControlFile::read(data.path()).unwrap();
        assert_eq!(port, 4711);
        assert!(token.matches(read.as_str()));
        drop(file);
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
    }

    #[test]
    fn tokens_differ_and_match_only_themselves() {
        let (one, two) = (Token::new().unwrap(), Token::new().unwrap());
        assert_eq!(one.as_str().len(), 64);
        assert!(one.matches(one.as_str()));
        assert!(!one.matches(two.as_str()));
        assert!(!one.matches(""));
        assert!(!one.matches(&one.as_str()[..63]));
    }
}
