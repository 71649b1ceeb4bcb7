//! Compares the imports in src/ with the tables of ARCHITECTURE.md: layers, external
//! crates, and the one file with `unsafe` code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap()
}

/// The rows of the first table after a heading, without its header. Cell 0 of a row
/// is empty: it is what precedes the first `|`.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = architecture();
    let (_, section) = text
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("ARCHITECTURE.md has no '{heading}'"));
    section
        .split("\n## ")
        .next()
        .unwrap()
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The files that have no layer, as they contain only `mod` declarations.
fn module_lists() -> Vec<String> {
    let text = architecture();
    let line = text
        .lines()
        .find(|line| line.starts_with("Files that only list others: "))
        .expect("ARCHITECTURE.md lacks the line 'Files that only list others: '");
    quoted(line)
}

/// Every file of src/ by its name in the tables, with its text up to its tests.
fn sources() -> BTreeMap<String, String> {
    let src = root().join("src");
    let mut paths = Vec::new();
    find_sources(&src, &mut paths);
    let mut sources = BTreeMap::new();
    for path in paths {
        let name = path.strip_prefix(&src).unwrap().with_extension("");
        let text = fs::read_to_string(&path).unwrap();
        let before_tests = text.split("#[cfg(test)]").next().unwrap();
        sources.insert(name.to_str().unwrap().to_owned(), before_tests.to_owned());
    }
    sources
}

fn find_sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The text of a file without its comments.
fn code(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The other files of src/ that the `use` statements of a file name. Statements
/// inside of modules and functions do not count.
fn imports(file: &str, text: &str, files: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for statement in format!("\n{}", code(text)).split("\nuse ").skip(1) {
        let tree = statement.split(';').next().unwrap();
        for path in expand(tree) {
            found.extend(resolve(file, &path, files));
        }
    }
    found.remove(file);
    found
}

/// The paths of a `use` tree: `a::{self, b, c::d as e}` is `a`, `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split_whitespace().next().unwrap_or_default();
        return vec![path.trim_end_matches("::self").to_owned()];
    };
    let prefix = &tree[..open];
    let inner = &tree[open + 1..tree.rfind('}').unwrap()];
    split_at_commas(inner)
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .flat_map(|part| expand(&format!("{prefix}{part}")))
        .collect()
}

/// Splits at the commas that are outside of braces.
fn split_at_commas(list: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (index, byte) in list.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&list[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

/// The file that contains the item `path`, which `file` imports; `None` if it is not
/// one of `files`.
fn resolve(file: &str, path: &str, files: &BTreeSet<String>) -> Option<String> {
    let mut module: Vec<&str> = match file {
        "lib" | "main" => Vec::new(),
        _ => file.trim_end_matches("/mod").split('/').collect(),
    };
    for (index, name) in path.split("::").enumerate() {
        match name {
            "crate" | "greeter" if index == 0 => module.clear(),
            "self" => {}
            "super" => {
                module.pop();
            }
            name => module.push(name),
        }
    }
    // The last names of the path are items in the file: `server::Server` is in
    // `server/mod`, and so is `super::Server` in `server/listener`.
    for length in (1..=module.len()).rev() {
        let name = module[..length].join("/");
        for candidate in [format!("{name}/mod"), name] {
            if files.contains(&candidate) {
                return Some(candidate);
            }
        }
    }
    None
}

#[test]
fn files_import_only_from_lower_layers() {
    let sources = sources();
    let files: BTreeSet<String> = sources.keys().cloned().collect();
    let mut layers: BTreeMap<String, u32> = BTreeMap::new();
    for row in table("## Layers") {
        let layer: u32 = row[1].parse().unwrap();
        for file in quoted(&row[2]) {
            assert!(
                files.contains(&file),
                "ARCHITECTURE.md names '{file}', which is not a file of src/"
            );
            let previous = layers.insert(file.clone(), layer);
            assert_eq!(previous, None, "ARCHITECTURE.md gives '{file}' two layers");
        }
    }
    let module_lists = module_lists();
    let mut understood = 0;
    for (file, text) in &sources {
        if module_lists.contains(file) {
            assert_only_lists_modules(file, text);
            continue;
        }
        let layer = layers
            .get(file)
            .unwrap_or_else(|| panic!("ARCHITECTURE.md gives '{file}' no layer"));
        for import in imports(file, text, &files) {
            let Some(other) = layers.get(&import) else {
                continue;
            };
            assert!(
                other < layer,
                "'{file}' (layer {layer}) imports '{import}' (layer {other})"
            );
            understood += 1;
        }
    }
    assert!(
        understood > 60,
        "only {understood} imports were understood: this test does not parse the code correctly"
    );
}

fn assert_only_lists_modules(file: &str, text: &str) {
    for line in code(text).lines().filter(|line| !line.is_empty()) {
        let is_attribute = line.starts_with('#');
        let is_module = line.ends_with(';')
            && ["mod ", "pub mod ", "pub(crate) mod "]
                .iter()
                .any(|declaration| line.starts_with(declaration));
        assert!(
            is_attribute || is_module,
            "'{file}' has no layer, but contains more than modules: {line}"
        );
    }
}

#[test]
fn paths_are_resolved_to_files() {
    let files: BTreeSet<String> = ["cli", "main", "server/mod", "server/listener", "sys/ffi"]
        .map(str::to_owned)
        .into();
    for (file, tree, expected) in [
        ("main", "greeter::cli::{self, Cli}", vec!["cli"]),
        ("cli", "crate::server::Server", vec!["server/mod"]),
        ("cli", "std::io", vec![]),
        ("server/listener", "super::Server", vec!["server/mod"]),
        ("server/listener", "crate::server::listener::A", vec![]),
        ("server/listener", "std::{fs, io}", vec![]),
        (
            "server/mod",
            "self::listener as port",
            vec!["server/listener"],
        ),
        ("server/mod", "super::cli::Cli", vec!["cli"]),
        (
            "server/mod",
            "crate::{cli::{Cli, A}, sys::ffi::errno::{\n    B,\n}}",
            vec!["cli", "sys/ffi"],
        ),
    ] {
        let text = format!("use {tree};\n");
        let found: Vec<String> = imports(file, &text, &files).into_iter().collect();
        assert_eq!(found, expected, "{tree} in {file}");
    }
}

#[test]
fn each_crate_is_named_only_in_its_wrapper() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies = manifest
        .split("[dependencies]\n")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap();
    let crates: BTreeSet<&str> = dependencies
        .lines()
        .filter_map(|line| line.split(" =").next())
        .filter(|name| !name.is_empty())
        .collect();
    let mut wrappers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in table("## External crates") {
        for name in row[1].split(", ") {
            assert!(
                crates.contains(name),
                "ARCHITECTURE.md names the crate '{name}', which is not in Cargo.toml"
            );
            wrappers.insert(name.to_owned(), quoted(&row[2]));
        }
    }
    let sources = sources();
    for name in crates.iter().filter(|name| **name != "log") {
        let wrappers = wrappers
            .get(*name)
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no module for the crate '{name}'"));
        for (file, text) in &sources {
            let is_named = names_crate(&code(text), name);
            assert!(
                !is_named || wrappers.contains(file),
                "'{file}' names the crate '{name}', which only {wrappers:?} may name"
            );
            assert!(
                is_named || !wrappers.contains(file),
                "'{file}' wraps the crate '{name}', but does not name it"
            );
        }
    }
}

/// Whether a path in the code begins with the crate.
fn names_crate(code: &str, name: &str) -> bool {
    let prefix = format!("{}::", name.replace('-', "_"));
    code.match_indices(&prefix).any(|(index, _)| {
        !code[..index].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn unsafe_is_in_one_file_and_every_block_has_a_safety_comment() {
    for (file, text) in sources() {
        let count = code(&text).match_indices("unsafe ").count();
        if file == "sys/ffi" {
            assert_eq!(count, text.matches("// SAFETY: ").count());
            assert!(count > 0);
        } else {
            assert_eq!(count, 0, "'{file}' has unsafe code");
        }
    }
}
