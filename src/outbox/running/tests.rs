//! The memory of pending transactions, and a relay that takes no order.

use tokio::sync::{mpsc, watch};

use super::*;
use crate::{
    config::Config,
    outbox::{record::Millis, relay::Totals, store::pretend_disk::PretendDisk},
};

#[test]
fn pending_transactions_take_a_quarter_of_the_clients_memory() {
    for networks in [1, 3] {
        let bytes = most_pending(1 << 30, networks) * networks * ENTRY_BYTES;
        assert!(bytes <= 256 << 20 && bytes > 255 << 20, "{bytes}");
    }
    assert_eq!((most_pending(0, 1), most_pending(1 << 20, 0)), (64, 85));
}

/// Behind a disk that hangs a relay takes no order: its queue is full.
#[tokio::test(start_paused = true)]
async fn a_relay_with_a_full_queue_holds_up_no_reload_and_no_end() {
    let text = "admin.listen = \"127.0.0.1:0\"\n[outbox]\n[[el.primary]]\nhttp = \"http://127.0.0.1:1\"\n";
    let settings = Config::parse(text, &|_| None).unwrap().outbox.unwrap();
    let tools = Tools {
        store: Store::inline(Box::new(PretendDisk::new())).unwrap(),
        connect: Arc::new(|_| Err(std::io::Error::other("there is no endpoint"))),
        clock: Arc::new(|| Millis(0)),
        seed: 7,
        memory: Budget::new(64 << 20),
        networks: 1,
        is_replica: false,
        metrics: Arc::new(Metrics::new()),
        broken: Arc::new(|_| {}),
    };
    let (outbox, running) = Outbox::start(&settings, tools).unwrap();
    let (orders, mut inbox) = mpsc::channel(1);
    let (questions, _asked) = mpsc::channel(1);
    let (nodes, totals) = (watch::Sender::new(None), Totals::default());
    let relay = Arc::new(RelayHandle { orders, questions, nodes, totals });
    outbox.shared.relays().insert("main".into(), relay.clone());
    assert!(relay.orders.try_send(Order::Forget(Vec::new())).is_ok());
    let limit = Duration::from_secs(30);
    let prepared = outbox.prepare(&settings).unwrap();
    timeout(limit, outbox.apply(&settings, prepared)).await.expect("a reload waits for the relay");
    outbox.drain();
    // The relay has time again, and has missed neither.
    let (mut reloads, mut drains) = (0, 0);
    for _ in 0..3 {
        match timeout(limit, inbox.recv()).await.expect("an order is lost").unwrap() {
            Order::Reload => reloads += 1,
            Order::Drain(_) => drains += 1,
            _ => {}
        }
    }
    assert_eq!((reloads, drains), (1, 1));
    assert!(relay.orders.try_send(Order::Forget(Vec::new())).is_ok());
    timeout(limit, running.shutdown(Duration::from_secs(4))).await.expect("the end waits for the relay");
}
