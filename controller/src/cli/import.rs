//! `vmdsctl import`.

use super::args::ImportArguments;
use super::client::resource_path;
use super::long::{self, Told};
use super::{CliError, Run};
use crate::api::{ImportView, ImportWish};
use crate::resource::{Kind, human_bytes, to_value};

pub(super) async fn import(run: &Run, arguments: &ImportArguments) -> Result<(), CliError> {
    let ImportArguments { from, to, lazy, pool, uid, gid, mode } = arguments;
    let wish = ImportWish {
        bucket: from.name.clone(),
        prefix: from.prefix.clone(),
        pool: pool.clone(),
        path: to.path.clone(),
        uid: *uid,
        gid: *gid,
        mode: *mode,
        lazy: *lazy,
    };
    let path = format!("{}/import", resource_path(Kind::Tenant, &to.tenant));
    let done = if *lazy { when_looked_at } else { made };
    let told = Told { found: |&()| String::new(), progress: so_far, done };
    let what = format!("the import into {}:{}", to.tenant, to.path);
    long::follow::<(), ImportView, ImportView>(run, &path, &to_value(&wish), &what, told).await.map(drop)
}

fn so_far(view: &ImportView) -> String {
    let ImportView { files, directories, bytes, .. } = *view;
    format!("{files} files of {} in {directories} directories", human_bytes(bytes))
}

fn made(view: &ImportView) -> String {
    let skipped = match view.skipped {
        0 => String::new(),
        skipped => format!("; {skipped} objects were left out: VMDS's own, or with keys that are no text"),
    };
    format!("imported {}{skipped}", so_far(view))
}

fn when_looked_at(_: &ImportView) -> String {
    "imported: directories are listed when somebody looks into them".to_owned()
}
