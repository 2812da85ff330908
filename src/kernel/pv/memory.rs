//! The frames of a PV domain.
