//! Starting controllers from a process that has nothing open in a mount.
//!
//! Between `fork` and `exec` a new process closes what it inherited of its parent's files. For a file of a mount that is
//! open for writing this is a request, which may have to be answered by the very controller that is about to be started.
//! So it is not the test, whose loads have files open, that starts controllers, but a shell that is older than any mount.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::process::{Process, await_end};

/// Starts what it reads, tells its number, waits for its end and tells that.
const LOOP: &str = r#"while IFS= read -r order; do eval "$order &"; echo $!; wait $!; echo $?; done"#;
/// What a shell adds to the number of a signal.
const SIGNALLED: i32 = 128;

/// See the module. One process at a time.
#[derive(Debug)]
pub(super) struct Starter {
    shell: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Starter {
    pub(super) fn new() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", LOOP]);
        // It would say of each that was killed that it was.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().expect("start a shell");
        let orders = shell.stdin.take().expect("its input is a pipe");
        let answers = BufReader::new(shell.stdout.take().expect("its output is a pipe"));
        Self { shell, orders, answers }
    }

    /// Starts a command that prints into a file. `None`: it has ended already.
    pub(super) fn start(&mut self, command: &Command, log: &Path) -> Option<Process> {
        let mut order = String::new();
        let log = log.as_os_str();
        for word in std::iter::once(command.get_program()).chain(command.get_args()) {
            let _ = write!(order, "{} ", quoted(word));
        }
        let _ = write!(order, "</dev/null >{} 2>&1", quoted(log));
        writeln!(self.orders, "{order}").expect("the shell listens");
        Process::find(self.answer().try_into().expect("a process has a number"))
    }

    /// Waits for the end of what was started last. `None`: it has not ended in time.
    pub(super) fn await_end(&mut self, process: Option<Process>, deadline: Duration) -> Option<ExitStatus> {
        if process.is_some_and(|process| !await_end(process, deadline)) {
            return None;
        }
        let told = self.answer();
        let signalled = told > SIGNALLED;
        Some(ExitStatus::from_raw(if signalled { told - SIGNALLED } else { told << 8 }))
    }

    fn answer(&mut self) -> i32 {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the shell answers");
        line.trim().parse().expect("the shell answers with a number")
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// A word as a shell reads it.
fn quoted(word: &std::ffi::OsStr) -> String {
    let text = word.to_str().expect("test paths are text");
    assert!(!text.contains('\n'), "one line is one order");
    format!("'{}'", text.replace('\'', r"'\''"))
}
