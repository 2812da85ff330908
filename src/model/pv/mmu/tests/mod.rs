//! What a guest may do, what it may not, and that nothing is ever wrong in between.

mod property;
