//! `distlock man`: what man/ holds.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli;
use crate::cli::help::{SECTIONS, Section};

/// The man page, in roff.
pub(super) fn page() -> io::Result<Vec<u8>> {
    let man = Man::new(cli::command()).title("DISTLOCK").manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    subcommands().to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    for section in SECTIONS {
        roff(section).to_writer(&mut page)?;
    }
    let see_also = [bold("flock"), roman("(1), "), bold("etcdctl"), roman("(1), "), bold("consul"), roman("(1)")];
    Roff::new().control("SH", ["SEE ALSO"]).text(see_also).to_writer(&mut page)?;
    Ok(page)
}

/// What the subcommands do; they have no pages of their own.
fn subcommands() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SUBCOMMANDS"]);
    for command in cli::command().get_subcommands() {
        let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
        roff.control("TP", []).text([bold(command.get_name())]);
        for (n, paragraph) in about.split("\n\n").enumerate() {
            if n > 0 {
                roff.control("IP", []);
            }
            roff.text([roman(paragraph)]);
        }
    }
    roff
}

fn roff(section: &Section) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [section.title.to_uppercase().as_str()]);
    if !section.intro.is_empty() {
        roff.text([roman(section.intro)]);
    }
    for (term, meaning) in section.entries {
        roff.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
    }
    roff
}
