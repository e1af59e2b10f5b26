//! What is etcd's alone.

mod crowd;
mod late;
mod proxied;
mod release;
mod slow;
mod unwell;
mod users;
