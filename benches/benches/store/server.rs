//! The store in a process of its own: this program again, told so by its environment.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tests::s3::{Fault, S3Options, S3Server, User};

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
    // Each line says how far away the store shall be. Whoever started it is gone when there are no more.
    for line in io::stdin().lines().map_while(Result::ok) {
        server.faults().clear();
        let ms = line.parse().expect("a number");
        server.faults().add(Fault::Latency(Duration::from_millis(ms)).always());
        println!("{line}");
    }
    true
}

/// A server that runs. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    says: BufReader<ChildStdout>,
    endpoint: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let this = env::current_exe().expect("this program has a path");
        let mut command = Command::new(this);
        let command = command.env(SERVE, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the store");
        let mut endpoint = String::new();
        let mut says = BufReader::new(child.stdout.take().expect("it can say something"));
        says.read_line(&mut endpoint).expect("the store says where it is");
        Self { child, says, endpoint: endpoint.trim().to_owned() }
    }

    /// From now on each answer comes so much later.
    pub(crate) fn be_away(&mut self, ms: u32) {
        let told = self.child.stdin.as_mut().expect("it listens");
        writeln!(told, "{ms}").and_then(|()| told.flush()).expect("tell the store");
        self.says.read_line(&mut String::new()).expect("the store has heard");
    }

    /// `http://ADDRESS:PORT`
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
