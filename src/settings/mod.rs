//! The settings: found (`source`), read (`fragment`), merged and checked (`load`),
//! in force (`values`).

mod fragment;
pub mod keys;
pub mod load;
pub mod source;
pub mod values;
