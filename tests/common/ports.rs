//! Ports of pretend servers: of those that have to be told theirs before they start, and of those
//! that die while a proxy still asks them.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

/// Below the ports that the system gives to outgoing connections and to listeners that ask for any:
/// no other socket takes one of these by accident.
const PORTS: Range<u16> = 20_000..32_000;
/// Ports between the places where processes of neighbouring ids begin.
const STRIDE: u32 = 97;

/// An address on loopback that this process gives once and that is free now.
pub fn free_addr() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id().wrapping_mul(STRIDE);
    loop {
        let place = first.wrapping_add(NEXT.fetch_add(1, Relaxed).into()) % u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(place).expect("a place in the range");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}
