//! Taking what has arrived at once, so that what it costs to be woken is shared.

use futures::{FutureExt as _, Stream, StreamExt as _};

/// Waits for the next item of a stream and takes those that are there behind it, `most` in all; nothing at the stream's end. May be dropped
/// at any time.
///
/// It takes room for what there is. `ready_chunks` of the futures crate reserves room for `most` each time, which costs more than handling
/// the few messages that there mostly are.
pub(crate) async fn arrived<S: Stream + Unpin>(stream: &mut S, most: usize) -> Option<Vec<S::Item>> {
    let mut items = vec![stream.next().await?];
    while items.len() < most
        && let Some(Some(item)) = stream.next().now_or_never()
    {
        items.push(item);
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_taken_up_to_the_most() {
        let mut numbers = stream::iter(0..5).chain(stream::pending());
        assert_eq!(arrived(&mut numbers, 3).await, Some(vec![0, 1, 2]));
        assert_eq!(arrived(&mut numbers, 3).await, Some(vec![3, 4]));
        assert!(arrived(&mut numbers, 3).now_or_never().is_none(), "nothing is there");
        assert_eq!(arrived(&mut stream::empty::<u8>(), 3).await, None);
    }
}
