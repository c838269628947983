//! The threads that speak S3: started with the first pool that needs them, shared by all.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

/// Requests are mostly waiting; two threads move some GiB/s.
const THREADS: usize = 2;
/// Files that are read or written at the same time.
const FILE_THREADS: usize = 16;

/// See the module.
#[derive(Clone, Debug)]
pub struct S3Runtime {
    handle: Handle,
    _threads: Arc<Threads>,
}

/// Whoever lets go last may be on a thread that must not wait for others to end.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl S3Runtime {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(FILE_THREADS)
            .thread_name("s3")
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), _threads: Arc::new(Threads(Some(runtime))) })
    }

    /// To start work there and not wait for it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Does something there and waits for it. Must not be called on a thread of a runtime that may not block.
    pub fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_one_may_let_go_anywhere() {
        let runtime = S3Runtime::start().unwrap();
        let other = runtime.clone();
        let seven = tokio::task::spawn_blocking(move || other.wait_for(async { 7 })).await.unwrap();
        assert_eq!(seven, 7);
        drop(runtime);
    }
}
