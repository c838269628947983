//! The kernel's own access control for processes that restrict themselves: everything it knows is denied.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};

use super::SandboxError;

/// Newest version of the interface whose rights are denied; an older kernel denies those it knows.
const NEWEST: ABI = ABI::V9;

/// Denies this thread, and those it starts, every access to files by path, TCP, and processes outside. Descriptors
/// keep the rights they had when they were opened, also those that others open and pass on.
pub(super) fn deny_all() -> Result<(), SandboxError> {
    let denied = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()?;
    match denied.ruleset {
        RulesetStatus::NotEnforced => Err(SandboxError::NoLandlock),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Seek, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use super::*;

    /// Alone, without the filter of system calls in front of it.
    #[test]
    fn it_denies_what_is_named_and_not_what_is_held() {
        let mut held = tempfile::tempfile().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap();
        let name = SocketAddr::from_abstract_name(format!("vmds-test-{}", std::process::id())).unwrap();
        let _listener = UnixListener::bind_addr(&name).unwrap();
        let restricted = move || {
            deny_all().unwrap();
            let denied = |kind: ErrorKind| assert_eq!(kind, ErrorKind::PermissionDenied);
            denied(File::open("/etc/passwd").unwrap_err().kind());
            denied(File::open("/").unwrap_err().kind());
            denied(File::create("/tmp/vmds-test-denied").unwrap_err().kind());
            denied(TcpListener::bind("127.0.0.1:0").unwrap_err().kind());
            denied(TcpStream::connect(address).unwrap_err().kind());
            denied(UnixStream::connect_addr(&name).unwrap_err().kind());
            held.write_all(b"0123456789").unwrap();
            held.set_len(5).unwrap();
            held.rewind().unwrap();
            let mut text = String::new();
            held.read_to_string(&mut text).unwrap();
            assert_eq!(text, "01234");
        };
        std::thread::spawn(restricted).join().unwrap();
    }
}
