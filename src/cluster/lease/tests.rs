//! The election by itself: tables of inputs, and a model that is checked to the end.

mod bench;
mod fence;
mod hand_over;
mod model;
mod take;
