//! Man pages and the completions of shells, both made of the description of the command line.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;

pub use clap_complete::Shell;

/// Prints the completions of a shell for the program on standard output.
pub fn print_completions(mut program: Command, shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(shell, &mut program, name, &mut script);
    // Unlike a direct write, without a panic if the output is closed.
    finish(
        io::stdout().write_all(&script),
        "cannot print the completions",
    )
}

/// Writes a man page for the program, and for each of its commands, into a directory that is made if it does not exist.
pub fn write_pages(program: Command, directory: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(directory).and_then(|()| write_page(program, directory));
    let failed = format!("cannot write the man pages into {}", directory.display());
    finish(written, &failed)
}

/// Writes the pages of a command and of the commands below it.
fn write_page(command: Command, directory: &Path) -> io::Result<()> {
    for command in command.get_subcommands() {
        write_page(command.clone(), directory)?;
    }
    let page = Man::new(command).manual("claviger");
    let mut text = Vec::new();
    page.render(&mut text)?;
    File::create(directory.join(page.get_filename()))?.write_all(&text)
}

fn finish(outcome: io::Result<()>, failed: &str) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {failed}: {error}");
            ExitCode::FAILURE
        }
    }
}
