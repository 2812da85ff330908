//! VT-x (SDM 3C chapters 23 to 31). Not written yet.
