//! What is etcd's alone.

mod late;
