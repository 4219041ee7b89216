//! Tests of the follower: tables of events, and properties over chains made at random.

use super::*;

mod property;
mod tables;
