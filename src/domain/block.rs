//! A block as the pool knows it.

use serde::Deserialize;

use super::hex;

/// The place of a block in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Height; for a consensus node, the slot.
    pub number: u64,
    /// Hash as the node wrote it, `0x`-hex.
    pub hash: String,
    /// Hash of the block before it.
    pub parent: String,
    /// Seconds since the Unix epoch, from the header.
    pub timestamp: u64,
}

impl BlockRef {
    /// Reads a block object of the execution API; fields beyond the place are not looked at.
    ///
    /// # Errors
    /// Names the field that is missing or malformed.
    pub fn read(json: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Header {
            number: String,
            hash: String,
            parent_hash: String,
            timestamp: String,
        }
        let header: Header = serde_json::from_str(json).map_err(|error| format!("not a block: {error}"))?;
        let number =
            |name: &str, text: &str| hex::quantity(text).ok_or_else(|| format!("not a block: {name} is no quantity"));
        let hash = |name: &str, text: String| match hex::bytes(&text) {
            Some(bytes) if bytes.len() == 32 => Ok(text),
            _ => Err(format!("not a block: {name} is no hash")),
        };
        Ok(Self {
            number: number("number", &header.number)?,
            timestamp: number("timestamp", &header.timestamp)?,
            hash: hash("hash", header.hash)?,
            parent: hash("parentHash", header.parent_hash)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_or_the_wrong_field_is_named() {
        let hash = format!("0x{}", "ab".repeat(32));
        let json = |number: &str, hash: &str| {
            format!(
                r#"{{"number":"{number}","hash":"{hash}","parentHash":"0x{}","timestamp":"0x65","extra":[]}}"#,
                "00".repeat(32)
            )
        };
        let block = BlockRef::read(&json("0x10", &hash)).unwrap();
        assert_eq!((block.number, block.timestamp, block.hash), (16, 0x65, hash.clone()));
        assert!(BlockRef::read(&json("16", &hash)).unwrap_err().contains("number"));
        assert!(BlockRef::read(&json("0x10", "0xab")).unwrap_err().contains("hash"));
        assert!(BlockRef::read("null").is_err());
        assert!(BlockRef::read("{}").unwrap_err().contains("number"));
    }
}
