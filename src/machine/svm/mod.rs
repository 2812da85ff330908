//! AMD-V (APM 2 chapter 15). Not written yet.
