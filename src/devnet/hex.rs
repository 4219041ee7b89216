//! The `0x` notation of JSON-RPC as the pretend chain writes it.

pub(super) use crate::domain::hex::{bytes as decode, encode, fixed, quantity as decode_quantity};

/// A number as JSON-RPC writes it: `0x0`, `0xff`.
pub(super) fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_no_leading_zeros() {
        assert_eq!(quantity(0), "0x0");
        assert_eq!(quantity(255), "0xff");
        assert_eq!(decode_quantity("0xff"), Some(255));
    }
}
