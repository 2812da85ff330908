//! Making a PV domain.
