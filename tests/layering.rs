//! Compares src/ with the tables of ARCHITECTURE.md: layers, external crates, where a
//! function is; and finds `unsafe` code outside of its one file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rows of the first table below a heading of ARCHITECTURE.md, without its header; of
/// each cell, the words in backticks, or else its text.
fn table(heading: &str) -> Vec<Vec<Vec<String>>> {
    let text = read("ARCHITECTURE.md");
    let (_, section) = text.split_once(&format!("\n{heading}\n")).unwrap();
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let words = |cell: &str| match cell.split('`').collect::<Vec<_>>()[..] {
        [text] => vec![text.trim().to_owned()],
        ref parts => parts
            .iter()
            .skip(1)
            .step_by(2)
            .map(ToString::to_string)
            .collect(),
    };
    rows.map(|row| row.trim_matches('|').split('|').map(words).collect())
        .collect()
}

/// Every file of src/ as the tables name it, with its code up to its tests, without
/// comments.
fn sources() -> BTreeMap<String, String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![src.clone()];
    let mut sources = BTreeMap::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.split("#[cfg(test)]").next().unwrap().lines();
            let code = lines.filter(|line| !line.trim_start().starts_with("//"));
            let name = path.strip_prefix(&src).unwrap().with_extension("");
            let code = code.map(|line| format!("{line}\n")).collect();
            sources.insert(name.to_str().unwrap().to_owned(), code);
        }
    }
    sources
}

/// The paths that the `use` statements of a file name, from the root of the crate, with
/// slashes.
fn imports(file: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in format!("\n{code}").split("\nuse ").skip(1) {
        let tree: String = statement
            .split(';')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        assert!(
            tree.matches('{').count() < 2,
            "{file}: nested braces in {tree}"
        );
        let (prefix, list) = tree.split_once('{').unwrap_or(("", &tree));
        for item in list.trim_end_matches('}').split(',') {
            let path = format!("{prefix}{item}").replace("::", "/");
            let parent = Path::new(file.trim_end_matches("/mod"));
            let path = match path.split_once('/') {
                Some(("crate" | "greeter", rest)) => PathBuf::from(rest),
                Some(("self", rest)) => parent.join(rest),
                Some(("super", rest)) => parent.parent().unwrap().join(rest),
                _ => continue,
            };
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn files_import_only_from_lower_layers() {
    let sources = sources();
    let rows = table("## Layers");
    let row_of = |file: &str| {
        rows.iter()
            .position(|row| row[0].iter().any(|name| name == file))
    };
    for name in rows.iter().flat_map(|row| &row[0]) {
        assert!(sources.contains_key(name), "'{name}' is not a file of src/");
    }
    let mut understood = 0;
    for (file, code) in &sources {
        let Some(row) = row_of(file) else {
            let only_modules = code
                .lines()
                .all(|line| line.is_empty() || line.contains("mod "));
            assert!(only_modules, "ARCHITECTURE.md gives '{file}' no layer");
            continue;
        };
        for path in imports(file, code) {
            // The last parts of a path are items in a file.
            let ancestors = Path::new(&path).ancestors();
            let mut names = ancestors.flat_map(|path| {
                let path = path.to_str().unwrap();
                [format!("{path}/mod"), path.to_owned()]
            });
            let Some(other) = names.find(|name| sources.contains_key(name)) else {
                panic!("'{file}' imports '{path}', which is in no file");
            };
            if let Some(other_row) = row_of(&other).filter(|_| other != *file) {
                assert!(
                    other_row > row,
                    "'{file}' imports '{other}' of a layer above it"
                );
                understood += 1;
            }
        }
    }
    assert!(understood > 60, "only {understood} imports were understood");
}

#[test]
fn each_crate_is_named_only_in_its_wrapper() {
    let manifest = read("Cargo.toml");
    let (_, dependencies) = manifest.split_once("[dependencies]\n").unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap().lines();
    let names = dependencies.filter_map(|line| line.split_once(" = "));
    let mut crates: Vec<&str> = names
        .map(|(name, _)| name)
        .filter(|name| *name != "log")
        .collect();
    crates.sort_unstable();
    let rows = table("## External crates");
    let listed: Vec<&str> = rows.iter().map(|row| row[0][0].as_str()).collect();
    assert_eq!(listed, crates);
    for row in rows {
        let prefix = format!("{}::", row[0][0].replace('-', "_"));
        for (file, code) in sources() {
            let mut names = code.match_indices(&prefix);
            let is_named = names.any(|(index, _)| {
                !code[..index].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            });
            assert_eq!(is_named, row[1].contains(&file), "{prefix} in '{file}'");
        }
    }
}

#[test]
fn functions_are_where_the_architecture_says() {
    let sources = sources();
    for row in table("## Where is ...?") {
        for function in &row[2] {
            let code = &sources[&row[1][0]];
            let is_there = code.contains(&format!("fn {function}("))
                || code.contains(&format!("fn {function}<"));
            assert!(is_there, "'{function}' is not in '{}'", row[1][0]);
        }
    }
}

#[test]
fn unsafe_is_in_one_file_and_every_block_has_a_safety_comment() {
    for (file, code) in sources() {
        let blocks = code.matches("unsafe ").count();
        let text = read(&format!("src/{file}.rs"));
        let expected = match file.as_str() {
            "sys/ffi" => text.matches("// SAFETY: ").count(),
            _ => 0,
        };
        assert_eq!(blocks, expected, "unsafe code in '{file}'");
    }
}
