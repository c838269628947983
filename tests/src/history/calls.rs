//! Calls that need `unsafe`: mappings, and `truncate` by path.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;
use std::slice;

use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// Mappings begin at multiples of this, bytes.
const PAGE: u64 = 4096;

/// `truncate(2)`.
pub(super) fn truncate(path: &Path, size: u64) -> Result<(), Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no path here has a NUL");
    let size = size.try_into().expect("sizes here are small");
    // SAFETY: the path ends with a NUL and lives over the call.
    match unsafe { libc::truncate(path.as_ptr(), size) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).expect("an error number")),
    }
}

/// Maps `len` bytes at `at` of a file, shared, and gives them to `use_it`. The file must be that long, and nobody else
/// may cut it meanwhile: touching what is not there any more ends the process. With `write` the bytes are written
/// back before this returns.
pub(super) fn with_mapping<T>(
    file: impl AsFd,
    at: u64,
    len: usize,
    write: bool,
    use_it: impl FnOnce(&mut [u8]) -> T,
) -> Result<T, Errno> {
    let skip = (at % PAGE) as usize;
    let mapped = skip + len;
    let protection = if write { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { mmap(null_mut(), mapped, protection, MapFlags::SHARED, file, at - skip as u64)? }
        .cast::<u8>();
    let result = if write {
        // SAFETY: the mapping has `mapped` bytes that may be read and written, and nobody else knows it.
        use_it(unsafe { slice::from_raw_parts_mut(start.add(skip), len) })
    } else {
        // SAFETY: as above; a copy, because this mapping may not be written.
        use_it(&mut unsafe { slice::from_raw_parts(start.add(skip), len) }.to_vec())
    };
    // SAFETY: exactly what was mapped, and no reference into it is left.
    unsafe {
        let synced = if write { msync(start.cast(), mapped, MsyncFlags::SYNC) } else { Ok(()) };
        munmap(start.cast(), mapped)?;
        synced?;
    }
    Ok(result)
}
