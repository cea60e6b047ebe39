//! Writes the CustomResourceDefinitions of this crate into a folder: `crdgen config/crd`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: crdgen FOLDER (for instance config/crd)");
        return ExitCode::from(2);
    };
    match write(&folder) {
        Ok(count) => {
            println!("{count} files written to {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &std::path::Path) -> Result<usize, Box<dyn std::error::Error>> {
    fs::create_dir_all(folder)?;
    let files = mizzen_crds::definitions::files()?;
    for file in &files {
        fs::write(folder.join(&file.name), &file.content)?;
    }
    Ok(files.len())
}
