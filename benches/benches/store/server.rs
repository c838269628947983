//! The store in a process of its own: this program again, told so by its environment.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tests::s3::{S3Options, S3Server, User};

pub(crate) const BUCKET: &str = "bench";
pub(crate) const ACCESS_KEY: &str = "root";
pub(crate) const SECRET_KEY: &str = "root-secret";
pub(crate) const REGION: &str = "us-east-1";

/// Says that a process is the server.
const SERVE: &str = "VMDS_BENCH_STORE";

/// Serves until its standard input ends, if this process is the server.
pub(crate) fn serves() -> bool {
    if env::var_os(SERVE).is_none() {
        return false;
    }
    let all = User::new(ACCESS_KEY, SECRET_KEY).may_do_all();
    let server = S3Server::start(S3Options::new().bucket(BUCKET).user(all).opaque_etags());
    println!("{}", server.endpoint());
    // Whoever started it is gone when this ends, one way or the other.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    true
}

/// A server that runs. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    endpoint: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let this = env::current_exe().expect("this program has a path");
        let mut command = Command::new(this);
        let command = command.env(SERVE, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the store");
        let mut endpoint = String::new();
        let said = child.stdout.take().expect("it can say something");
        BufReader::new(said).read_line(&mut endpoint).expect("the store says where it is");
        Self { child, endpoint: endpoint.trim().to_owned() }
    }

    /// `http://ADDRESS:PORT`
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// `ADDRESS:PORT`
    pub(crate) fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
