//! Holds the code to the tables of ARCHITECTURE.md: floors and doors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The cells of the rows of the table under a heading, without its header.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text
        .split(heading)
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The words in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file by its name in the tables, with its text up to its tests.
fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut files = Vec::new();
    walk(&src, &mut files);
    let name = |path: &Path| {
        path.strip_prefix(&src)
            .unwrap()
            .with_extension("")
            .to_str()
            .unwrap()
            .to_owned()
    };
    let text = |path: &Path| {
        fs::read_to_string(path)
            .unwrap()
            .split("#[cfg(test)]")
            .next()
            .unwrap()
            .to_owned()
    };
    files.iter().map(|path| (name(path), text(path))).collect()
}

/// The code of a file without its comments.
fn code(text: &str) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The files that a file names with `crate::`, `super::`, `greeter::` or a bare
/// module of its own folder.
fn imports(file: &str, text: &str, files: &BTreeSet<String>) -> BTreeSet<String> {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = BTreeSet::new();
    let mut note = |prefix: &str, path: &str| {
        let words: Vec<&str> = path.split("::").collect();
        for length in (1..=words.len()).rev() {
            let name = [&[prefix][..], &words[..length]].concat().join("/");
            let name = name.trim_start_matches('/').to_owned();
            for candidate in [name.clone(), format!("{name}/mod")] {
                if files.contains(&candidate) {
                    found.insert(candidate);
                    return;
                }
            }
        }
    };
    for statement in format!("\n{}", code(text)).split("\nuse ").skip(1) {
        let path = statement.split(';').next().unwrap();
        for path in expand(&path.replace(char::is_whitespace, "")) {
            if let Some(path) = path
                .strip_prefix("crate::")
                .or(path.strip_prefix("greeter::"))
            {
                note("", path);
            } else if let Some(path) = path.strip_prefix("super::") {
                note(folder, path);
            } else {
                note(folder, &path);
            }
        }
    }
    found.remove(file);
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`; `self` is the path before it.
fn expand(path: &str) -> Vec<String> {
    let Some(open) = path.find('{') else {
        return vec![path.to_owned()];
    };
    let (front, inner) = (&path[..open], &path[open + 1..path.rfind('}').unwrap()]);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let full = |part: &&str| match *part {
        "self" => front.trim_end_matches("::").to_owned(),
        part => format!("{front}{part}"),
    };
    parts
        .iter()
        .filter(|part| !part.is_empty())
        .map(full)
        .flat_map(|path| expand(&path))
        .collect()
}

#[test]
fn every_file_imports_only_from_lower_floors() {
    let sources = sources();
    let files: BTreeSet<String> = sources.keys().cloned().collect();
    let mut floors: BTreeMap<String, u32> = BTreeMap::new();
    for row in table("## The floors") {
        for file in quoted(&row[2]) {
            assert!(
                files.contains(&file),
                "ARCHITECTURE.md names '{file}', which is no file of src/"
            );
            floors.insert(file, row[1].parse().unwrap());
        }
    }
    let mut arrows = 0;
    for (file, text) in sources
        .iter()
        .filter(|(file, _)| !["lib", "settings/mod", "systemd/mod"].contains(&file.as_str()))
    {
        let own = floors
            .get(file)
            .unwrap_or_else(|| panic!("ARCHITECTURE.md gives '{file}' no floor"));
        let said = format!("Floor {own}");
        assert!(
            text.contains(&said),
            "'{file}' does not say that it is on floor {own}"
        );
        for import in imports(file, text, &files) {
            let Some(other) = floors.get(&import) else {
                continue;
            };
            assert!(
                other < own,
                "'{file}' (floor {own}) imports '{import}' (floor {other})"
            );
            arrows += 1;
        }
    }
    assert!(
        arrows > 60,
        "only {arrows} imports were understood: the test reads the code wrongly"
    );
}

#[test]
fn every_outside_crate_is_named_behind_its_door_only() {
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
    let mut doors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in table("## The doors") {
        for name in row[1].split(", ") {
            assert!(
                crates.contains(name),
                "ARCHITECTURE.md names the crate '{name}', which Cargo.toml does not"
            );
            doors.insert(name.to_owned(), quoted(&row[2]));
        }
    }
    for name in crates.iter().filter(|name| **name != "log") {
        let doors = doors
            .get(*name)
            .unwrap_or_else(|| panic!("ARCHITECTURE.md has no door for the crate '{name}'"));
        let word = format!("{}::", name.replace('-', "_"));
        for (file, text) in sources() {
            let code = code(&text);
            let named = code.match_indices(&word).any(|(at, _)| {
                !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            });
            assert!(
                !named || doors.contains(&file),
                "'{file}' names the crate '{name}', whose door is {doors:?}"
            );
            assert!(
                named || !doors.contains(&file),
                "'{file}' is the door of '{name}' and does not name it"
            );
        }
    }
}

#[test]
fn unsafe_is_in_one_file_and_every_block_says_why() {
    for (file, text) in sources() {
        let count = code(&text).match_indices("unsafe ").count();
        if file == "raw" {
            assert_eq!(count, text.matches("// SAFETY: ").count());
            assert!(count > 0);
        } else {
            assert_eq!(count, 0, "'{file}' has unsafe code");
        }
    }
}
