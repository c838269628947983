//! Files with credentials as the AWS tools write them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_credential_types::Credentials;

/// Largest file, bytes.
const FILE_MAX: u64 = 64 * 1024;
/// Permission bits that a file with secrets must not have.
const OTHERS: u32 = 0o077;

/// Reads a profile of a file that nobody but its owner may read.
///
/// # Errors
/// A sentence that names the file and never what is in it.
pub(super) fn read(path: &Path, profile: &str) -> Result<Credentials, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("the credentials file {shown} cannot be read: {error}");
    let file = File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() || facts.len() > FILE_MAX {
        return Err(format!("{shown} is not a credentials file: a file of at most {FILE_MAX} bytes is one"));
    }
    if facts.mode() & OTHERS != 0 {
        return Err(format!(
            "the credentials file {shown} is open to others (mode {:04o}); make it 0600",
            facts.mode() & 0o7777
        ));
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
    parse(&text, profile).map_err(|sentence| format!("the credentials file {shown} {sentence}"))
}

/// The credentials of a profile.
fn parse(text: &str, profile: &str) -> Result<Credentials, String> {
    let (mut inside, mut found) = (false, false);
    let (mut id, mut secret, mut token) = (None, None, None);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let name = section.trim().trim_start_matches("profile ").trim();
            inside = name == profile;
            found |= inside;
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(format!("makes no sense in line {}", number + 1));
        };
        if inside {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match key.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(Credentials::new(id, secret, token, None, "file")),
        _ if found => {
            Err(format!("has no aws_access_key_id and aws_secret_access_key in profile '{profile}'"))
        }
        _ => Err(format!("has no profile '{profile}'")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FILE: &str = "# mine\n[default]\naws_access_key_id = AK1\naws_secret_access_key=s3cret1/+=\n\n\
                        [profile other]\nregion = x\nAWS_ACCESS_KEY_ID=AK2\naws_secret_access_key = s3cret2\n\
                        aws_session_token = t0ken\n[half]\naws_access_key_id = AK3\n";

    #[test]
    fn profiles_are_found_by_name() {
        let one = parse(FILE, "default").unwrap();
        assert_eq!((one.access_key_id(), one.secret_access_key()), ("AK1", "s3cret1/+="));
        assert_eq!(one.session_token(), None);
        let two = parse(FILE, "other").unwrap();
        assert_eq!((two.access_key_id(), two.session_token()), ("AK2", Some("t0ken")));
    }

    #[test]
    fn what_is_wrong_is_told_without_what_is_inside() {
        assert!(parse(FILE, "half").unwrap_err().contains("profile 'half'"));
        assert_eq!(parse(FILE, "none").unwrap_err(), "has no profile 'none'");
        assert_eq!(parse("[default]\ns3cret\n", "default").unwrap_err(), "makes no sense in line 2");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, FILE).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read(&path, "default").unwrap_err();
        assert!(refused.contains("open to others (mode 0640)"), "{refused}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(&path, "default").is_ok());
        assert!(read(dir.path(), "default").unwrap_err().contains("is not a credentials file"));
        assert!(read(&dir.path().join("none"), "default").unwrap_err().contains("cannot be read"));
    }
}
