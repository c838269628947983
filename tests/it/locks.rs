//! Promise: locks of all kinds hold between the processes of a mount as they do on a local file system, and watchers
//! see what is changed there.

use std::fs;

use tests::ok;

use crate::help::{everywhere, python, world};

/// What the programs below have in common. `child(f)` runs `f` in a process of its own and gives its pid and a pipe on
/// which it says things; `told(pipe)` waits for the next line.
const PRELUDE: &str = r#"
import errno, fcntl, os, signal, struct, sys, time
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
def flock_struct(kind, start=0, length=0): return struct.pack('hhqqi', kind, os.SEEK_SET, start, length, 0)
def ofd(fd, kind, command=OFD_SETLK, start=0, length=0): return fcntl.fcntl(fd, command, flock_struct(kind, start, length))
def posix(fd, kind, command=fcntl.F_SETLK, start=0, length=0): return fcntl.fcntl(fd, command, flock_struct(kind, start, length))
def opened(name='lock'): return os.open(name, os.O_RDWR | os.O_CREAT)
def child(work):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        try:
            work(lambda line: os.write(w, (line + '\n').encode()))
            os._exit(0)
        except BaseException as e:
            os.write(2, repr(e).encode())
            os._exit(1)
    os.close(w)
    return pid, os.fdopen(r)
def told(pipe, line):
    got = pipe.readline().strip()
    assert got == line, (got, line)
def done(pid): assert os.waitpid(pid, 0)[1] == 0
def refused(take):
    try: take()
    except OSError as e:
        assert e.errno in (errno.EAGAIN, errno.EACCES), e
        return
    raise AssertionError('the lock was given twice')
# Each kind of lock: take it, give it back, and take it waiting.
KINDS = {
    'flock': (lambda f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB), lambda f: fcntl.flock(f, fcntl.LOCK_UN), lambda f: fcntl.flock(f, fcntl.LOCK_EX)),
    'posix': (lambda f: posix(f, fcntl.F_WRLCK), lambda f: posix(f, fcntl.F_UNLCK), lambda f: posix(f, fcntl.F_WRLCK, fcntl.F_SETLKW)),
    'ofd': (lambda f: ofd(f, fcntl.F_WRLCK), lambda f: ofd(f, fcntl.F_UNLCK), lambda f: ofd(f, fcntl.F_WRLCK, OFD_SETLKW)),
}
"#;

fn works(program: &str) {
    everywhere(|dir| {
        ok(&mut python(dir, &format!("{PRELUDE}{program}")));
    });
}

#[test]
fn who_waits_for_a_lock_gets_it_when_it_is_given_back() {
    works(
        r#"
for name, (take, give, wait) in KINDS.items():
    mine = opened()
    take(mine)
    def waiter(say):
        theirs = opened()
        refused(lambda: take(theirs))
        say('waiting')
        wait(theirs)
        say('got it')
        time.sleep(600)
    pid, pipe = child(waiter)
    told(pipe, 'waiting')
    give(mine)
    told(pipe, 'got it')
    refused(lambda: take(mine))
    # Who is killed gives everything back.
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait(mine)
    os.close(mine)
"#,
    );
}

#[test]
fn a_signal_ends_the_wait_for_a_lock() {
    works(
        r#"
class Woken(Exception): pass
def wake(*_): raise Woken
for name, (take, give, wait) in KINDS.items():
    mine = opened()
    take(mine)
    def waiter(say):
        theirs = opened()
        signal.signal(signal.SIGALRM, wake)
        # Again and again, in case the first comes before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        try: wait(theirs)
        except Woken:
            say('woken')
            return
        say('given twice')
    pid, pipe = child(waiter)
    told(pipe, 'woken')
    done(pid)
    # Whom no signal handler saves dies of the signal at once.
    pid, pipe = child(lambda say: (say('waiting'), wait(opened())))
    told(pipe, 'waiting')
    time.sleep(0.2)
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == signal.SIGTERM
    os.close(mine)
"#,
    );
}

#[test]
fn posix_locks_end_with_any_close_and_those_of_descriptions_with_the_last() {
    works(
        r#"
def is_free(take):
    def work(say):
        fd = opened()
        try: take(fd)
        except OSError: say('taken')
        else: say('free')
    pid, pipe = child(work)
    answer = pipe.readline().strip()
    done(pid)
    return answer == 'free'
take = {name: kind[0] for name, kind in KINDS.items()}
# A process loses its POSIX locks of a file when it closes any descriptor of it.
one, other = opened(), opened()
take['posix'](one)
assert not is_free(take['posix'])
os.close(other)
assert is_free(take['posix'])
os.close(one)
# The others belong to the open file description: copies and children hold it.
for name in ('flock', 'ofd'):
    one, other = opened(), opened()
    take[name](one)
    refused(lambda: take[name](other))
    os.close(other)
    copy = os.dup(one)
    os.close(one)
    assert not is_free(take[name]), name
    os.close(copy)
    assert is_free(take[name]), name
# Locks of descriptions and of processes meet; flock is a world of its own.
one, other = opened(), opened()
take['ofd'](one)
assert not is_free(take['posix'])
assert is_free(take['flock'])
os.close(one); os.close(other)
"#,
    );
}

#[test]
fn ranges_are_locked_shared_and_told() {
    works(
        r#"
fd = opened()
posix(fd, fcntl.F_WRLCK, start=0, length=100)
posix(fd, fcntl.F_RDLCK, start=100, length=100)
def look(say):
    fd = opened()
    refused(lambda: posix(fd, fcntl.F_RDLCK, start=99, length=1))
    refused(lambda: posix(fd, fcntl.F_WRLCK, start=150, length=1))
    posix(fd, fcntl.F_RDLCK, start=150, length=1)
    posix(fd, fcntl.F_WRLCK, start=200, length=0)
    kind, _, start, length, pid = struct.unpack('hhqqi', posix(fd, fcntl.F_WRLCK, fcntl.F_GETLK, 50, 10))
    assert (kind, start, length, pid) == (fcntl.F_WRLCK, 0, 100, os.getppid()), (kind, start, length, pid)
    kind, _, _, _, pid = struct.unpack('hhqqi', ofd(fd, fcntl.F_WRLCK, OFD_GETLK, 50, 10))
    assert kind == fcntl.F_WRLCK
    # Beyond 4 GiB, and split in the middle.
    posix(fd, fcntl.F_WRLCK, start=1 << 40, length=1 << 20)
    posix(fd, fcntl.F_UNLCK, start=(1 << 40) + 4096, length=4096)
    say('split')
    time.sleep(600)
pid, pipe = child(look)
told(pipe, 'split')
posix(fd, fcntl.F_WRLCK, start=(1 << 40) + 4096, length=4096)
refused(lambda: posix(fd, fcntl.F_WRLCK, start=1 << 40, length=1))
os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
posix(fd, fcntl.F_WRLCK, start=1 << 40, length=1)
"#,
    );
}

#[test]
fn a_deadlock_is_refused() {
    works(
        r#"
fd = opened()
posix(fd, fcntl.F_WRLCK, start=0, length=1)
def wait_for(fd, start):
    try: posix(fd, fcntl.F_WRLCK, fcntl.F_SETLKW, start=start, length=1)
    except OSError as e:
        assert e.errno == errno.EDEADLK, e
        return 'deadlock'
    return 'got it'
def other(say):
    fd = opened()
    posix(fd, fcntl.F_WRLCK, start=1, length=1)
    say('locked')
    outcome = wait_for(fd, 0)
    posix(fd, fcntl.F_UNLCK)
    say(outcome)
pid, pipe = child(other)
told(pipe, 'locked')
# Who comes second hears of it, and gives way.
mine = wait_for(fd, 1)
posix(fd, fcntl.F_UNLCK)
told(pipe, 'deadlock' if mine == 'got it' else 'got it')
done(pid)
"#,
    );
}

#[test]
fn leases_are_broken_by_other_opens() {
    works(
        r#"
fd = opened('leased')
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
assert fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_WRLCK
broken = []
signal.signal(signal.SIGIO, lambda *_: broken.append(fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)))
pid, pipe = child(lambda say: (os.close(os.open('leased', os.O_RDONLY)), say('opened')))
told(pipe, 'opened')
done(pid)
assert broken == [0], broken
assert fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK
"#,
    );
}

#[test]
fn watchers_see_what_is_changed_through_their_mount() {
    works(
        r#"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
inotify = libc.inotify_init1(os.O_NONBLOCK)
os.mkdir('watched'); os.mkdir('elsewhere')
ALL = 0xfff
assert libc.inotify_add_watch(inotify, b'watched', ALL) > 0
NAMES = {2: 'modify', 4: 'attrib', 8: 'close_write', 0x40: 'moved_from', 0x80: 'moved_to', 0x100: 'create', 0x200: 'delete'}
def events():
    try: buffer = os.read(inotify, 65536)
    except BlockingIOError: return []
    found, at = [], 0
    while at < len(buffer):
        _, mask, _, length = struct.unpack_from('iIII', buffer, at)
        name = buffer[at + 16:at + 16 + length].rstrip(b'\0').decode()
        at += 16 + length
        if mask & 0xfff in NAMES: found.append((NAMES[mask & 0xfff], name))
    return found
def by_another(work):
    pid, pipe = child(lambda say: work())
    done(pid)
    return events()
def write():
    with open('watched/a', 'w') as f: f.write('x')
assert by_another(write) == [('create', 'a'), ('modify', 'a'), ('close_write', 'a')]
assert by_another(lambda: os.chmod('watched/a', 0o600)) == [('attrib', 'a')]
assert by_another(lambda: os.truncate('watched/a', 0)) == [('modify', 'a')]
assert by_another(lambda: os.rename('watched/a', 'watched/b')) == [('moved_from', 'a'), ('moved_to', 'b')]
assert by_another(lambda: os.rename('watched/b', 'elsewhere/b')) == [('moved_from', 'b')]
assert by_another(lambda: os.link('elsewhere/b', 'watched/c')) == [('create', 'c')]
assert by_another(lambda: os.unlink('watched/c')) == [('delete', 'c')]
assert by_another(lambda: (os.mkdir('watched/d'), os.rmdir('watched/d'))) == [('create', 'd'), ('delete', 'd')]
"#,
    );
}

#[test]
fn changes_through_other_mounts_wake_no_watcher() {
    let world = world();
    let (alice, bob) = (world.mounted("alice"), world.mounted("bob"));
    fs::create_dir(alice.join("d")).unwrap();
    world.ctl(&["share", "grant", "alice:/d", "bob:/d", "--rw"]);
    let program = format!(
        r#"{PRELUDE}
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
inotify = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(inotify, b'd', 0xf8a) > 0
open('{}/d/theirs', 'w').close()
assert os.path.exists('d/theirs')
try: seen = os.read(inotify, 65536)
except BlockingIOError: seen = b''
assert b'theirs' not in seen, seen
open('d/mine', 'w').close()
assert b'mine' in os.read(inotify, 65536)
"#,
        alice.display()
    );
    ok(&mut python(&bob, &program));
}

#[test]
fn locks_are_held_over_a_kill_of_the_vmds() {
    let world = world();
    let dir = world.mounted("alice");
    let program = format!(
        r#"{PRELUDE}
fds = {{name: opened(name) for name in KINDS}}
for name, (take, give, wait) in KINDS.items(): take(fds[name])
def waiter(say):
    theirs = {{name: opened(name) for name in KINDS}}
    for name, (take, give, wait) in KINDS.items(): refused(lambda: take(theirs[name]))
    say('waiting')
    KINDS['posix'][2](theirs['posix'])
    for name in ('flock', 'ofd'): refused(lambda: KINDS[name][0](theirs[name]))
    say('got it')
pid, pipe = child(waiter)
told(pipe, 'waiting')
os.kill({}, signal.SIGKILL)
os.path.exists('never seen before')
for name, (take, give, wait) in KINDS.items():
    child_pid, child_pipe = child(lambda say: refused(lambda: take(opened(name))))
    done(child_pid)
KINDS['posix'][1](fds['posix'])
told(pipe, 'got it')
done(pid)
"#,
        world.vmds().pid
    );
    ok(&mut python(&dir, &program));
}
