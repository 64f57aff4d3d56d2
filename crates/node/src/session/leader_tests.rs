//! The leader's rules, one by one.
