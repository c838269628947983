//! Names and paths of the logical namespace: bytes, checked once at the edge.

use std::fmt;

use bincode::{Decode, Encode};
use smallvec::SmallVec;
use thiserror::Error;

use crate::limits::{NAME_MAX, PATH_MAX};

/// Why bytes are not a [`Name`] or a [`LogicalPath`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// A component had no bytes.
    #[error("a name must not be empty")]
    Empty,
    /// A component was `.` or `..`.
    #[error("'.' and '..' are not names")]
    Dots,
    /// A component held a byte that separates or ends names.
    #[error("a name must not contain '/' or a NUL byte")]
    BadByte,
    /// A component was longer than [`NAME_MAX`].
    #[error("a name has at most {NAME_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// A path was longer than [`PATH_MAX`].
    #[error("a path has at most {PATH_MAX} bytes, this one has {0}")]
    PathTooLong(usize),
    /// A path did not begin with `/`.
    #[error("a logical path begins with '/'")]
    NotAbsolute,
}

/// One component of a path: 1 to [`NAME_MAX`] bytes, no `/`, no NUL, neither `.` nor `..`. Not necessarily UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(SmallVec<[u8; 24]>);

impl Name {
    /// Checks `bytes` and keeps a copy.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            b"" => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            long if long.len() > NAME_MAX => Err(NameError::TooLong(long.len())),
            bad if bad.iter().any(|&b| b == b'/' || b == 0) => Err(NameError::BadByte),
            good => Ok(Self(SmallVec::from_slice(good))),
        }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Encode for Name {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        self.0.as_slice().encode(encoder)
    }
}

impl<C> Decode<C> for Name {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let bytes = Vec::<u8>::decode(decoder)?;
        Name::new(&bytes).map_err(|e| bincode::error::DecodeError::OtherString(e.to_string()))
    }
}

impl<'de, C> bincode::BorrowDecode<'de, C> for Name {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::decode(decoder)
    }
}

/// An absolute logical path, split into names. `/` has none.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LogicalPath(Vec<Name>);

impl LogicalPath {
    /// Parses `/a/b`; repeated and trailing slashes are folded, `.` and `..` are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.len() > PATH_MAX {
            return Err(NameError::PathTooLong(bytes.len()));
        }
        if bytes.first() != Some(&b'/') {
            return Err(NameError::NotAbsolute);
        }
        let names = bytes.split(|&b| b == b'/').filter(|part| !part.is_empty());
        Ok(Self(names.map(Name::new).collect::<Result<_, _>>()?))
    }

    /// The path of these components, outermost first.
    pub fn from_names(names: Vec<Name>) -> Self {
        Self(names)
    }

    /// The components, outermost first.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// The path of the containing directory and the last name; `None` for `/`.
    pub fn split_last(&self) -> Option<(&[Name], &Name)> {
        self.0.split_last().map(|(last, parents)| (parents, last))
    }
}

impl fmt::Display for LogicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_are_refused() {
        for (bytes, error) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::BadByte),
            (b"a\0b", NameError::BadByte),
            (&[b'x'; 256], NameError::TooLong(256)),
        ] {
            assert_eq!(Name::new(bytes), Err(error));
        }
        assert!(Name::new(&[b'x'; 255]).is_ok());
        assert!(Name::new(b"\xff\xfe").is_ok());
    }

    #[test]
    fn paths_are_absolute_and_folded() {
        assert_eq!(LogicalPath::parse(b"//a///b/").unwrap().to_string(), "/a/b");
        assert_eq!(LogicalPath::parse(b"/").unwrap().to_string(), "/");
        assert_eq!(LogicalPath::parse(b"a"), Err(NameError::NotAbsolute));
        assert_eq!(LogicalPath::parse(b"/a/../b"), Err(NameError::Dots));
        assert_eq!(LogicalPath::parse(&vec![b'/'; 4097]), Err(NameError::PathTooLong(4097)));
    }
}
