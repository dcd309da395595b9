//! hub-tests
