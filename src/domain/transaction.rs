//! Signed transactions, as far as naming them needs.

use alloy_primitives::{B256, keccak256};

/// The type byte of a blob transaction, which travels with blobs that its hash does not cover.
const BLOB: u8 = 3;

/// The hash of a signed transaction in the form that nodes are sent. `None` for bytes too malformed
/// to have a hash.
pub fn hash(raw: &[u8]) -> Option<B256> {
    if raw.first() == Some(&BLOB) {
        // A transaction with its blobs is sent as a list whose first item is the transaction; the
        // hash covers that item.
        let (inside, _) = list(&raw[1..])?;
        if let Some((_, length)) = list(inside) {
            return Some(keccak256([&[BLOB], &inside[..length]].concat()));
        }
    }
    (!raw.is_empty()).then(|| keccak256(raw))
}

/// The content of the RLP list at the start of `text`, and the length of the list with its header.
fn list(text: &[u8]) -> Option<(&[u8], usize)> {
    let (&tag, rest) = text.split_first()?;
    let (header, length) = match tag {
        0xc0..=0xf7 => (1, usize::from(tag - 0xc0)),
        0xf8..=0xff => {
            let width = usize::from(tag - 0xf7);
            let digits = rest.get(..width)?;
            let length =
                digits.iter().try_fold(0usize, |length, &b| length.checked_mul(256)?.checked_add(usize::from(b)))?;
            (1 + width, length)
        }
        _ => return None,
    };
    let end = header.checked_add(length)?;
    Some((text.get(header..end)?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_named_by_the_hash_of_its_bytes() {
        assert_eq!(hash(&[0x02, 0xc1, 0x80]), Some(keccak256([0x02, 0xc1, 0x80])));
        assert_eq!(hash(&[]), None);
    }

    #[test]
    fn a_blob_transaction_has_one_hash_with_and_without_its_blobs() {
        let body = [&[0xf8, 60][..], &[0x01; 60]].concat();
        let alone = [&[3][..], &body].concat();
        let content = [&body[..], &[0xc2, 0x05, 0x06], &[0xc0], &[0xc0]].concat();
        let wrapped = [&[3, 0xf8, content.len() as u8][..], &content].concat();
        assert_eq!(hash(&alone), Some(keccak256(&alone)));
        assert_eq!(hash(&wrapped), hash(&alone));
    }

    #[test]
    fn broken_lists_are_survived() {
        for raw in [&[3][..], &[3, 0xff], &[3, 0xf8, 0xff, 1], &[3, 0xff, 255, 255, 255, 255, 255, 255, 255, 255]] {
            assert_eq!(hash(raw), None);
        }
    }
}
