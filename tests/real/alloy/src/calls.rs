//! Calls, batches and payments, one after another and again, until SIGTERM.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use alloy_network::{EthereumWallet, TransactionBuilder};
use alloy_primitives::{Address, Bytes, U64, U256};
use alloy_provider::{Provider, ProviderBuilder, WsConnect};
use alloy_rpc_client::BatchRequest;
use alloy_rpc_types_eth::TransactionRequest;
use alloy_signer_local::PrivateKeySigner;
use futures_util::future::try_join;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::Failure;

/// How often the chain is asked for a payment's block.
const POLL: Duration = Duration::from_millis(100);

pub async fn call(http: &str, ws: &str, sink: &str, keys: [&str; 2]) -> Result<(), Failure> {
    let sink: Address = sink.parse()?;
    let [of_http, of_ws] = keys.map(str::parse::<PrivateKeySigner>);
    let over_http = ProviderBuilder::new().wallet(EthereumWallet::from(of_http?)).connect(http).await?;
    // It does not connect anew when its connection is lost.
    let connect = WsConnect::new(ws).with_max_retries(0);
    let over_ws = ProviderBuilder::new().wallet(EthereumWallet::from(of_ws?)).connect_ws(connect).await?;
    let (enough, is_enough) = watch::channel(false);
    let mut asked_to_end = signal(SignalKind::terminate())?;
    let ends = async {
        asked_to_end.recv().await;
        enough.send_replace(true);
        Ok(())
    };
    let doors = try_join(through("http", over_http, sink, is_enough.clone()), through("ws", over_ws, sink, is_enough));
    try_join(doors, ends).await?;
    Ok(())
}

async fn through(
    door: &str,
    provider: impl Provider,
    sink: Address,
    is_enough: watch::Receiver<bool>,
) -> Result<(), Failure> {
    provider.client().set_poll_interval(POLL);
    while !*is_enough.borrow() {
        say(door, "call", async { Ok(provider.get_block_number().await?) }).await;
        say(door, "batch", batch(&provider, sink)).await;
        say(door, "paid", pay(&provider, sink)).await;
    }
    println!("done {door}");
    Ok(())
}

/// Over HTTP one batch; over WebSocket the library sends the calls of a batch one by one.
async fn batch(provider: &impl Provider, sink: Address) -> Result<String, Failure> {
    let mut batch = BatchRequest::new(provider.client());
    let chain = batch.add_call::<_, U64>("eth_chainId", &())?;
    let height = batch.add_call::<_, U64>("eth_blockNumber", &())?;
    let code = batch.add_call::<_, Bytes>("eth_getCode", &(sink, "latest"))?;
    batch.send().await?;
    Ok(format!("{} {} {}", chain.await?, height.await?, code.await?))
}

async fn pay(provider: &impl Provider, sink: Address) -> Result<String, Failure> {
    let payment = TransactionRequest::default().with_to(sink).with_value(U256::from(1));
    let receipt = provider.send_transaction(payment).await?.get_receipt().await?;
    let block = receipt.block_number.ok_or("a receipt without a block")?;
    Ok(format!("{} {block} {}", receipt.transaction_hash, u8::from(receipt.status())))
}

async fn say<T: Display>(door: &str, name: &str, thing: impl Future<Output = Result<T, Failure>>) {
    let began = Instant::now();
    match thing.await {
        Ok(answer) => println!("{name} {door} {answer} {} ms", began.elapsed().as_millis()),
        Err(error) => println!("error {door} {name} {error:?}"),
    }
}
