//! Privileged instructions of PV guests, and their stores to page tables.
