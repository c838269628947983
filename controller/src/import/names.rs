//! Keys of objects as paths, and back. Most keys are paths as they are; the others are written with escapes that no key
//! can have otherwise:
//!
//! | in a key | in a path |
//! |---|---|
//! | nothing between two `/`, or behind the last one | `%2F` |
//! | `.` and `..` between two `/` | `%2E`, `%2E%2E` |
//! | a NUL | `%00` |
//! | a `%` before two of `0-9A-F` | `%25` |
//! | a part too long for a name | pieces, each a directory of the one before, with `%2B` at the end of all but the last |
//! | a part whose name is taken: by a file, for a directory, or the other way round | `%2F` at the end |
//!
//! So distinct keys are distinct paths, and of each path the key can be told.

use address_map::limits::NAME_MAX;
use address_map::name::Name;

use crate::pool::s3::SEPARATOR;

/// Stands for nothing, or says that the name without it was taken.
const SLASH: &str = "%2F";
/// The name goes on in the directory of this name.
const GOES_ON: &str = "%2B";
/// Longest name that something can be appended to, in bytes.
const PIECE_MAX: usize = NAME_MAX - SLASH.len();

/// A name on the way to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What it may be called: the first that is free.
    pub(crate) names: Vec<Name>,
}

/// Where an object is, seen from the directory of its import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directories above it, outermost first, and for each whether a part of the key ends there.
    pub(crate) directories: Vec<Step>,
    /// The file; `None`: the object stands for the last directory itself.
    pub(crate) file: Option<Step>,
}

/// The place of an object. `key`: the part behind the prefix. An object without bytes whose key ends in `/` stands for a
/// directory.
pub(crate) fn place(key: &str, size: u64) -> Place {
    let (above, last) = key.rsplit_once(SEPARATOR).map_or((None, key), |(above, last)| (Some(above), last));
    let directories = above.into_iter().flat_map(|above| above.split(SEPARATOR)).flat_map(directory);
    let mut directories: Vec<Step> = directories.collect();
    if last.is_empty() && size == 0 {
        return Place { directories, file: None };
    }
    let mut pieces = file(last);
    let last = pieces.pop();
    directories.extend(pieces);
    Place { directories, file: last }
}

/// The names of a directory, outermost first.
pub(crate) fn directory(part: &str) -> Vec<Step> {
    steps(part, PIECE_MAX)
}

fn file(part: &str) -> Vec<Step> {
    steps(part, NAME_MAX)
}

/// One name of at most `longest` bytes, or pieces of it.
fn steps(part: &str, longest: usize) -> Vec<Step> {
    let tokens = tokens(part);
    let length: usize = tokens.iter().map(String::len).sum();
    if length <= longest {
        return vec![last_step(tokens.concat())];
    }
    let (mut steps, mut piece) = (Vec::new(), String::new());
    for token in tokens {
        if piece.len() + token.len() > PIECE_MAX {
            steps.extend(step([piece + GOES_ON]));
            piece = String::new();
        }
        piece += &token;
    }
    // What is left over may be dots alone.
    steps.push(last_step(undotted(piece)));
    steps
}

fn last_step(name: String) -> Step {
    let second = (name.len() <= PIECE_MAX).then(|| format!("{name}{SLASH}"));
    step(std::iter::once(name).chain(second)).unwrap_or(Step { names: Vec::new() })
}

fn step(names: impl IntoIterator<Item = String>) -> Option<Step> {
    let names = names.into_iter().map(|name| Name::new(name.as_bytes())).collect::<Result<_, _>>().ok()?;
    Some(Step { names })
}

/// The escaped part, in pieces that must not be taken apart.
fn tokens(part: &str) -> Vec<String> {
    match part {
        "" => return vec![SLASH.to_owned()],
        "." | ".." => return vec![undotted(part.to_owned())],
        _ => {}
    }
    let mut tokens = Vec::with_capacity(part.len());
    for (at, character) in part.char_indices() {
        tokens.push(match character {
            '\0' => "%00".to_owned(),
            '%' if is_escape(&part[at..]) => "%25".to_owned(),
            other => other.to_string(),
        });
    }
    tokens
}

fn undotted(name: String) -> String {
    match name.as_str() {
        "." | ".." => name.replace('.', "%2E"),
        _ => name,
    }
}

fn is_escape(text: &str) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    matches!(text.as_bytes(), [b'%', high, low, ..] if is_digit(high) && is_digit(low))
}

#[cfg(test)]
mod tests;
