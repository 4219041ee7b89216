//! A signed transaction, read as far as keeping and sending it needs: the sender, the
//! nonce, the chain and the price.
//!
//! Rules that a fork can change (gas, fees, sizes of code) are left to the nodes.

use std::ops::RangeInclusive;

use alloy_consensus::{
    EthereumTxEnvelope, Transaction as _, TxEip4844Variant, Typed2718 as _, crypto::SECP256K1N_HALF,
};
use alloy_eips::{
    eip2718::Decodable2718 as _,
    eip7594::{BlobTransactionSidecarVariant, CELLS_PER_EXT_BLOB},
};
use alloy_primitives::{Address, B256, U256};
use secp256k1::{
    Message, SECP256K1,
    ecdsa::{RecoverableSignature, RecoveryId},
};

/// Any transaction that can be sent to a node: of a blob transaction also its blobs, with one proof
/// for each blob or with one for each cell.
type Envelope = EthereumTxEnvelope<TxEip4844Variant<BlobTransactionSidecarVariant>>;

/// The type byte of blob transactions.
const BLOB: u8 = 3;

/// The types that begin with a byte of their own. A legacy transaction begins with the byte of a
/// list, above all type bytes.
const KNOWN_TYPES: RangeInclusive<u8> = 1..=4;

/// The highest byte that can be a type's.
const HIGHEST_TYPE: u8 = 0x7f;

/// The bounds that a transaction must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The network's chain; `None` while no node has named one.
    pub chain_id: Option<u64>,
    /// The most bytes of a transaction without blobs.
    pub bytes: usize,
    /// The most bytes of a transaction with blobs, these included.
    pub blob_bytes: usize,
}

/// A transaction that could be read, with the content of its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    /// The name. Blobs are no part of the hash.
    pub hash: B256,
    /// The signer.
    pub sender: Address,
    /// The sender's counter.
    pub nonce: u64,
    /// The chain that the signature names; `None` for a legacy transaction that names none.
    pub chain_id: Option<u64>,
    /// The type byte; 0 for legacy transactions.
    pub kind: u8,
    /// The most gas.
    pub gas: u64,
    /// The most in wei per gas; the gas price of types that have one price only.
    pub max_fee: u128,
    /// The most for the block's maker in wei per gas; `None` for types that have one price only.
    pub max_priority_fee: Option<u128>,
    /// The most in wei per gas of blobs.
    pub max_blob_fee: Option<u128>,
    /// How many blobs travel with it.
    pub blobs: usize,
    /// Length of the raw bytes, blobs included.
    pub bytes: usize,
}

/// Why bytes are no transaction that the network can take. No node can ever take them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATransaction {
    /// No bytes.
    #[error("the transaction is empty")]
    Empty,
    /// Too long.
    #[error("the transaction has {bytes} bytes, more than the {limit} that are taken")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit for its type.
        limit: usize,
    },
    /// A type that this version cannot read. A chain may have types of its own.
    #[error("transactions of type {0:#04x} are not known here")]
    UnknownType(u8),
    /// The bytes cannot be read as their type.
    #[error("the bytes are no transaction: {0}")]
    Malformed(String),
    /// Signed for another chain.
    #[error("the transaction is for chain {signed_for}, and this is chain {network}")]
    OtherChain {
        /// The chain of the signature.
        signed_for: u64,
        /// The network's.
        network: u64,
    },
    /// The signature is of no key.
    #[error("the transaction's signature is invalid")]
    NoSigner,
    /// A blob transaction as blocks have it, without its blobs.
    #[error("the blobs of the blob transaction are missing")]
    NoBlobs,
    /// The blobs are others than those that were signed for.
    #[error("the blobs are not those that the transaction names")]
    OtherBlobs,
    /// The last nonce there is, which no chain takes.
    #[error("the nonce is the highest that there is")]
    LastNonce,
}

impl NotATransaction {
    /// The JSON-RPC error code, as nodes answer.
    pub fn code(&self) -> i32 {
        match self {
            Self::Empty | Self::UnknownType(_) | Self::Malformed(_) => -32602,
            _ => -32000,
        }
    }

    /// The word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty | Self::Malformed(_) => "malformed_transaction",
            Self::UnknownType(_) => "unknown_transaction_type",
            Self::TooLarge { .. } => "transaction_too_large",
            Self::OtherChain { .. } => "other_chain",
            Self::NoSigner => "invalid_signature",
            Self::NoBlobs | Self::OtherBlobs => "wrong_blobs",
            Self::LastNonce => "invalid_nonce",
        }
    }
}

impl SignedTransaction {
    /// Reads a transaction in the form that nodes are sent.
    ///
    /// # Errors
    /// Says why no node of the network can take the bytes.
    pub fn decode(raw: &[u8], limits: &Limits) -> Result<Self, NotATransaction> {
        let &first = raw.first().ok_or(NotATransaction::Empty)?;
        let limit = if first == BLOB { limits.blob_bytes } else { limits.bytes };
        if raw.len() > limit {
            return Err(NotATransaction::TooLarge { bytes: raw.len(), limit });
        }
        if first <= HIGHEST_TYPE && !KNOWN_TYPES.contains(&first) {
            return Err(NotATransaction::UnknownType(first));
        }
        let envelope =
            Envelope::decode_2718_exact(raw).map_err(|error| NotATransaction::Malformed(error.to_string()))?;
        let chain_id = envelope.chain_id();
        if let (Some(signed_for), Some(network)) = (chain_id, limits.chain_id)
            && signed_for != network
        {
            return Err(NotATransaction::OtherChain { signed_for, network });
        }
        if envelope.nonce() == u64::MAX {
            return Err(NotATransaction::LastNonce);
        }
        let blobs = blobs(&envelope)?;
        // The dearest check comes last.
        let sender = signer(&envelope).ok_or(NotATransaction::NoSigner)?;
        Ok(Self {
            hash: *envelope.tx_hash(),
            sender,
            nonce: envelope.nonce(),
            chain_id,
            kind: envelope.ty(),
            gas: envelope.gas_limit(),
            max_fee: envelope.max_fee_per_gas(),
            max_priority_fee: envelope.max_priority_fee_per_gas(),
            max_blob_fee: envelope.max_fee_per_blob_gas(),
            blobs,
            bytes: raw.len(),
        })
    }
}

/// The signer; `None` where the signature is of no key, or not the lower of two, as EIP-2 asks.
///
/// By libsecp256k1, as in geth and reth: with `k256`, which alloy has for this, a transaction costs
/// twice the time in all.
fn signer(envelope: &Envelope) -> Option<Address> {
    let signature = envelope.signature();
    if signature.s() > SECP256K1N_HALF {
        return None;
    }
    let mut compact = [0; 64];
    compact[..32].copy_from_slice(&signature.r().to_be_bytes::<{ U256::BYTES }>());
    compact[32..].copy_from_slice(&signature.s().to_be_bytes::<{ U256::BYTES }>());
    let parity = if signature.v() { RecoveryId::One } else { RecoveryId::Zero };
    let signature = RecoverableSignature::from_compact(&compact, parity).ok()?;
    let message = Message::from_digest(envelope.signature_hash().0);
    let key = SECP256K1.recover_ecdsa(message, &signature).ok()?;
    Some(Address::from_raw_public_key(&key.serialize_uncompressed()[1..]))
}

/// How many blobs travel with the transaction, if those are the blobs of its hashes.
fn blobs(envelope: &Envelope) -> Result<usize, NotATransaction> {
    let Some(named) = envelope.blob_versioned_hashes() else { return Ok(0) };
    let Envelope::Eip4844(signed) = envelope else { return Ok(0) };
    let TxEip4844Variant::TxEip4844WithSidecar(with_blobs) = signed.tx() else { return Err(NotATransaction::NoBlobs) };
    let sidecar = &with_blobs.sidecar;
    let (count, proofs) = match sidecar {
        BlobTransactionSidecarVariant::Eip4844(sidecar) => (sidecar.blobs.len(), sidecar.proofs.len()),
        BlobTransactionSidecarVariant::Eip7594(sidecar) => {
            (sidecar.blobs.len(), sidecar.cell_proofs.len() / CELLS_PER_EXT_BLOB)
        }
    };
    let are_named = sidecar.versioned_hashes().eq(named.iter().copied());
    let is_whole = count > 0 && count == proofs && count == named.len();
    if is_whole && are_named { Ok(count) } else { Err(NotATransaction::OtherBlobs) }
}

#[cfg(test)]
mod tests {
    use alloy_consensus::{
        BlobTransactionSidecar, SignableTransaction, TxEip1559, TxEip2930, TxEip4844, TxEip4844WithSidecar, TxEip7702,
        TxLegacy, transaction::SignerRecoverable as _,
    };
    use alloy_eips::{
        eip2718::Encodable2718 as _,
        eip4844::{Blob, Bytes48, kzg_to_versioned_hash},
        eip7594::BlobTransactionSidecarEip7594,
        eip7702::{Authorization, SignedAuthorization},
    };
    use alloy_primitives::{Signature, address, b256, hex, keccak256};
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { chain_id: Some(1), bytes: 128 << 10, blob_bytes: 1 << 20 };

    /// A signature that is some key's: any point on the curve will do.
    fn sign<T: SignableTransaction<Signature>>(tx: T) -> alloy_consensus::Signed<T> {
        let curve = b256!("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798");
        tx.into_signed(Signature::new(curve.into(), U256::from(7), false))
    }

    fn read(envelope: impl Into<Envelope>) -> Result<SignedTransaction, NotATransaction> {
        SignedTransaction::decode(&envelope.into().encoded_2718(), &LIMITS)
    }

    fn fee_market() -> TxEip1559 {
        TxEip1559 {
            chain_id: 1,
            nonce: 9,
            gas_limit: 21_000,
            max_fee_per_gas: 30,
            max_priority_fee_per_gas: 2,
            ..Default::default()
        }
    }

    #[test]
    fn a_transaction_of_the_real_chain_is_read() {
        // The example of EIP-155: nonce 9, 20 gwei, 1 ether, signed for chain 1, key 0x46…46.
        let raw = hex!(
            "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a0"
            "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a0"
            "67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
        );
        let tx = SignedTransaction::decode(&raw, &LIMITS).unwrap();
        assert_eq!(tx.sender, address!("9d8a62f656a8d1615c1294fd71e9cfb3e4855a4f"));
        assert_eq!(tx.hash, keccak256(raw));
        assert_eq!((tx.nonce, tx.chain_id, tx.kind, tx.gas, tx.bytes), (9, Some(1), 0, 21_000, raw.len()));
        assert_eq!((tx.max_fee, tx.max_priority_fee, tx.max_blob_fee), (20_000_000_000, None, None));
    }

    #[test]
    fn every_type_is_read() {
        let legacy = TxLegacy { chain_id: None, nonce: 1, gas_price: 5, ..Default::default() };
        let tx = read(sign(legacy.clone())).unwrap();
        assert_eq!((tx.kind, tx.nonce, tx.chain_id, tx.max_fee), (0, 1, None, 5));
        let tx = read(sign(TxEip2930 { chain_id: 1, nonce: 2, gas_price: 6, ..Default::default() })).unwrap();
        assert_eq!((tx.kind, tx.nonce, tx.max_fee, tx.max_priority_fee), (1, 2, 6, None));
        let tx = read(sign(fee_market())).unwrap();
        assert_eq!((tx.kind, tx.nonce, tx.max_fee, tx.max_priority_fee), (2, 9, 30, Some(2)));
        let authorization = Authorization { chain_id: U256::from(1), address: Address::ZERO, nonce: 0 };
        let authorization = SignedAuthorization::new_unchecked(authorization, 0, U256::from(1), U256::from(1));
        let set_code =
            TxEip7702 { chain_id: 1, nonce: 4, authorization_list: vec![authorization], ..Default::default() };
        let tx = read(sign(set_code)).unwrap();
        assert_eq!((tx.kind, tx.nonce, tx.blobs), (4, 4, 0));
    }

    fn blob_body(blobs: usize) -> TxEip4844 {
        let name = kzg_to_versioned_hash(Bytes48::repeat_byte(2).as_slice());
        TxEip4844 {
            chain_id: 1,
            nonce: 3,
            max_fee_per_gas: 30,
            max_fee_per_blob_gas: 8,
            blob_versioned_hashes: vec![name; blobs],
            ..Default::default()
        }
    }

    fn one_proof_each(blobs: usize) -> BlobTransactionSidecarVariant {
        let sidecar = BlobTransactionSidecar {
            blobs: vec![Blob::repeat_byte(1); blobs],
            commitments: vec![Bytes48::repeat_byte(2); blobs],
            proofs: vec![Bytes48::repeat_byte(3); blobs],
        };
        BlobTransactionSidecarVariant::Eip4844(sidecar)
    }

    fn proofs_of_cells(blobs: usize) -> BlobTransactionSidecarVariant {
        BlobTransactionSidecarVariant::Eip7594(BlobTransactionSidecarEip7594::new(
            vec![Blob::repeat_byte(1); blobs],
            vec![Bytes48::repeat_byte(2); blobs],
            vec![Bytes48::repeat_byte(3); blobs * CELLS_PER_EXT_BLOB],
        ))
    }

    /// The blob transaction with that sidecar. The signature covers the body alone.
    fn with_blobs(body: TxEip4844, sidecar: BlobTransactionSidecarVariant) -> Envelope {
        let tx = TxEip4844Variant::TxEip4844WithSidecar(TxEip4844WithSidecar::from_tx_and_sidecar(body, sidecar));
        Envelope::Eip4844(sign(tx))
    }

    #[test]
    fn a_blob_transaction_is_read_with_either_sort_of_proofs() {
        let name = *sign(blob_body(2)).hash();
        for sidecar in [one_proof_each(2), proofs_of_cells(2)] {
            let tx = read(with_blobs(blob_body(2), sidecar)).unwrap();
            assert_eq!((tx.kind, tx.blobs, tx.max_blob_fee, tx.hash), (3, 2, Some(8), name));
            assert!(tx.bytes > 2 * 131_072);
        }
    }

    #[test]
    fn a_blob_transaction_without_its_own_blobs_is_refused() {
        let alone = Envelope::Eip4844(sign(TxEip4844Variant::TxEip4844(blob_body(1))));
        assert_eq!(read(alone), Err(NotATransaction::NoBlobs));
        for sidecar in [one_proof_each(1), proofs_of_cells(3), one_proof_each(0)] {
            assert_eq!(read(with_blobs(blob_body(2), sidecar)), Err(NotATransaction::OtherBlobs));
        }
        let BlobTransactionSidecarVariant::Eip4844(mut sidecar) = one_proof_each(2) else { unreachable!() };
        sidecar.commitments[1] = Bytes48::repeat_byte(9);
        let changed = with_blobs(blob_body(2), BlobTransactionSidecarVariant::Eip4844(sidecar));
        assert_eq!(read(changed), Err(NotATransaction::OtherBlobs));
        assert_eq!(read(with_blobs(blob_body(0), one_proof_each(0))), Err(NotATransaction::OtherBlobs));
    }

    #[test]
    fn bytes_that_no_node_can_take_are_refused_with_the_reason() {
        let raw = Envelope::from(sign(fee_market())).encoded_2718();
        let decode = |raw: &[u8]| SignedTransaction::decode(raw, &LIMITS);
        assert_eq!(decode(&[]), Err(NotATransaction::Empty));
        assert_eq!(decode(&[0x7e, 0xc0]), Err(NotATransaction::UnknownType(0x7e)));
        for broken in [&raw[..raw.len() - 1], &[&raw[..], &[0]].concat(), &[0x02], &[0x02, 0xc0], &[0xc0], &[0xff; 40]]
        {
            assert!(matches!(decode(broken), Err(NotATransaction::Malformed(_))), "{broken:?}");
        }
        let other = read(sign(TxEip1559 { chain_id: 5, ..fee_market() }));
        assert_eq!(other, Err(NotATransaction::OtherChain { signed_for: 5, network: 1 }));
        assert_eq!(read(sign(TxEip1559 { nonce: u64::MAX, ..fee_market() })), Err(NotATransaction::LastNonce));
        let unsigned = fee_market().into_signed(Signature::new(U256::ZERO, U256::ZERO, false));
        assert_eq!(read(unsigned), Err(NotATransaction::NoSigner));
        let high = Signature::new(U256::from(1), U256::MAX - (U256::from(1) << 100), false);
        assert_eq!(read(fee_market().into_signed(high)), Err(NotATransaction::NoSigner));
        assert_eq!(decode(&[]).unwrap_err().code(), -32602);
        assert_eq!(other.unwrap_err().code(), -32000);
    }

    #[test]
    fn the_length_is_bounded_by_the_type() {
        let long = sign(TxEip1559 { input: vec![1; 200].into(), ..fee_market() });
        let raw = Envelope::from(long).encoded_2718();
        let limits = |bytes, blob_bytes| Limits { chain_id: None, bytes, blob_bytes };
        assert!(SignedTransaction::decode(&raw, &limits(raw.len(), 0)).is_ok());
        let refused = SignedTransaction::decode(&raw, &limits(raw.len() - 1, usize::MAX));
        assert_eq!(refused, Err(NotATransaction::TooLarge { bytes: raw.len(), limit: raw.len() - 1 }));
        let blobs = with_blobs(blob_body(1), one_proof_each(1)).encoded_2718();
        assert!(SignedTransaction::decode(&blobs, &limits(0, blobs.len())).is_ok());
        assert!(SignedTransaction::decode(&blobs, &limits(usize::MAX, blobs.len() - 1)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The signer is that of alloy's own code, whatever the signature.
        #[test]
        fn a_signature_has_the_signer_that_another_library_finds(
            key in any::<[u8; 32]>(),
            made_up in any::<[u8; 64]>(),
            nonce in 0_u64..1000,
            parity in any::<bool>(),
        ) {
            let tx = TxEip1559 { nonce, ..fee_market() };
            let signed = k256::ecdsa::SigningKey::from_slice(&key).ok();
            let signed = signed.and_then(|key| key.sign_prehash_recoverable(tx.signature_hash().as_slice()).ok());
            let good = signed.map(Signature::from);
            let order = U256::from(2) * SECP256K1N_HALF + U256::from(1);
            // The other of the two signatures of the same key, which EIP-2 does not take.
            let high = good.map(|good| Signature::new(good.r(), order - good.s(), !good.v()));
            let made_up = Signature::from_bytes_and_parity(&made_up, parity);
            let zero = Signature::new(U256::ZERO, made_up.s(), parity);
            for (signature, is_good) in [(good, true), (high, false), (Some(made_up), false), (Some(zero), false)] {
                let Some(signature) = signature else { continue };
                let envelope = Envelope::from(tx.clone().into_signed(signature));
                prop_assert_eq!(signer(&envelope), envelope.recover_signer().ok());
                prop_assert!(!is_good || signer(&envelope).is_some());
            }
        }
    }
}
