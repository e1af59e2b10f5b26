//! What is etcd's alone.

mod crowd;
mod late;
