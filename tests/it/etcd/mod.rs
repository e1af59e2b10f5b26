//! What is etcd's alone.

mod crowd;
mod late;
mod proxied;
mod slow;
mod unwell;
