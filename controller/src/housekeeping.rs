//! What has to be done now and then, whoever asks: ending overdue invalidations.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::session::DataPlane;

/// Between two looks at overdue invalidations.
const TICK: Duration = Duration::from_millis(100);

/// Starts the thread; it ends with the data plane.
pub fn start(plane: &Arc<DataPlane>) -> std::io::Result<()> {
    let plane = Arc::downgrade(plane);
    std::thread::Builder::new().name("housekeeping".into()).spawn(move || run(&plane))?;
    Ok(())
}

fn run(plane: &Weak<DataPlane>) {
    loop {
        std::thread::sleep(TICK);
        let Some(plane) = plane.upgrade() else { return };
        plane.hub.hear();
        plane.hub.expire_fences();
    }
}
