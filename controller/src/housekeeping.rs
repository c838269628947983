//! What has to be done now and then, whoever asks: ending overdue invalidations, deleting objects that could not be
//! deleted when their files went.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::session::DataPlane;

/// Between two looks at overdue invalidations.
const TICK: Duration = Duration::from_millis(100);
/// Between two sweeps of deleted objects.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Starts the thread; it ends with the data plane.
pub fn start(plane: &Arc<DataPlane>) -> std::io::Result<()> {
    let plane = Arc::downgrade(plane);
    std::thread::Builder::new().name("housekeeping".into()).spawn(move || run(&plane))?;
    Ok(())
}

fn run(plane: &Weak<DataPlane>) {
    let mut last_sweep = Instant::now();
    loop {
        std::thread::sleep(TICK);
        let Some(plane) = plane.upgrade() else { return };
        plane.hub.expire_fences();
        if last_sweep.elapsed() >= SWEEP_EVERY {
            last_sweep = Instant::now();
            sweep(&plane);
        }
    }
}

fn sweep(plane: &DataPlane) {
    for tenant in plane.map.tenants() {
        // A tenant that is being deleted just now has nothing left to sweep.
        if let Ok(tree) = plane.map.tree(tenant) {
            plane.sweep(&tree);
        }
    }
}
