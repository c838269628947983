//! The one table of error numbers: every refusal has exactly one, and every reply of a failure uses it.

use std::ffi::c_int;

use address_map::error::Refusal;
use address_map::name::NameError;

use crate::data::leases::Denied;

/// An error number as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(c_int);

impl Errno {
    /// A buffer of the caller is too small.
    pub(crate) const RANGE: Errno = Errno(libc::ERANGE);
    /// Too many files are open in this mount.
    pub(crate) const TOO_MANY_FILES: Errno = Errno(libc::ENFILE);

    /// The number, positive.
    pub(crate) fn code(self) -> c_int {
        self.0
    }
}

impl From<Refusal> for Errno {
    fn from(refusal: Refusal) -> Self {
        Errno(match refusal {
            Refusal::NotFound => libc::ENOENT,
            Refusal::Exists => libc::EEXIST,
            Refusal::NotDirectory => libc::ENOTDIR,
            Refusal::IsDirectory => libc::EISDIR,
            Refusal::NotEmpty => libc::ENOTEMPTY,
            Refusal::CrossesShare => libc::EXDEV,
            Refusal::ShareRoot => libc::EBUSY,
            Refusal::ReadOnly => libc::EROFS,
            Refusal::Invalid => libc::EINVAL,
            Refusal::NotPermitted => libc::EPERM,
            Refusal::Access => libc::EACCES,
            Refusal::TooManyLinks => libc::EMLINK,
            Refusal::NameTooLong => libc::ENAMETOOLONG,
            Refusal::Quota => libc::EDQUOT,
            Refusal::NoSpace => libc::ENOSPC,
            Refusal::TooLarge => libc::EFBIG,
            Refusal::NoAttribute => libc::ENODATA,
            Refusal::AttributeTooLarge => libc::E2BIG,
            Refusal::NotSupported => libc::EOPNOTSUPP,
            Refusal::Stale => libc::ESTALE,
            Refusal::Busy => libc::EBUSY,
            Refusal::Io => libc::EIO,
        })
    }
}

impl From<NameError> for Errno {
    fn from(error: NameError) -> Self {
        match error {
            NameError::TooLong(_) | NameError::PathTooLong(_) => Refusal::NameTooLong.into(),
            NameError::Empty | NameError::Dots | NameError::BadByte | NameError::NotAbsolute => {
                Refusal::Invalid.into()
            }
        }
    }
}

impl From<Denied> for Errno {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refusal) => refusal.into(),
            Denied::TooManyFiles => Errno::TOO_MANY_FILES,
        }
    }
}

impl From<rustix::io::Errno> for Errno {
    /// An error of a backing file. Numbers that only mean something to this process become EIO.
    fn from(error: rustix::io::Errno) -> Self {
        match error {
            rustix::io::Errno::BADF | rustix::io::Errno::FAULT | rustix::io::Errno::NOSYS => {
                Refusal::Io.into()
            }
            other => Errno(other.raw_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_forbidden_objects_look_the_same() {
        assert_eq!(Errno::from(Refusal::NotFound).code(), libc::ENOENT);
    }

    #[test]
    fn names_fail_as_posix_says() {
        assert_eq!(Errno::from(NameError::TooLong(256)).code(), libc::ENAMETOOLONG);
        assert_eq!(Errno::from(NameError::Dots).code(), libc::EINVAL);
    }

    #[test]
    fn no_reply_can_switch_an_operation_off() {
        // The kernel takes ENOSYS as "never ask again".
        assert_eq!(Errno::from(rustix::io::Errno::NOSYS).code(), libc::EIO);
        assert_eq!(Errno::from(Refusal::NotSupported).code(), libc::EOPNOTSUPP);
    }

    #[test]
    fn every_refusal_has_a_number() {
        // The match in `From<Refusal>` has no wildcard arm, so a new refusal does not compile without a number;
        // here it is made sure that none of them is success or ENOSYS.
        use Refusal::*;
        for refusal in [
            NotFound,
            Exists,
            NotDirectory,
            IsDirectory,
            NotEmpty,
            CrossesShare,
            ShareRoot,
            ReadOnly,
            Invalid,
            NotPermitted,
            Access,
            TooManyLinks,
            NameTooLong,
            Quota,
            NoSpace,
            TooLarge,
            NoAttribute,
            AttributeTooLarge,
            NotSupported,
            Stale,
            Busy,
            Io,
        ] {
            assert!(Errno::from(refusal).code() > 0);
            assert_ne!(Errno::from(refusal).code(), libc::ENOSYS);
        }
    }
}
