//! dbmove
