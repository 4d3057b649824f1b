//! Progress on stderr, where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the bar is brought up to date.
const SHOW_INTERVAL: Duration = Duration::from_millis(100);

/// A bar over a known number of things, with rate and ETA.
pub(crate) fn progress_bar(what: &'static str, total: u64) -> ProgressBar {
    let template = "{prefix:>8} {bar:32} {human_pos} of {human_len}  {per_sec}  {elapsed} gone, {eta} to go  {msg}";
    let bar = ProgressBar::new(total).with_prefix(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(error) => unreachable!("the template is fixed in the program: {error}"),
    }
}

/// Waits for `work` and shows meanwhile how far it is.
pub(crate) async fn wait_shown<T>(bar: &ProgressBar, position: impl Fn() -> u64, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(SHOW_INTERVAL);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => bar.set_position(position()),
        }
    };
    bar.set_position(position());
    bar.finish_and_clear();
    done
}
