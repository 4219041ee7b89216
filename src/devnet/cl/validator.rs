//! The validator API: duties, data to sign, subscriptions and registrations.

use alloy_primitives::Address;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{
    super::{
        fault::Fault,
        gossip::{Kind, data_root},
        hash, hex, http as answers,
        told::Told,
        view::{SLOTS_PER_EPOCH, View},
    },
    Api, FORK, Outcome, Problem, data, topics, with_fork,
};

/// Validators that there are.
pub(in crate::devnet) const VALIDATORS: u64 = 64;
/// The status of each of them.
const STATUS: &str = "active_ongoing";

impl Api<'_> {
    /// Routes below `/eth/v<version>/validator`; none: no route has this path.
    pub(super) fn validator(
        &self,
        method: &str,
        version: &str,
        path: &[&str],
        query: &str,
        body: &Bytes,
    ) -> Option<Outcome> {
        let wish = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        Some(match (method, version, path) {
            ("GET", "v1" | "v2", ["duties", "proposer", epoch]) => self.proposer_duties(epoch),
            ("POST", "v1", ["duties", "attester", epoch]) => self.attester_duties(epoch, body),
            ("POST", "v1", ["duties", "sync", epoch]) => self.sync_duties(epoch, body),
            ("GET", "v1", ["attestation_data"]) => self.attestation_data(wish("slot"), wish("committee_index")),
            ("GET", "v1" | "v2", ["aggregate_attestation"]) => {
                self.aggregate(wish("slot"), wish("attestation_data_root"))
            }
            ("GET", "v1", ["sync_committee_contribution"]) => {
                self.contribution(wish("slot"), wish("subcommittee_index"), wish("beacon_block_root"))
            }
            ("GET", "v2" | "v3", ["blocks", slot]) => self.produce(slot),
            ("POST", "v1", ["beacon_committee_subscriptions"]) => self.subscribe(body),
            ("POST", "v1", ["sync_committee_subscriptions"]) => self.tell(body, |told, wish| {
                wish["validator_index"].as_str().and_then(|index| index.parse().ok()).map(|index| told.sync(index))
            }),
            ("POST", "v1", ["prepare_beacon_proposer"]) => self.tell(body, |told, wish| {
                let index = wish["validator_index"].as_str()?.parse().ok()?;
                told.prepare(index, hex::fixed(wish["fee_recipient"].as_str()?).map(Address)?);
                Some(())
            }),
            ("POST", "v1", ["register_validator"]) => self.tell(body, |told, wish| {
                told.register(wish["message"]["pubkey"].as_str()?.to_owned());
                Some(())
            }),
            ("POST", "v1" | "v2", ["aggregate_and_proofs"]) => self.submit(body, Kind::Aggregate),
            ("POST", "v1", ["contribution_and_proofs"]) => self.submit(body, Kind::Contribution),
            ("POST", "v1", ["liveness", epoch]) => self.liveness(epoch, body),
            _ => return None,
        })
    }

    /// The validators that the lists `id` and `status` of a query name.
    pub(super) fn validators_in_query(&self, state: &str, query: &str) -> Outcome {
        let wish = |key: &str| -> Vec<String> {
            let lists = query.split('&').filter_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            lists.flat_map(|list| list.split(',')).map(str::to_owned).collect()
        };
        self.validators(state, &wish("id"), &wish("status"))
    }

    /// The validators that the lists `ids` and `statuses` of a body name.
    pub(super) fn validators_in_body(&self, state: &str, body: &Bytes) -> Outcome {
        let wishes = parse(body)?;
        let wish = |key: &str| match &wishes[key] {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) => list
                .iter()
                .map(|one| one.as_str().map(str::to_owned).ok_or_else(|| bad(&format!("Invalid {key}"))))
                .collect(),
            _ => Err(bad(&format!("Invalid {key}"))),
        };
        self.validators(state, &wish("ids")?, &wish("statuses")?)
    }

    /// Validators as of a state, by index or key and by status; an empty list restricts nothing.
    fn validators(&self, state: &str, ids: &[String], statuses: &[String]) -> Outcome {
        self.find_state(state)?;
        if let Some(id) = ids.iter().find(|id| id.parse::<u64>().is_err() && hex::fixed::<48>(id).is_none()) {
            return Err(bad(&format!("Invalid validator ID: {id}")));
        }
        let is_active = statuses.is_empty() || statuses.iter().any(|status| status == STATUS || status == "active");
        let all = (0..if is_active { VALIDATORS } else { 0 }).map(validator);
        let is = |one: &Value, id: &str| one.as_str().is_some_and(|one| one.eq_ignore_ascii_case(id));
        let named = all.filter(|one| {
            ids.is_empty() || ids.iter().any(|id| is(&one["index"], id) || is(&one["validator"]["pubkey"], id))
        });
        Ok(self.described(None, named.collect()))
    }

    fn proposer_duties(&self, epoch: &str) -> Outcome {
        let epoch = self.epoch(epoch)?;
        let duties = (epoch * SLOTS_PER_EPOCH..(epoch + 1) * SLOTS_PER_EPOCH).map(|slot| {
            json!({"pubkey": pubkey(proposer(slot)), "validator_index": proposer(slot).to_string(), "slot": slot.to_string()})
        });
        Ok(self.dependent(epoch, duties.collect()))
    }

    fn attester_duties(&self, epoch: &str, body: &Bytes) -> Outcome {
        let epoch = self.epoch(epoch)?;
        let duties = indices(body)?.into_iter().map(|index| {
            json!({
                "pubkey": pubkey(index), "validator_index": index.to_string(), "committee_index": "0",
                "committee_length": "8", "committees_at_slot": "1",
                "validator_committee_index": (index % 8).to_string(),
                "slot": (epoch * SLOTS_PER_EPOCH + index % SLOTS_PER_EPOCH).to_string(),
            })
        });
        Ok(self.dependent(epoch.saturating_sub(1), duties.collect()))
    }

    fn sync_duties(&self, epoch: &str, body: &Bytes) -> Outcome {
        self.epoch(epoch)?;
        let duties = indices(body)?.into_iter().map(|index| {
            json!({
                "pubkey": pubkey(index), "validator_index": index.to_string(),
                "validator_sync_committee_indices": [(index % 32).to_string()],
            })
        });
        let optimistic = self.faults.has(&Fault::Optimistic);
        let duties: Value = duties.collect();
        let answer = json!({"execution_optimistic": optimistic, "data": duties});
        Ok(answers::json(StatusCode::OK, answer.to_string()))
    }

    /// Duties that change when the last block before `epoch` does.
    fn dependent(&self, epoch: u64, duties: Value) -> http::Response<super::Body> {
        let body = json!({
            "dependent_root": topics::last_before(&self.view, epoch).to_string(),
            "execution_optimistic": self.faults.has(&Fault::Optimistic),
            "data": duties,
        });
        answers::json(StatusCode::OK, body.to_string())
    }

    fn attestation_data(&self, slot: Option<&str>, index: Option<&str>) -> Outcome {
        self.must_be_synced()?;
        let slot = number(slot, "slot")?;
        Ok(data(topics::attestation_data(&self.at(slot), slot, index.unwrap_or("0"))))
    }

    /// A node has aggregates only for slots that a validator subscribed to, and only of data that
    /// some validator attested to. A root whose first 24 bytes are zero stands for the node's own
    /// data.
    fn aggregate(&self, slot: Option<&str>, root: Option<&str>) -> Outcome {
        let slot = number(slot, "slot")?;
        let root = root.and_then(hex::fixed).ok_or_else(|| bad("Invalid attestation_data_root"))?;
        let view = self.at(slot);
        let own = topics::attestation_data(&view, slot, "0");
        let is_number = root.0[..24].iter().all(|byte| *byte == 0);
        let said = if is_number || data_root(&own) == root {
            Some(own)
        } else {
            self.node.chain.gossip.attested(slot, root).map(|said| Value::clone(&said))
        };
        let knows =
            |said: &Value| said["beacon_block_root"].as_str().and_then(hex::fixed).is_some_and(|root| self.knows(root));
        let said = said.filter(|said| self.node.told(|told| told.listens_at(slot)) && knows(said));
        let said = said.ok_or_else(|| Problem(StatusCode::NOT_FOUND, "No matching attestations found".to_owned()))?;
        let aggregate = json!({
            "aggregation_bits": "0xff03",
            "data": said,
            "signature": topics::signature("aggregate", view.head()),
            "committee_bits": "0x01",
        });
        let answer = json!({"version": FORK, "data": aggregate});
        Ok(with_fork(answers::json(StatusCode::OK, answer.to_string())))
    }

    fn contribution(&self, slot: Option<&str>, index: Option<&str>, root: Option<&str>) -> Outcome {
        let slot = number(slot, "slot")?;
        let index = number(index, "subcommittee_index")?;
        let root = root.and_then(hex::fixed).ok_or_else(|| bad("Invalid beacon_block_root"))?;
        if !self.knows(root) {
            return Err(Problem(StatusCode::NOT_FOUND, "No sync contribution for this block".to_owned()));
        }
        Ok(data(json!({
            "slot": slot.to_string(), "beacon_block_root": root.to_string(), "subcommittee_index": index.to_string(),
            "aggregation_bits": "0xff", "signature": topics::signature("contribution", self.view.head()),
        })))
    }

    fn produce(&self, slot: &str) -> Outcome {
        self.must_be_synced()?;
        let slot = number(Some(slot), "slot")?;
        let view = self.at(slot.saturating_sub(1));
        let parent = view.head();
        let mut message = self.message(parent, 0);
        message["slot"] = json!(slot.to_string());
        message["proposer_index"] = json!(proposer(slot).to_string());
        message["parent_root"] = json!(parent.root.to_string());
        message["body"] = self.body(parent);
        let recipient = self.node.told(|told| told.recipient(proposer(slot))).unwrap_or_default();
        let body = &mut message["body"];
        body["execution_payload"]["fee_recipient"] = json!(hex::encode(recipient));
        // A block that a client proposes has no blobs.
        body["execution_payload"]["blob_gas_used"] = json!("0");
        body["blob_kzg_commitments"] = json!([]);
        let answer = json!({
            "version": FORK, "execution_payload_blinded": false, "execution_payload_value": "12345",
            "consensus_block_value": "12345", "data": {"block": message, "kzg_proofs": [], "blobs": []},
        });
        let mut response = with_fork(answers::json(StatusCode::OK, answer.to_string()));
        for (name, value) in [
            ("eth-execution-payload-blinded", "false"),
            ("eth-execution-payload-value", "12345"),
            ("eth-consensus-block-value", "12345"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }

    fn subscribe(&self, body: &Bytes) -> Outcome {
        for wish in list(body)? {
            let slot = wish["slot"].as_str().and_then(|slot| slot.parse().ok());
            let slot = slot.ok_or_else(|| bad("Invalid slot"))?;
            self.node.told(|told| told.listen_at(slot));
        }
        Ok(done())
    }

    /// Has `remember` record each entry of a list in `Told`; entries that lack a field are skipped.
    fn tell(&self, body: &Bytes, remember: impl Fn(&mut Told, &Value) -> Option<()>) -> Outcome {
        for wish in list(body)? {
            self.node.told(|told| remember(told, &wish));
        }
        Ok(done())
    }

    fn liveness(&self, epoch: &str, body: &Bytes) -> Outcome {
        self.epoch(epoch)?;
        let lives = indices(body)?.into_iter().map(|index| json!({"index": index.to_string(), "is_live": true}));
        Ok(data(lives.collect()))
    }

    fn epoch(&self, text: &str) -> Result<u64, Problem> {
        self.must_be_synced()?;
        let epoch = number(Some(text), "epoch")?;
        let newest = self.view.head().slot / SLOTS_PER_EPOCH + 1;
        if epoch > newest { Err(bad(&format!("epoch {epoch} is after the next one"))) } else { Ok(epoch) }
    }

    pub(super) fn must_be_synced(&self) -> Result<(), Problem> {
        match self.faults.has(&Fault::Syncing) {
            true => Err(Problem(StatusCode::SERVICE_UNAVAILABLE, "beacon node is currently syncing".to_owned())),
            false => Ok(()),
        }
    }

    /// The view as of `slot`.
    fn at(&self, slot: u64) -> View {
        self.view.as_of(slot)
    }
}

/// The validator that proposes at `slot`.
pub(in crate::devnet) fn proposer(slot: u64) -> u64 {
    slot % VALIDATORS
}

pub(super) fn validator(index: u64) -> Value {
    // Withdrawals go to an account.
    let mut credentials = Address::from_word(hash::derived("withdrawal", &index.to_be_bytes())).into_word();
    credentials.0[0] = 1;
    json!({
        "index": index.to_string(), "balance": "32000000000", "status": STATUS,
        "validator": {
            "pubkey": pubkey(index), "withdrawal_credentials": credentials.to_string(),
            "effective_balance": "32000000000", "slashed": false, "activation_eligibility_epoch": "0",
            "activation_epoch": "0", "exit_epoch": u64::MAX.to_string(), "withdrawable_epoch": u64::MAX.to_string(),
        },
    })
}

/// A validator's public key.
pub(in crate::devnet) fn pubkey(index: u64) -> String {
    let one = hash::derived("pubkey", &index.to_be_bytes()).0;
    hex::encode([&one[..], &one[..16]].concat())
}

pub(super) fn done() -> http::Response<super::Body> {
    answers::json(StatusCode::OK, "")
}

fn bad(why: &str) -> Problem {
    Problem(StatusCode::BAD_REQUEST, why.to_owned())
}

fn number(text: Option<&str>, what: &str) -> Result<u64, Problem> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| bad(&format!("Invalid {what}")))
}

pub(super) fn parse(body: &Bytes) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| bad(&format!("body is not JSON: {error}")))
}

pub(super) fn list(body: &Bytes) -> Result<Vec<Value>, Problem> {
    match parse(body)? {
        Value::Array(list) => Ok(list),
        _ => Err(bad("body is not a list")),
    }
}

fn indices(body: &Bytes) -> Result<Vec<u64>, Problem> {
    list(body)?.iter().map(|index| number(index.as_str(), "validator index")).collect()
}
