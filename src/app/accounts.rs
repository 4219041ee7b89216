//! The accounts of nodes, which last over reloads, so that spent credits stay spent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{
    config::Node,
    domain::layer::Layer,
    pool::{Wall, credits::Account},
};

/// The accounts that nodes have, by name. An account goes with its last node.
#[derive(Default)]
pub(super) struct Accounts(Mutex<HashMap<String, Weak<Account>>>);

impl Accounts {
    /// The account of a node of this network and layer: that of the name in its settings, whichever
    /// network has the name first, or an account of its own. Days go by `wall`.
    pub(super) fn of(&self, node: &Node, (network, layer): (&str, Layer), wall: &Wall) -> Arc<Account> {
        // No name has a slash.
        let key = match &node.account {
            Some(name) => name.to_string(),
            None => format!("{network}/{}/{}", layer.as_str(), node.name),
        };
        // The map is whole at every moment, so a panic elsewhere cannot have spoilt the map.
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|_, account| account.strong_count() > 0);
        if let Some(account) = accounts.get(&key).and_then(Weak::upgrade) {
            return account;
        }
        let seed = key.bytes().fold(wall(), |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
        let account = Account::new(wall.clone(), seed);
        accounts.insert(key, Arc::downgrade(&account));
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn nodes_of_one_account_share_it_in_all_networks() {
        let nodes = "
            [[el.primary]]
            http = \"http://a:1\"
            [[el.backup]]
            http = \"http://b:1\"
            account = \"paid\"
            [[networks.other.cl.primary]]
            http = \"http://c:1\"
            account = \"paid\"
        ";
        let config = Config::parse(nodes, &|_| None).unwrap();
        let (accounts, wall): (_, Wall) = (Accounts::default(), Arc::new(|| 0));
        let of = |network: usize, node: &Node, layer| {
            accounts.of(node, (config.networks[network].name.as_str(), layer), &wall)
        };
        let [own, paid] = [0, 1].map(|node| of(0, &config.networks[0].el[node], Layer::El));
        let elsewhere = of(1, &config.networks[1].cl[0], Layer::Cl);
        assert!(Arc::ptr_eq(&paid, &elsewhere) && !Arc::ptr_eq(&paid, &own));
        // As in a reload, in which the old nodes last until the new ones are there.
        assert!(Arc::ptr_eq(&own, &of(0, &config.networks[0].el[0], Layer::El)));
    }
}
