//! The rows that a relay reads: at its start, and where records must go before their time.

use super::{foreign::Foreign, given_up::GivenUp};
use crate::outbox::{
    desk::{self, Stored, Sum},
    record::{Millis, Network, TxId},
    shard::ShardSet,
    store::{Kind, Reader, StoreError},
};

/// Rows that are read at once for records that must go before their time.
const EXCESS_PAGE: usize = 10_000;
/// Pages of these rows: those of other tenants and networks are passed over.
const MOST_EXCESS_PAGES: usize = 100;
/// Records that go with one step.
const MOST_FORGOTTEN: usize = 100;

/// The rows of a network that a desk is made from, of the shards that are `owned`; whether
/// transactions were given up; and the transactions of other shards. Of records whose life is over
/// only sums are read: the store finds such a record when needed.
pub(super) fn network_rows(
    reader: &Reader,
    network: &Network,
    owned: ShardSet,
) -> Result<(Stored, GivenUp, Foreign), StoreError> {
    let (mut live, mut others, mut stored) = (Vec::new(), Foreign::default(), Stored::default());
    for record in reader.live(network)? {
        let record = record?;
        if owned.has(record.shard()) {
            live.push(record);
        } else {
            others.change(None, &record);
            stored.others.count_foreign(&record, true);
        }
    }
    let sums = reader.sums(network)?.into_iter().map(|(tenant, sums)| (tenant, Sum::from(sums)));
    (stored.live, stored.sums, stored.checkpoint) = (live, sums.collect(), reader.checkpoint(network)?);
    Ok((stored, GivenUp::new(reader.has_given_up(network)?), others))
}

/// The oldest records of a network that must go, with the length of their raw bytes.
pub(super) fn leaving(
    reader: &Reader,
    network: &Network,
    mut excess: desk::Excess,
) -> Result<Vec<(TxId, usize)>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    for _ in 0..MOST_EXCESS_PAGES {
        let rows = reader.due_behind(Kind::Retention, after.as_ref(), EXCESS_PAGE)?;
        for row in &rows {
            let Some(id) = row.transaction().filter(|id| id.network == *network) else { continue };
            if excess.of.as_ref().is_none_or(|of| id.tenant == *of) {
                let length = usize::try_from(row.bytes).unwrap_or(usize::MAX);
                found.push((id, length));
                if !excess.shrink(length) || found.len() >= MOST_FORGOTTEN {
                    return Ok(found);
                }
            }
        }
        if rows.len() < EXCESS_PAGE {
            break;
        }
        after = rows.into_iter().next_back();
    }
    Ok(found)
}

/// Those of the records whose time is over at `now` still, with the length of their raw bytes now:
/// between the look at the store and this one a record may have gone, or have lived again.
pub(super) fn still_overdue(
    reader: &Reader,
    now: Millis,
    records: Vec<(TxId, usize)>,
) -> Result<Vec<(TxId, usize)>, StoreError> {
    let mut overdue = Vec::with_capacity(records.len());
    for (id, _) in records {
        if let Some(record) = reader.record(&id)?.filter(|record| record.keep_until.is_some_and(|until| until <= now)) {
            overdue.push((id, record.bytes));
        }
    }
    Ok(overdue)
}

#[cfg(test)]
pub(super) mod tests {
    use alloy_primitives::{Address, B256, U128, keccak256};

    use super::*;
    use crate::outbox::{
        record::{BlockId, EventIds, Fees, Millis, Record, State, TenantName, Transition},
        step::Step,
        store::{Store, pretend_disk::PretendDisk},
    };

    /// A record in this state, of a usual length.
    pub(in crate::outbox) fn record(number: usize, state: State) -> Record {
        let mut record = Record {
            id: TxId { tenant: TenantName::default(), network: "main".into(), hash: keccak256(number.to_be_bytes()) },
            sender: Address::repeat_byte(2),
            nonce: number as u64,
            chain_id: Some(1),
            kind: 2,
            fees: Fees { max_fee: U128::from(7), max_priority_fee: Some(U128::from(1)), max_blob_fee: None },
            blobs: 0,
            bytes: 110,
            accepted_at: Millis(number as u64),
            deadline: Millis(number as u64 + 86_400_000),
            request_id: Some("7a9d7c1e-51a9-4d0e-9d0c-0a4f3b1c2d3e".to_owned()),
            traceparent: None,
            state: State::Accepted,
            stopped: None,
            seq: 0,
            refusals: Vec::new(),
            history: Vec::new(),
            keep_until: None,
            event_ids: EventIds::OfContent,
        };
        let block = BlockId { number: 19_000_000, hash: B256::repeat_byte(9) };
        let states = [State::Accepted, State::Sent, State::Seen, State::Mined { block }, State::Confirmed { block }];
        for state in states.into_iter().chain([state]) {
            let (seq, at, to, of) = (record.seq + 1, record.accepted_at, state.name(), state.block());
            record.keep_until = state.is_over().then_some(Millis(at.0 + 604_800_000));
            record.state = state;
            let node = Some("primary".to_owned());
            record.note(Transition { seq, at, to, block: of, node, reason: None, refusals: Vec::new(), repeat: 0 });
        }
        record
    }

    /// Commits ten live records, and so many finished ones: of eight, seven are final and one is
    /// given up.
    async fn fill(store: &Store, finished: usize) {
        let block = BlockId { number: 19_000_000, hash: B256::repeat_byte(9) };
        let mut step = Step::new();
        for number in 0..finished + 10 {
            let state = match number {
                _ if number >= finished => State::Sent,
                _ if number.is_multiple_of(8) => State::Expired,
                _ => State::Final { block },
            };
            step.accept(record(number, state), vec![number as u8; 110].into(), Vec::new());
            if number % 1000 == 999 {
                store.commit(step.take()).await.unwrap();
            }
        }
        store.commit(step).await.unwrap();
    }

    /// `STEADFAST_FINISHED=100000` with `--nocapture` shows the cost of a start over so many.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_start_over_finished_records_holds_the_live_ones() {
        use crate::outbox::weighing::resident;
        use tokio::time::Instant;
        let count = std::env::var("STEADFAST_FINISHED").map_or(4000, |count| count.parse().unwrap());
        let dir = std::env::temp_dir().join(format!("outbox-rows-{}", std::process::id()));
        let store = Store::open(&dir).unwrap();
        fill(&store, count).await;
        store.close().await;
        let (begun, before) = (Instant::now(), resident());
        let store = Store::open(&dir).unwrap();
        let (opened, resident_open) = (begun.elapsed(), resident());
        let rows = network_rows(&store.read().unwrap(), &"main".into(), ShardSet::ALL).unwrap();
        println!(
            "{count} finished: opened in {opened:?}, {} KiB; rows in {:?}, {} KiB",
            (resident_open.saturating_sub(before)) >> 10,
            begun.elapsed() - opened,
            (resident().saturating_sub(resident_open)) >> 10,
        );
        assert_eq!(rows.0.live.len(), 10);
        _ = std::fs::remove_dir_all(&dir);
    }

    /// Bytes that are read for a relay's start over so many finished records.
    async fn bytes_read(finished: usize) -> u64 {
        let disk = PretendDisk::new();
        disk.set_cache(0);
        let store = Store::inline(Box::new(disk.clone())).unwrap();
        fill(&store, finished).await;
        let before = disk.bytes_read();
        let (stored, ..) = network_rows(&store.read().unwrap(), &"main".into(), ShardSet::ALL).unwrap();
        assert_eq!((stored.live.len(), stored.sums[0].1.over), (10, finished));
        disk.bytes_read() - before
    }

    #[tokio::test]
    async fn the_rows_of_a_start_do_not_grow_with_finished_records() {
        let (few, many) = (bytes_read(100).await, bytes_read(3000).await);
        assert!(many < few + 64 * 1024, "{few} bytes over 100 finished records, {many} over 3000");
    }

    #[tokio::test]
    async fn a_record_that_went_or_lives_longer_is_not_overdue() {
        let store = Store::inline(Box::new(PretendDisk::new())).unwrap();
        let block = BlockId { number: 19_000_000, hash: B256::repeat_byte(9) };
        let [due, later, gone, live] =
            [(1, State::Final { block }), (2, State::Expired), (3, State::Final { block }), (4, State::Sent)]
                .map(|(number, state)| record(number, state));
        let mut step = Step::new();
        for mut record in [due.clone(), later.clone(), live.clone()] {
            // The bytes of its new life are others.
            record.bytes = 77;
            if record.id == later.id {
                record.keep_until = Some(Millis(u64::MAX));
            }
            step.accept(record, vec![1; 77].into(), Vec::new());
        }
        store.commit(step).await.unwrap();
        let found = [&due, &later, &gone, &live].map(|record| (record.id.clone(), 110)).to_vec();
        let now = due.keep_until.unwrap();
        let overdue = still_overdue(&store.read().unwrap(), now, found.clone()).unwrap();
        assert_eq!(overdue, [(due.id, 77)]);
        assert_eq!(still_overdue(&store.read().unwrap(), Millis(now.0 - 1), found).unwrap(), []);
    }
}
