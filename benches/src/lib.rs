//! What all benches share: medians of samples, and a table that sets each figure beside its floor.
//!
//! A figure alone says more about the machine than about the program, so every row carries a floor measured in the
//! same run and the ratio to it. It draws no conclusions and fails no build.

use std::env;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Samples per figure; their median is told.
const SAMPLES: usize = 15;

/// The median of several samples: how long one call takes when it is made `calls` times in a row. The first sample is
/// thrown away.
pub fn median(calls: u32, mut call: impl FnMut()) -> Duration {
    let mut sample = || {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed() / calls
    };
    sample();
    let mut samples: Vec<Duration> = (0..SAMPLES).map(|_| sample()).collect();
    samples.sort_unstable();
    samples[SAMPLES / 2]
}

/// How long one call takes.
pub fn once<T>(call: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = call();
    (start.elapsed(), result)
}

/// A number from the environment, or a default.
pub fn setting(name: &str, default: u32) -> u32 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Figures beside their floors.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    /// Adds a row: what was done, by whom, how long it took, and what the floor is and takes.
    pub fn row(&mut self, what: &str, who: &str, took: Duration, floor: (&str, Duration)) {
        let ratio = took.as_secs_f64() / floor.1.as_secs_f64().max(1e-9);
        let floor = format!("{} ({})", time(floor.1), floor.0);
        self.rows.push([what.to_owned(), who.to_owned(), time(took), floor, format!("{ratio:.1}")]);
    }

    /// The table as text.
    pub fn render(&self) -> String {
        let head = ["what", "who", "median", "floor", "ratio"].map(str::to_owned);
        let width = |i: usize| {
            self.rows.iter().chain([&head]).map(|row| row[i].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut text = String::new();
        for row in [&head].into_iter().chain(&self.rows) {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }
}

/// A duration with three digits, in the unit that suits it.
fn time(duration: Duration) -> String {
    let ns = duration.as_secs_f64() * 1e9;
    let (number, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (ns, text) in
            [(7, "7.00 ns"), (42_100, "42.1 us"), (999_000_000, "999 ms"), (1_500_000_000, "1.50 s")]
        {
            assert_eq!(time(Duration::from_nanos(ns)), text);
        }
    }

    #[test]
    fn rows_tell_the_ratio_to_their_floor() {
        let mut table = Table::default();
        table.row("get", "x", Duration::from_micros(6), ("y", Duration::from_micros(2)));
        let text = table.render();
        assert!(text.contains("6.00 us  2.00 us (y)  3.0"), "{text}");
    }
}
