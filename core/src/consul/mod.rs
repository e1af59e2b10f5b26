//! What Consul's replies prove about one contender's session and keys.

pub mod keys;
pub mod lockinfo;
pub mod pair;
pub mod queue;
pub mod session;
