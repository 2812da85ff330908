//! One virtual chip each, as pure state: register accesses and time in, decisions out.
pub mod lapic;
