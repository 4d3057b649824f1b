//! temporary
use freehold_jetstream::*;
use futures::StreamExt;
#[tokio::main]
async fn main() {
    let url = std::env::args().nth(1).unwrap();
    let site = std::env::args().nth(2).unwrap();
    let n: u64 = std::env::args().nth(3).unwrap().parse().unwrap();
    let c = Client::connect(&ConnectOptions::to(url), "load").await.unwrap();
    let t = std::time::Instant::now();
    let pad = "x".repeat(300);
    let bad = futures::stream::iter(0..n)
        .map(|i| {
            let c = c.clone();
            let site = site.clone();
            let pad = pad.clone();
            async move {
                let b = format!("{{\"id\":\"{site}-{i}\",\"record\":{{\"n\":{i},\"p\":\"{pad}\"}}}}");
                let o = SendOptions {
                    command_id: Some(freehold_core::CommandId::from_caller(&format!("c{i}")).unwrap()),
                    ..Default::default()
                };
                let k = "customer".parse().unwrap();
                c.request_until_answered(&k, "create", b.into(), &o, std::time::Duration::from_secs(20))
                    .await
                    .map(|a| a.result.is_err())
                    .unwrap_or(true)
            }
        })
        .buffer_unordered(256)
        .filter(|b| {
            let b = *b;
            async move { b }
        })
        .count()
        .await;
    eprintln!("{n} in {:?}, bad {bad}", t.elapsed());
}
