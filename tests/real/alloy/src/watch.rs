//! Subscriptions to heads and logs.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use alloy_primitives::{B256, U256, b256};
use alloy_provider::{Provider, ProviderBuilder, WsConnect};
use alloy_rpc_types_eth::Filter;
use futures_util::{StreamExt, future::join, stream::FuturesOrdered};
use tokio::time::sleep;

use crate::Failure;

/// `Ticked(uint256)`.
const TICKED: B256 = b256!("fb779b607f72003343c20e8a3b2b874a312f065e2d88c2747a5bdce1c9ab1bbf");
/// The longest time in which an announced block is asked for again.
const LATEST: Duration = Duration::from_secs(3);

/// Does not connect anew when its connection is lost.
pub async fn watch(url: &str, address: &str) -> Result<(), Failure> {
    let connect = WsConnect::new(url).with_max_retries(0);
    let provider = ProviderBuilder::new().disable_recommended_fillers().connect_ws(connect).await?;
    let mut heads = pin!(provider.subscribe_blocks().await?.into_stream());
    let filter = Filter::new().address(address.parse::<alloy_primitives::Address>()?).event_signature(TICKED);
    let mut logs = pin!(provider.subscribe_logs(&filter).await?.into_stream());
    let blocks = async {
        let mut fetched = FuturesOrdered::new();
        loop {
            tokio::select! {
                head = heads.next() => match head {
                    Some(head) => fetched.push_back(fetch(&provider, head.number)),
                    None => break,
                },
                // In the order in which they were announced.
                Some(line) = fetched.next() => println!("{line}"),
            }
        }
        println!("closed");
    };
    let logs = async {
        while let Some(log) = logs.next().await {
            let (number, index) = (log.block_number.unwrap_or_default(), log.log_index.unwrap_or_default());
            let height = U256::from_be_slice(&log.data().data);
            let removed = if log.removed { " removed" } else { "" };
            println!("log {number} {index} {} {height}{removed}", log.block_hash.unwrap_or_default());
        }
    };
    join(blocks, logs).await;
    Ok(())
}

/// Fetches a block at once, since a block that is announced can be fetched. A block that is not
/// there is asked for again, and said to be late.
async fn fetch(provider: &impl Provider, number: u64) -> String {
    let began = Instant::now();
    let mut is_late = false;
    loop {
        match provider.get_block_by_number(number.into()).await {
            Ok(Some(block)) => return format!("block {number} {}", block.header.hash),
            Ok(None) if began.elapsed() > LATEST => return format!("block {number} is not there"),
            Ok(None) => {
                if !std::mem::replace(&mut is_late, true) {
                    println!("late {number}");
                }
                sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return format!("block {number} {error}"),
        }
    }
}
