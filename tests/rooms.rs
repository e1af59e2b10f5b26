//! The order of the rooms: imports go down only, no modules import each other in a circle, and the core depends on a fixed
//! list of crates. Reads the sources; what is compiled for tests only does not count.

#[path = "rooms/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{Import, ModulePath, Source};

/// Each room of the program, and the rooms that it may import besides `distlock_core`.
const ROOMS: [(&str, &[&str]); 8] = [
    ("commands", &["config", "cli", "report", "job", "lock", "sys", "exit"]),
    ("config", &["cli", "report", "lock"]),
    ("cli", &[]),
    ("report", &["job", "lock", "sys"]),
    ("job", &["lock", "sys", "exit"]),
    ("lock", &["sys"]),
    ("sys", &[]),
    ("exit", &[]),
];

/// The crates that the core may depend on.
const CORE_DEPENDENCIES: [&str; 6] = ["base64", "jiff", "libc", "serde", "serde_json", "thiserror"];

/// Circles that are accepted, each with a reason.
const KNOWN: [(&str, &str); 0] = [];

#[test]
fn imports_go_down_the_rooms() {
    assert_eq!(upward_imports(&Crate::read("src")), [""; 0]);
}

#[test]
fn modules_form_no_circles() {
    let circles: Vec<_> = ["src", "core/src"].iter().flat_map(|dir| circles(&Crate::read(dir))).collect();
    let unknown: Vec<_> =
        circles.iter().filter(|circle| KNOWN.iter().all(|(known, _)| *known != circle.name)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    for (known, reason) in KNOWN {
        assert!(circles.iter().any(|circle| circle.name == known), "no longer a circle: {known} ({reason})");
    }
}

#[test]
fn core_depends_on_listed_crates_only() {
    let manifest = fs::read_to_string("core/Cargo.toml").expect("core/Cargo.toml");
    assert_eq!(dependencies(&manifest), CORE_DEPENDENCIES);
}

/// Returns the crates in all tables of dependencies except those for tests.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut table = "";
    let mut names = Vec::new();
    for line in manifest.lines() {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_end_matches(']');
            names
                .extend(table.split_once("dependencies.").filter(|_| !table.starts_with("dev-")).map(|(_, name)| name));
        } else if table.ends_with("dependencies") && !table.starts_with("dev-") && !line.starts_with('#') {
            names.extend(line.split_once('=').map(|(name, _)| name.trim().trim_end_matches(".workspace")));
        }
    }
    names
}

/// Module that has a file of its own.
struct Module {
    file: String,
    imports: Vec<Import>,
}

/// All modules of one crate that are not for tests.
struct Crate {
    dir: String,
    modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    fn read(dir: &str) -> Self {
        let mut sources = BTreeMap::new();
        read_sources(Path::new(dir), "", &mut sources);
        Self::parse(dir, &sources)
    }

    /// Parses the sources, by their paths below `dir`, that `lib.rs` declares as modules.
    fn parse(dir: &str, sources: &BTreeMap<String, String>) -> Self {
        let mut modules = BTreeMap::new();
        let mut pending = vec![ModulePath::new()];
        while let Some(path) = pending.pop() {
            let joined = path.join("/");
            let candidates = match path.as_slice() {
                [] => vec!["lib.rs".to_owned()],
                _ => vec![format!("{joined}.rs"), format!("{joined}/mod.rs")],
            };
            let source = candidates.iter().find_map(|file| Some((file, sources.get(file)?)));
            let (file, source) = source.unwrap_or_else(|| panic!("{dir}: no file for module {joined}"));
            let Source { children, imports } = Source::parse(source, &path);
            pending.extend(children.into_iter().map(|child| [path.clone(), vec![child]].concat()));
            modules.insert(path, Module { file: format!("{dir}/{file}"), imports });
        }
        Self { dir: dir.to_owned(), modules }
    }

    /// Returns every import with its module and the module that contains what is imported.
    fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.modules.iter().flat_map(move |(from, module)| {
            module.imports.iter().map(move |import| {
                let modules = (0..=import.path.len()).rev().map(|length| &import.path[..length]);
                let to = modules.into_iter().find(|path| self.modules.contains_key(*path)).unwrap_or_default();
                Edge { from, to, place: format!("{}:{}: {}", module.file, import.line, import.path.join("::")) }
            })
        })
    }
}

/// Import of something in module `to` by module `from`.
struct Edge<'a> {
    from: &'a [String],
    to: &'a [String],
    place: String,
}

fn read_sources(dir: &Path, prefix: &str, sources: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("an entry").path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            read_sources(&path, &format!("{name}/"), sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.insert(name, fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// Returns the imports that [`ROOMS`] does not allow.
fn upward_imports(krate: &Crate) -> Vec<String> {
    let forbidden = krate.edges().filter(|edge| {
        let Some(from) = edge.from.first() else { return false };
        let Some((_, allowed)) = ROOMS.iter().find(|(room, _)| room == from) else { return true };
        edge.to.first().is_none_or(|to| to != from && !allowed.contains(&to.as_str()))
    });
    forbidden.map(|edge| edge.place).collect()
}

/// Members of one directory that import each other.
#[derive(Debug)]
struct Circle {
    name: String,
    /// One import from each member to each other, as file and line.
    #[expect(dead_code, reason = "shown by Debug")]
    imports: Vec<String>,
}

/// Returns the circles in each directory. Its members are its files and its directories as a whole; `mod.rs`, or the file
/// with the directory's name, is one of them.
fn circles(krate: &Crate) -> Vec<Circle> {
    let parents: BTreeSet<_> =
        krate.modules.keys().filter_map(|path| path.split_last()).map(|(_, parent)| parent).collect();
    parents.into_iter().flat_map(|parent| circles_below(krate, parent)).collect()
}

fn circles_below(krate: &Crate, parent: &[String]) -> Vec<Circle> {
    let member = |path: &[String]| match path.strip_prefix(parent)? {
        [] => Some("mod.rs".to_owned()),
        [child, ..] => Some(child.clone()),
    };
    let mut graph: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for edge in krate.edges() {
        if let (Some(from), Some(to)) = (member(edge.from), member(edge.to))
            && from != to
        {
            graph.entry(from).or_default().entry(to).or_insert(edge.place);
        }
    }
    let reach: BTreeMap<_, _> = graph.keys().map(|member| (member, reachable(&graph, member))).collect();
    let circle_of = |member| -> BTreeSet<_> {
        let returns = |other: &&String| reach.get(other).is_some_and(|reached| reached.contains(member));
        reach[member].iter().filter(returns).collect()
    };
    let circles: BTreeSet<_> = graph.keys().map(circle_of).filter(|circle| !circle.is_empty()).collect();
    let describe = |circle: BTreeSet<&String>| {
        let members: Vec<_> = circle.iter().map(|member| member.as_str()).collect();
        let dir = [std::slice::from_ref(&krate.dir), parent].concat().join("/");
        let inside =
            |from: &String| graph[from].iter().filter(|(to, _)| circle.contains(to)).map(|(_, place)| place.clone());
        Circle {
            name: format!("{dir}: {}", members.join(", ")),
            imports: circle.iter().flat_map(|from| inside(from).collect::<Vec<_>>()).collect(),
        }
    };
    circles.into_iter().map(describe).collect()
}

/// Returns the members that `start` imports directly or indirectly.
fn reachable(graph: &BTreeMap<String, BTreeMap<String, String>>, start: &String) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![start];
    while let Some(member) = pending.pop() {
        pending
            .extend(graph.get(member).into_iter().flat_map(BTreeMap::keys).filter(|to| reached.insert((*to).clone())));
    }
    reached
}

mod tests {
    use super::*;

    fn krate(sources: &[(&str, &str)]) -> Crate {
        Crate::parse("src", &sources.iter().map(|(file, source)| ((*file).to_owned(), (*source).to_owned())).collect())
    }

    fn circle_names(sources: &[(&str, &str)]) -> Vec<String> {
        circles(&krate(sources)).into_iter().map(|circle| circle.name).collect()
    }

    #[test]
    fn upward_import_is_found() {
        let sources = [
            ("lib.rs", "mod job; mod lock; mod cli;"),
            ("job.rs", "use crate::lock::Lock;"),
            ("lock.rs", "fn f() { crate::job::run() }"),
            ("cli.rs", "\n\nuse crate::{lock, main};"),
        ];
        let expected = ["src/cli.rs:3: lock", "src/cli.rs:3: main", "src/lock.rs:1: job::run"];
        assert_eq!(upward_imports(&krate(&sources)), expected);
    }

    #[test]
    fn unknown_room_may_import_nothing() {
        assert_eq!(upward_imports(&krate(&[("lib.rs", "mod x;"), ("x.rs", "use crate::x::y;")])).len(), 1);
    }

    #[test]
    fn circle_of_files_is_found() {
        let sources = [
            ("lib.rs", "mod lock; use lock::a;"),
            ("lock/mod.rs", "mod a; mod b; mod c; mod d;"),
            ("lock/a.rs", "use super::b::X;"),
            ("lock/b.rs", "fn f() -> super::c::Y {}"),
            ("lock/c.rs", "use crate::lock::{self as l, a::{Z, W}};"),
            ("lock/d.rs", "use super::a;"),
        ];
        assert_eq!(circle_names(&sources), ["src/lock: a, b, c"]);
    }

    #[test]
    fn circle_of_parent_and_child_is_found() {
        let child = ("lock/a.rs", "use super::X;");
        let parent = |source| [("lib.rs", "mod lock;"), ("lock/mod.rs", source), child];
        assert_eq!(circle_names(&parent("mod a; pub(crate) use a::Y;")), ["src/lock: a, mod.rs"]);
        assert_eq!(circle_names(&parent("mod a; fn f() { a::g() }")), ["src/lock: a, mod.rs"]);
        assert_eq!(circle_names(&parent("mod a; pub(super) struct X;")), [""; 0]);
    }

    #[test]
    fn circle_of_directories_is_found() {
        let sources = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod inner;"),
            ("a/inner.rs", "use crate::b::X;"),
            ("b.rs", "use crate::a::Y;"),
        ];
        assert_eq!(circle_names(&sources), ["src: a, b"]);
    }

    #[test]
    fn dependencies_of_all_kinds_are_read() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\n# c = 1\nb.workspace = true\n\
                        [dependencies.d]\nversion = \"1\"\n[target.'cfg(unix)'.dependencies]\ne = \"1\"\n\
                        [build-dependencies]\nf = \"1\"\n[dev-dependencies]\ng = \"1\"\n";
        assert_eq!(dependencies(manifest), ["a", "b", "d", "e", "f"]);
    }
}
