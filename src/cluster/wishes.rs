//! The operator's wishes for nodes, as the bucket has them. No I/O and no clock.

use std::collections::BTreeMap;

use crate::domain::fleet::{NodeRef, StoreRevision, Wish};

/// A wish, with the revision that is wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wished {
    /// The revision; 0 of a wish that this bucket does not have.
    pub revision: StoreRevision,
    /// The wish.
    pub wish: Wish,
}

/// The wishes by node. A replica that is cut off keeps the last wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes(BTreeMap<NodeRef, Wished>);

impl Wishes {
    /// All wishes.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeRef, &Wished)> {
        self.0.iter()
    }

    /// The wish for a node.
    pub fn get(&self, node: &NodeRef) -> Option<&Wished> {
        self.0.get(node)
    }

    /// The bucket has this wish.
    pub(super) fn saw(&mut self, node: NodeRef, revision: StoreRevision, wish: Wish) {
        if self.0.get(&node).is_none_or(|known| known.revision < revision) {
            self.0.insert(node, Wished { revision, wish });
        }
    }

    /// The wish was deleted at this revision.
    pub(super) fn gone(&mut self, node: &NodeRef, revision: StoreRevision) {
        if self.0.get(node).is_some_and(|known| known.revision < revision) {
            self.0.remove(node);
        }
    }

    /// The bucket is another: the wishes stay, and are not in the bucket.
    pub(super) fn recreated(&mut self) {
        self.0.values_mut().for_each(|wished| wished.revision = StoreRevision(0));
    }

    /// A wish that the bucket does not have.
    pub(super) fn unstored(&self) -> Option<(&NodeRef, &Wish)> {
        let mut unstored = self.0.iter().filter(|(_, wished)| wished.revision.0 == 0);
        unstored.next().map(|(node, wished)| (node, &wished.wish))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::fleet::LayerWord;

    /// C16: the newest wish counts, and wishes outlive their bucket.
    #[test]
    fn the_newest_wish_counts_and_outlives_the_bucket() {
        let node = NodeRef { network: "main".parse().unwrap(), layer: LayerWord::El, node: "a".parse().unwrap() };
        let mut wishes = Wishes::default();
        let is_cordoned = |wishes: &Wishes| wishes.get(&node).map(|wished| wished.wish.cordoned);
        wishes.saw(node.clone(), StoreRevision(5), Wish::new(true));
        wishes.saw(node.clone(), StoreRevision(4), Wish::new(false));
        wishes.gone(&node, StoreRevision(5));
        assert_eq!((is_cordoned(&wishes), wishes.unstored()), (Some(true), None));
        wishes.recreated();
        assert_eq!(wishes.unstored().map(|(_, wish)| wish.cordoned), Some(true));
        wishes.saw(node.clone(), StoreRevision(2), Wish::new(false));
        assert_eq!((is_cordoned(&wishes), wishes.unstored()), (Some(false), None));
        wishes.gone(&node, StoreRevision(3));
        assert_eq!(is_cordoned(&wishes), None);
    }
}
