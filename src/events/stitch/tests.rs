//! Tests of the stitcher: tables of events, their order and time, and properties over chains made
//! at random.

use super::*;

mod in_time;
mod lies;
mod order;
mod property;
mod tables;
