//! Makes the ISO image of a case.

use crate::bed::Firmware;
use crate::case::{Case, Content, Hypervisor, Module};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hypervisor under test, unless the case or `$EUXEN` names another.
fn hypervisor(case: &Case) -> PathBuf {
    let usual = || std::env::var_os("EUXEN").map_or_else(|| PathBuf::from("build/euxen"), PathBuf::from);
    case.image.clone().unwrap_or_else(usual)
}

/// Writes the image into the folder and returns its path.
pub fn make(case: &Case, dir: &Path) -> io::Result<PathBuf> {
    let menu = dir.join("grub.cfg");
    fs::write(&menu, grub_menu(case))?;
    let iso = dir.join("boot.iso");
    let mut command = Command::new("tools/iso.sh");
    command.arg(&iso).arg(&menu).arg(format!("euxen={}", hypervisor(case).display()));
    if case.hypervisor != Hypervisor::Euxen {
        command.arg("xen.gz=build/beds/xen.gz");
    }
    for (number, module) in case.modules.iter().enumerate() {
        command.arg(format!("module{number}={}", file_of(module, number, dir)?.display()));
    }
    if case.host.firmware == Firmware::Bios {
        command.env("GRUB_DIR", "/usr/lib/grub/i386-pc");
    }
    let output = command.output()?;
    if output.status.success() {
        Ok(iso)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_string()))
    }
}

fn grub_menu(case: &Case) -> String {
    let menu = String::from("serial --unit=0 --speed=115200\nterminal_output serial\n");
    let default = match case.hypervisor {
        Hypervisor::Euxen => return menu + &entry(case, "euxen") + "boot\n",
        Hypervisor::EuxenBesideXen => 0,
        Hypervisor::Xen => 1,
    };
    let choice = format!("set default={default}\nset timeout=0\n");
    let entries = ["euxen", "xen.gz"].map(|name| format!("menuentry \"{name}\" {{\n{}}}\n", entry(case, name)));
    menu + &choice + &entries.concat()
}

fn entry(case: &Case, hypervisor: &str) -> String {
    let mut lines = format!("multiboot2 /boot/{hypervisor} {}\n", case.options);
    for (number, module) in case.modules.iter().enumerate() {
        lines += &format!("module2 /boot/module{number} {}\n", module.string);
    }
    lines
}

fn file_of(module: &Module, number: usize, dir: &Path) -> io::Result<PathBuf> {
    let path = dir.join(format!("module{number}"));
    match &module.content {
        Content::File(file) => return Ok(file.clone()),
        Content::Text(text) => fs::write(&path, text)?,
        Content::Start(file, bytes) => {
            let whole = fs::read(file)?;
            fs::write(&path, &whole[..whole.len().min(*bytes)])?;
        }
    }
    Ok(path)
}
