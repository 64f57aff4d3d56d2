//! The robot's rules, one by one.
