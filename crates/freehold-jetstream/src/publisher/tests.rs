//! Both ways of publishing on a real server.

use async_nats::jetstream::stream;
use freehold_sandbox::Sandbox;

use super::*;
use crate::command_log::is_full;

struct Log {
    // Ends with its servers.
    _sandbox: Sandbox,
    context: jetstream::Context,
    publisher: Publisher,
}

async fn log(config: stream::Config) -> Log {
    let sandbox = Sandbox::builder().site("ewr").sync_always(true).start().await.unwrap();
    let client = async_nats::connect(sandbox.site("ewr").url()).await.unwrap();
    let context = jetstream::new(client.clone());
    let subjects = vec!["log.>".to_owned()];
    let config = stream::Config { name: "LOG".to_owned(), subjects, allow_atomic_publish: true, ..config };
    context.create_stream(config).await.unwrap();
    Log { _sandbox: sandbox, publisher: Publisher::new(client, context.clone()), context }
}

fn message(number: usize) -> Outbound {
    let message = PublishMessage::build().payload(vec![b'x'; 100].into()).message_id(format!("id-{number}"));
    Outbound { subject: format!("log.{number}"), message, bytes: 100 }
}

async fn gather_all(log: &Log, messages: Vec<Outbound>) -> Vec<Result<Stored, PublishError>> {
    let answers = join_all(messages.into_iter().map(|message| log.publisher.gather(vec![message], false))).await;
    answers.into_iter().flatten().collect()
}

async fn count(log: &Log) -> u64 {
    log.context.get_stream("LOG").await.unwrap().info().await.unwrap().state.messages
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gathered_is_answered_one_by_one() {
    let log = log(stream::Config::default()).await;
    let answers = gather_all(&log, (0..200).map(message).collect()).await;
    let mut sequences: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().sequence.0).collect();
    // Each is told where its own message is.
    let stream = log.context.get_stream("LOG").await.unwrap();
    for (number, sequence) in sequences.iter().enumerate() {
        let stored = stream.get_raw_message(*sequence).await.unwrap();
        assert_eq!(stored.subject.as_str(), format!("log.{number}"));
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_refused_takes_no_other_with_it() {
    let log = log(stream::Config::default()).await;
    let first = log.publisher.gather(vec![message(0)], false).await.pop().unwrap().unwrap();
    let mut messages: Vec<_> = (0..50).map(message).collect();
    let expecting = messages[7].message.clone().expected_last_subject_sequence(99);
    messages[7].message = expecting;
    let answers = gather_all(&log, messages).await;
    for (number, answer) in answers.into_iter().enumerate() {
        match number {
            0 => assert_eq!(answer.unwrap(), Stored { duplicate: true, ..first }),
            7 => assert_eq!(answer.unwrap_err().kind(), PublishErrorKind::WrongLastSequence),
            _ => assert!(!answer.unwrap().duplicate, "{number}"),
        }
    }
    assert_eq!(count(&log).await, 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_stays_so_though_another_part_of_its_batch_is_refused() {
    let log = log(stream::Config::default()).await;
    let whole = |first: usize| log.publisher.publish_whole((first..first + 5).map(message).collect());
    let mut wrong: Vec<_> = (90..95).map(message).collect();
    let expecting = wrong[4].message.clone().expected_last_subject_sequence(99);
    wrong[4].message = expecting;
    let refused = log.publisher.publish_whole(wrong);
    let (first, refused, second, alone) =
        tokio::join!(whole(0), refused, whole(10), log.publisher.gather(vec![message(50)], false));
    for stored in [first.unwrap(), second.unwrap()] {
        let sequences: Vec<_> = stored.iter().map(|stored| stored.sequence.0).collect();
        assert_eq!(sequences, (sequences[0]..sequences[0] + 5).collect::<Vec<_>>(), "a batch has no gaps");
    }
    assert_eq!(refused.unwrap_err().kind(), PublishErrorKind::WrongLastSequence);
    assert!(alone[0].is_ok());
    assert_eq!(count(&log).await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_says_so_to_each() {
    let config = stream::Config { max_messages: 20, discard: stream::DiscardPolicy::New, ..Default::default() };
    let log = log(config).await;
    let answers = gather_all(&log, (0..50).map(message).collect()).await;
    let (stored, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((stored.len(), count(&log).await), (20, 20));
    for answer in refused {
        let error = answer.unwrap_err();
        assert!(is_full(&error), "{error}: {:?}", std::error::Error::source(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_fsyncs_is_gathered() {
    let log = log(stream::Config::default()).await;
    let is_kept = |choice: &Choice| choice.way() == Way::Gathered && !choice.is_trial();
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    let mut number = 0;
    while !is_kept(&lock(&log.publisher.shared.choice)) {
        assert!(Instant::now() < deadline, "batches were never kept");
        let messages = (number..number + 200).map(message);
        let publisher = &log.publisher;
        join_all(messages.map(|message| async move { publisher.publish(vec![message]).await })).await;
        number += 200;
    }
}
