//! What users and scripts rely on at the command line.

mod json_events;
mod hints;
mod interrupted;
mod password_prompt;
mod report_target;
mod restarts;
mod holder_times;
mod verbose;
