//! Transactions as clients sign them.

use alloy_consensus::{SignableTransaction, Signed, TxEip1559, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Signature};
use k256::ecdsa::SigningKey;
use steadfast::domain::hex::encode;

/// The bytes, as hex, and the hash of a transaction of the sender with this key.
pub fn transaction(chain_id: u64, key: u8, nonce: u64, tip: u128) -> (String, B256) {
    let tx = TxEip1559 {
        chain_id,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 30_000_000_000,
        max_priority_fee_per_gas: tip,
        to: Address::repeat_byte(7).into(),
        ..TxEip1559::default()
    };
    signed(tx, key)
}

/// The same of a transaction with so many bytes of data.
pub fn long(chain_id: u64, key: u8, nonce: u64, length: usize) -> (String, B256) {
    let tx = TxEip1559 {
        chain_id,
        nonce,
        gas_limit: 20_000_000,
        max_fee_per_gas: 30_000_000_000,
        max_priority_fee_per_gas: 1,
        to: Address::repeat_byte(7).into(),
        input: vec![1; length].into(),
        ..TxEip1559::default()
    };
    signed(tx, key)
}

/// The same of a transaction whose signature names no chain, as before EIP-155.
pub fn of_any_chain(key: u8, nonce: u64) -> (String, B256) {
    let to = Address::repeat_byte(7).into();
    signed(TxLegacy { nonce, gas_limit: 21_000, gas_price: 30_000_000_000, to, ..TxLegacy::default() }, key)
}

fn signed<T: SignableTransaction<Signature>>(tx: T, key: u8) -> (String, B256)
where
    TxEnvelope: From<Signed<T>>,
{
    let key = SigningKey::from_slice(&[key; 32]).unwrap();
    let (signature, parity) = key.sign_prehash_recoverable(tx.signature_hash().as_slice()).unwrap();
    let tx = TxEnvelope::from(tx.into_signed(Signature::from((signature, parity))));
    (encode(tx.encoded_2718()), *tx.tx_hash())
}
