//! A client of alloy. `alloy-client watch WS_URL ADDRESS` says each block and each log of the
//! contract, as watch-ethers.mjs does. `alloy-client calls HTTP_URL WS_URL SINK KEY KEY` calls and
//! pays through both doors, as calls-ethers.mjs does. An error is said too, and no check lets that
//! pass.

mod calls;
mod watch;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["watch", url, address] => watch::watch(url, address).await,
        ["calls", http, ws, sink, of_http, of_ws] => calls::call(http, ws, sink, [of_http, of_ws]).await,
        _ => Err("alloy-client watch WS_URL ADDRESS | calls HTTP_URL WS_URL SINK KEY KEY".into()),
    }
}
