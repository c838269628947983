//! Promise: SQLite keeps its databases whole on a tenant's tree, in write-ahead mode and with concurrent writers.

use crate::help::{everywhere, python};
use tests::ok;

const SET_UP: &str = "import sqlite3, sys\n\
    db = sqlite3.connect('db', timeout=60)\n\
    assert db.execute('pragma journal_mode=' + sys.argv[1]).fetchone()[0] == sys.argv[1]\n\
    db.execute('create table t (writer text, n integer, filler text)')\n\
    db.commit()\n";

const WRITER: &str = "import sqlite3, sys\n\
    db = sqlite3.connect('db', timeout=60, isolation_level=None)\n\
    db.execute('pragma synchronous=normal')\n\
    for n in range(150):\n\
    \x20   db.execute('begin immediate')\n\
    \x20   db.executemany('insert into t values (?, ?, ?)', [(sys.argv[1], n, 'x' * 500)] * 5)\n\
    \x20   db.execute('rollback' if n % 10 == 9 else 'commit')\n\
    \x20   if n % 50 == 0: db.execute('pragma wal_checkpoint(truncate)')\n";

const LOOK: &str = "import sqlite3\n\
    db = sqlite3.connect('db', timeout=60)\n\
    assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'\n\
    assert db.execute('select writer, count(*) from t group by 1').fetchall() == \
    [(w, 675) for w in 'abc'], db.execute('select writer, count(*) from t group by 1').fetchall()\n\
    db.execute('vacuum')\n\
    assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'\n";

fn three_writers(mode: &str) {
    everywhere(|dir| {
        ok(python(dir, SET_UP).arg(mode));
        let mut writers: Vec<_> =
            ["a", "b", "c"].map(|name| python(dir, WRITER).arg(name).spawn().unwrap()).into();
        for writer in &mut writers {
            assert!(writer.wait().unwrap().success());
        }
        ok(&mut python(dir, LOOK));
    });
}

#[test]
fn three_writers_with_a_write_ahead_log() {
    three_writers("wal");
}

#[test]
fn three_writers_with_a_rollback_journal() {
    three_writers("delete");
}
