//! The course by example.
