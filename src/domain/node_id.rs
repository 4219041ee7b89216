//! A node's number in its pool.

use std::ops::{Index, IndexMut};

/// The place of a node in each list that has an entry for every node of a pool. A reload gives
/// numbers anew, so a number counts within one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

impl NodeId {
    /// The numbers of `count` nodes.
    pub fn all(count: usize) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        (0..count).map(Self)
    }
}

/// A list that has an entry for every node of a pool.
pub trait ByNode<T> {
    /// Each entry with its node.
    fn by_node<'a>(&'a self) -> impl DoubleEndedIterator<Item = (NodeId, &'a T)> + ExactSizeIterator + Clone
    where
        T: 'a;

    /// The first node whose entry `is_it`.
    fn find_node(&self, is_it: impl FnMut(&T) -> bool) -> Option<NodeId>;
}

impl<T> ByNode<T> for [T] {
    fn by_node<'a>(&'a self) -> impl DoubleEndedIterator<Item = (NodeId, &'a T)> + ExactSizeIterator + Clone
    where
        T: 'a,
    {
        self.iter().enumerate().map(|(index, entry)| (NodeId(index), entry))
    }

    fn find_node(&self, is_it: impl FnMut(&T) -> bool) -> Option<NodeId> {
        self.iter().position(is_it).map(NodeId)
    }
}

impl<T> Index<NodeId> for [T] {
    type Output = T;

    fn index(&self, NodeId(index): NodeId) -> &T {
        &self[index]
    }
}

impl<T> IndexMut<NodeId> for [T] {
    fn index_mut(&mut self, NodeId(index): NodeId) -> &mut T {
        &mut self[index]
    }
}

impl<T> Index<NodeId> for Vec<T> {
    type Output = T;

    fn index(&self, NodeId(index): NodeId) -> &T {
        &self[index]
    }
}

impl<T> IndexMut<NodeId> for Vec<T> {
    fn index_mut(&mut self, NodeId(index): NodeId) -> &mut T {
        &mut self[index]
    }
}
