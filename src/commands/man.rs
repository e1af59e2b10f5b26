//! `distlock man`: the page in man/.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli;
use crate::cli::help::{SECTIONS, Section};

/// Returns the man page in roff.
pub(super) fn page() -> Vec<u8> {
    let mut page = Vec::new();
    render(&mut page).expect("writing to a vector cannot fail");
    page
}

fn render(page: &mut Vec<u8>) -> io::Result<()> {
    // An empty date would not be quoted, and the manual's name would take its place.
    let man = Man::new(cli::command()).title("DISTLOCK").date(" ").manual("User Commands");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    subcommands().to_writer(page)?;
    man.render_options_section(page)?;
    for section in SECTIONS {
        section_of(section).to_writer(page)?;
    }
    let see_also = [bold("flock"), roman("(1), "), bold("etcdctl"), roman("(1), "), bold("consul"), roman("(1)")];
    Roff::new().control("SH", ["SEE ALSO"]).text(see_also).to_writer(page)
}

/// Returns the section about the subcommands: they have no pages of their own.
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

fn section_of(section: &Section) -> Roff {
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
