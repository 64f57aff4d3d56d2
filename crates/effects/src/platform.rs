//! What differs between operating systems. Unix today.
