//! The command line: messages, hints, JSON events, report targets and the password prompt.

mod hints;
mod holder_times;
mod interrupted;
mod json_events;
mod password_prompt;
mod report_target;
mod restarts;
mod verbose;
