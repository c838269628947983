//! Asking a second time when an answer is late: the first good answer counts, and the other request is given up.
//!
//! Late is what is far above what is usual for this store: a mean and a mean deviation of the times until answers
//! began, as TCP estimates when to send again. A store that is slow altogether is not late, and is not asked twice as
//! much: second requests are paid for from a budget that requests fill a twentieth each.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

/// How long an answer is waited for at least.
const LATE_MIN: Duration = Duration::from_millis(100);
/// How long at most.
const LATE_MAX: Duration = Duration::from_secs(5);
/// How long while nothing is known of the store.
const LATE_FIRST: Duration = Duration::from_millis(500);
/// What a request pays in, and what a second one costs: one in twenty.
const PAID: u32 = 1;
const COST: u32 = 20;
/// What the budget holds at most, and begins with.
const BUDGET_MAX: u32 = 4 * COST;
const BUDGET_FIRST: u32 = COST;

/// What is usual, and what may be spent.
#[derive(Debug)]
struct State {
    /// Mean and mean deviation of the times, once there was one.
    usual: Option<(Duration, Duration)>,
    budget: u32,
}

/// When to ask a store a second time. See the module.
#[derive(Debug)]
pub(super) struct Hedge(Mutex<State>);

impl Default for Hedge {
    fn default() -> Self {
        Self(Mutex::new(State { usual: None, budget: BUDGET_FIRST }))
    }
}

impl Hedge {
    /// Waits for `first`. When it is late and the budget allows, `second` is asked for a request like it; if that gives
    /// one, the better of both counts: the first that is good, or else the error of `first`.
    pub(super) async fn race<T, E, First, Second>(
        &self,
        first: First,
        second: impl FnOnce() -> Option<Second>,
    ) -> Result<T, E>
    where
        First: Future<Output = Result<T, E>>,
        Second: Future<Output = Result<T, E>>,
    {
        let begun = Instant::now();
        let late = self.begin();
        let mut first = pin!(first);
        let answer = match timeout(late, &mut first).await {
            Ok(answer) => answer,
            Err(_) => match self.spend(second) {
                None => first.await,
                Some(second) => better(first, pin!(second)).await,
            },
        };
        if answer.is_ok() {
            self.saw(begun.elapsed());
        }
        answer
    }

    /// A request begins: it pays in, and learns when it is late.
    fn begin(&self) -> Duration {
        let mut state = self.0.lock();
        state.budget = (state.budget + PAID).min(BUDGET_MAX);
        match state.usual {
            Some((mean, deviation)) => (mean + 4 * deviation).clamp(LATE_MIN, LATE_MAX),
            None => LATE_FIRST,
        }
    }

    /// A second request, if it can be paid for and made.
    fn spend<S>(&self, second: impl FnOnce() -> Option<S>) -> Option<S> {
        let mut state = self.0.lock();
        let rest = state.budget.checked_sub(COST)?;
        let second = second()?;
        state.budget = rest;
        Some(second)
    }

    /// So long it took until a good answer began.
    fn saw(&self, took: Duration) {
        let mut state = self.0.lock();
        state.usual = Some(match state.usual {
            None => (took, took / 2),
            Some((mean, deviation)) => ((mean * 7 + took) / 8, (deviation * 3 + took.abs_diff(mean)) / 4),
        });
    }
}

/// The first that is good; if none is, what `first` says.
async fn better<T, E>(
    mut first: impl Future<Output = Result<T, E>> + Unpin,
    mut second: impl Future<Output = Result<T, E>> + Unpin,
) -> Result<T, E> {
    tokio::select! {
        answer = &mut first => match answer {
            Ok(good) => Ok(good),
            Err(error) => second.await.map_err(|_| error),
        },
        answer = &mut second => match answer {
            Ok(good) => Ok(good),
            Err(_) => first.await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::sleep;

    use super::*;

    async fn after(ms: u64, answer: Result<u32, u32>) -> Result<u32, u32> {
        sleep(Duration::from_millis(ms)).await;
        answer
    }

    /// A store whose answers usually take 10 ms.
    async fn used_to_it() -> Hedge {
        let hedge = Hedge::default();
        for _ in 0..50 {
            assert_eq!(hedge.race(after(10, Ok(1)), || Some(after(10, Ok(2)))).await, Ok(1));
        }
        hedge
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_overtaken_by_a_second_one() {
        let (hedge, begun) = (used_to_it().await, Instant::now());
        assert_eq!(hedge.race(after(9000, Ok(1)), || Some(after(10, Ok(2)))).await, Ok(2));
        assert!(begun.elapsed() < Duration::from_millis(120), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_good_answer_counts_and_otherwise_the_first_error() {
        let hedge = used_to_it().await;
        assert_eq!(hedge.race(after(300, Ok(1)), || Some(after(10, Err(2)))).await, Ok(1));
        assert_eq!(hedge.race(after(2000, Err(1)), || Some(after(3000, Ok(2)))).await, Ok(2));
        let hedge = used_to_it().await;
        assert_eq!(hedge.race(after(300, Err(1)), || Some(after(10, Err(2)))).await, Err(1));
        assert_eq!(hedge.race(after(300, Ok(1)), || None::<std::future::Ready<_>>).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_slow_altogether_is_hardly_asked_twice() {
        let (hedge, twice) = (used_to_it().await, AtomicU32::new(0));
        for round in 0..400 {
            let slow = 1000 + 500 * (round % 3);
            let second = || {
                twice.fetch_add(1, Ordering::Relaxed);
                Some(after(slow, Ok(2)))
            };
            hedge.race(after(slow, Ok(1)), second).await.unwrap();
        }
        let twice = twice.into_inner();
        assert!(twice <= 4 + 400 / 20, "the budget holds: {twice}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_holds_when_answers_never_become_usual() {
        let (hedge, mut twice) = (Hedge::default(), 0);
        for _ in 0..200 {
            // Errors teach nothing, so each of them is late.
            let second = || {
                twice += 1;
                Some(after(600, Err(2)))
            };
            assert_eq!(hedge.race(after(600, Err(1)), second).await, Err(1));
        }
        assert_eq!(twice, 1 + 200 / 20, "one to begin with, and one in twenty");
    }
}
