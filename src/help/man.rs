//! Man pages.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

use super::finish;

/// Writes a man page for the program, and for each of its commands, into a directory that is made if it does not exist.
pub fn write_pages(program: Command, directory: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(directory).and_then(|()| write_page(program, directory));
    let failed = format!("cannot write the man pages into {}", directory.display());
    finish(written, &failed)
}

/// Writes the pages of a command and of the commands below it.
fn write_page(command: Command, directory: &Path) -> io::Result<()> {
    let shown = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    for command in shown {
        write_page(command.clone(), directory)?;
    }
    let page = Man::new(command).manual("claviger");
    let mut text = Vec::new();
    page.render(&mut text)?;
    File::create(directory.join(page.get_filename()))?.write_all(&text)
}
