//! The data folder's own files: private, and replaced whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// Makes a folder that only its owner may enter. One that is there already is closed to others only if it is
/// empty or `ours`: nobody's home directory changes its permissions because it was named by mistake.
pub(crate) fn private_folder(path: &Path, ours: bool) -> Result<(), StoreError> {
    let existed = path.is_dir();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(StoreError::io("create", path))?;
    #[cfg(unix)]
    if existed {
        use std::os::unix::fs::PermissionsExt;
        let empty = fs::read_dir(path).map_err(StoreError::io("read", path))?.next().is_none();
        let mode = fs::metadata(path).map_err(StoreError::io("read", path))?.permissions().mode();
        if (ours || empty) && mode & 0o077 != 0 {
            // A folder that belongs to somebody else can't be closed; its files are private all the same.
            if let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(0o700)) {
                tracing::warn!(%error, "the data folder can't be made private");
            }
        }
    }
    #[cfg(not(unix))]
    let _ = (existed, ours);
    Ok(())
}

/// Options that create a file which only its owner may read.
pub(crate) fn private_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Takes away others' right to read an open file.
pub(crate) fn make_private(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Makes a rename or a new name in that folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Replaces a file's content: after a crash it holds the old bytes or the new ones, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = with_suffix(path, ".new");
    let failed = || StoreError::io("write", path);
    let mut file = private_options().truncate(true).open(&temporary).map_err(failed())?;
    make_private(&file).map_err(failed())?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed())?;
    fs::rename(&temporary, path).map_err(failed())?;
    path.parent().map_or(Ok(()), sync_folder).map_err(failed())
}

/// What the file of the identity holds.
pub(crate) enum SeedFile {
    Absent,
    Damaged { length: u64 },
    Whole([u8; 32]),
}

/// Reads the identity's seed.
pub(crate) fn read_seed(path: &Path) -> Result<SeedFile, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SeedFile::Absent),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    make_private(&file).map_err(StoreError::io("make private", path))?;
    let length = file.metadata().map_err(StoreError::io("read", path))?.len();
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(33));
    file.take(33).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    Ok(<[u8; 32]>::try_from(bytes.as_slice()).map_or(SeedFile::Damaged { length }, SeedFile::Whole))
}

/// `path` with something appended to its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
