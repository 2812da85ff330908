//! The figures of the sources and of the image: lines of Rust for each crate, how many of them are unsafe, bytes.

use std::fs;
use std::io;
use std::path::Path;

/// The crates by their folders, in the order of dependence, and the binary.
const CRATES: [&str; 6] = ["src/abi", "src/sync", "src/model", "src/machine", "src/kernel", "src/main.rs"];

/// What was counted of some sources.
#[derive(Default, Clone, Copy, PartialEq, Debug)]
struct Lines {
    /// All.
    all: usize,
    /// Neither blank nor a comment.
    code: usize,
    /// Those of the code within `unsafe { }`, or of an `unsafe fn` or `unsafe impl`.
    r#unsafe: usize,
}

/// Prints the table as Markdown.
pub fn print() -> io::Result<()> {
    println!("| crate | lines | code, tests included | of that unsafe |\n|---|---|---|---|");
    let mut sum = Lines::default();
    for path in CRATES {
        let mut lines = Lines::default();
        count_below(Path::new(path), &mut lines)?;
        print_row(path, lines);
        sum.add(lines);
    }
    print_row("together", sum);
    println!("\nbuild/euxen: {} bytes", fs::metadata("build/euxen")?.len());
    Ok(())
}

fn print_row(name: &str, Lines { all, code, r#unsafe }: Lines) {
    println!("| {name} | {all} | {code} | {} |", r#unsafe);
}

impl Lines {
    fn add(&mut self, other: Lines) {
        self.all += other.all;
        self.code += other.code;
        self.r#unsafe += other.r#unsafe;
    }
}

fn count_below(path: &Path, lines: &mut Lines) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            count_below(&entry?.path(), lines)?;
        }
    } else if path.extension().is_some_and(|end| end == "rs") {
        lines.add(count(&fs::read_to_string(path)?));
    }
    Ok(())
}

/// Counts a file that rustfmt has formatted: what opens a brace on an unsafe line ends where the depth is as before.
fn count(text: &str) -> Lines {
    let (mut lines, mut depth, mut until) = (Lines::default(), 0i32, None);
    let mut waits = false;
    for line in text.lines() {
        lines.all += 1;
        let code = line.split("//").next().unwrap_or("").trim();
        if code.is_empty() {
            continue;
        }
        lines.code += 1;
        let begins =
            ["unsafe {", "unsafe fn ", "unsafe impl ", "unsafe extern "].iter().any(|word| code.contains(word));
        let is_unsafe = begins || waits || until.is_some();
        lines.r#unsafe += usize::from(is_unsafe);
        let before = depth;
        depth += code.matches('{').count() as i32 - code.matches('}').count() as i32;
        // The head of a function may go on over lines before its brace.
        waits = (begins || waits) && !code.contains('{') && !code.ends_with(';');
        if is_unsafe && until.is_none() && depth > before {
            until = Some(before);
        }
        if until.is_some_and(|until| depth <= until) {
            until = None;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_within_unsafe_braces_are_counted_and_comments_are_not() {
        let text = "fn a() {\n    // SAFETY: so.\n    unsafe { b() };\n    let x = unsafe {\n        c();\n        d()\n    };\n}\n\n/// Doc.\nunsafe fn e(\n    f: u8,\n) {\n    g();\n}\nfn h() {}\n";
        assert_eq!(count(text), Lines { all: 16, code: 13, r#unsafe: 10 });
    }
}
