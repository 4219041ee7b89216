//! A block as the pool knows blocks.

use serde::Deserialize;

use super::{
    chain::{Beacon, Number},
    hex,
};

/// The place of a block in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRef {
    /// Height; for a consensus node, the slot.
    pub number: u64,
    /// Hash (for a consensus node, the root) as the node wrote it, `0x`-hex.
    pub hash: String,
    /// Hash of its parent block.
    pub parent: String,
    /// Seconds since the Unix epoch, from the header; for a consensus node, when the slot began, or
    /// 0 if that is not known.
    pub timestamp: u64,
}

impl BlockRef {
    /// Reads a block object of the execution API; fields beyond the place are not looked at.
    ///
    /// # Errors
    /// Names the field that is missing or malformed.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Header {
            number: String,
            hash: String,
            parent_hash: String,
            timestamp: String,
        }
        let header: Header = serde_json::from_slice(json).map_err(|error| format!("not a block: {error}"))?;
        let number =
            |name: &str, text: &str| hex::quantity(text).ok_or_else(|| format!("not a block: {name} is no quantity"));
        let hash = |name: &str, text: String| match hex::fixed::<32>(&text) {
            Some(_) => Ok(text),
            None => Err(format!("not a block: {name} is no hash")),
        };
        Ok(Self {
            number: number("number", &header.number)?,
            timestamp: number("timestamp", &header.timestamp)?,
            hash: hash("hash", header.hash)?,
            parent: hash("parentHash", header.parent_hash)?,
        })
    }

    /// Reads the answer to `/eth/v1/beacon/headers/<id>` of the chain `beacon`: the block, and
    /// whether the node has taken the block only optimistically.
    ///
    /// # Errors
    /// Names the field that is missing or malformed.
    pub fn read_beacon(json: &[u8], beacon: &Beacon) -> Result<(Self, bool), String> {
        #[derive(Deserialize)]
        struct Answer {
            execution_optimistic: Option<bool>,
            data: Data,
        }
        #[derive(Deserialize)]
        struct Data {
            root: String,
            header: Header,
        }
        #[derive(Deserialize)]
        struct Header {
            message: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            slot: Number,
            parent_root: String,
        }
        let answer: Answer = serde_json::from_slice(json).map_err(|error| format!("not a header: {error}"))?;
        let Data { root, header: Header { message } } = answer.data;
        let check = |name: &str, text: String| match hex::fixed::<32>(&text) {
            Some(_) => Ok(text),
            None => Err(format!("not a header: {name} is no root")),
        };
        let slot = message.slot.0.ok_or("not a header: slot is no number")?;
        let block = Self {
            number: slot,
            hash: check("root", root)?,
            parent: check("parent_root", message.parent_root)?,
            timestamp: beacon.start_of(slot).unwrap_or(0),
        };
        Ok((block, answer.execution_optimistic.unwrap_or(false)))
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
        let block = BlockRef::read(json("0x10", &hash).as_bytes()).unwrap();
        assert_eq!((block.number, block.timestamp, block.hash), (16, 0x65, hash.clone()));
        assert!(BlockRef::read(json("16", &hash).as_bytes()).unwrap_err().contains("number"));
        assert!(BlockRef::read(json("0x10", "0xab").as_bytes()).unwrap_err().contains("hash"));
        assert!(BlockRef::read(b"null").is_err());
        assert!(BlockRef::read(b"{}").unwrap_err().contains("number"));
    }
    #[test]
    fn a_beacon_header_is_read_or_the_wrong_field_is_named() {
        let beacon = Beacon {
            genesis_validators_root: String::new(),
            genesis_time: 1000,
            slot_millis: Some(12_000),
            slots_per_epoch: Some(32),
        };
        let root = format!("0x{}", "ab".repeat(32));
        let json = |optimistic: &str, slot: &str, root: &str, parent: &str| {
            format!(
                r#"{{{optimistic}"finalized":false,"data":{{"root":"{root}","canonical":true,"header":{{"message":{{"slot":"{slot}","proposer_index":"1","parent_root":"{parent}"}},"signature":"0x"}}}}}}"#
            )
        };
        let read = |json: String| BlockRef::read_beacon(json.as_bytes(), &beacon);
        let (block, optimistic) = read(json(r#""execution_optimistic":true,"#, "10", &root, &root)).unwrap();
        assert_eq!((block.number, block.timestamp, block.hash, optimistic), (10, 1120, root.clone(), true));
        assert!(!read(json("", "10", &root, &root)).unwrap().1);
        assert!(!read(json(r#""execution_optimistic":null,"#, "10", &root, &root)).unwrap().1);
        let unquoted = json("", "10", &root, &root).replace(r#""10""#, "10");
        assert_eq!(read(unquoted).unwrap().0.number, 10);
        assert!(read(json("", "0x10", &root, &root)).unwrap_err().contains("slot"));
        assert!(read(json("", "10", "0xab", &root)).unwrap_err().contains("root"));
        assert!(read(json("", "10", &root, "ab")).unwrap_err().contains("parent_root"));
        assert!(read("{}".to_owned()).is_err());
    }
}
