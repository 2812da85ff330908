//! Page tables of PV guests.
