//! Reads the imports of one source: a small lexer, and paths of modules.

/// Names of nested modules, from the crate's root.
pub(crate) type ModulePath = Vec<String>;

/// Import of an item or module.
pub(crate) struct Import {
    pub(crate) path: ModulePath,
    pub(crate) line: usize,
}

/// What one file declares and imports, without what is compiled for tests only.
pub(crate) struct Source {
    /// Modules that have files of their own.
    pub(crate) children: Vec<String>,
    pub(crate) imports: Vec<Import>,
}

impl Source {
    /// Parses the file of `module`.
    pub(crate) fn parse(source: &str, module: &[String]) -> Self {
        let tokens = without_tests(&tokens(source));
        let children = declared_modules(&tokens);
        Self { imports: imports(&tokens, module, &children), children }
    }
}

/// Name, number or punctuation character; `::` is one token.
#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Splits a source into tokens, without comments and literals.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), source, 1);
    while let Some(first) = rest.chars().next() {
        let ignored = if rest.starts_with("//") {
            rest.find('\n').or(Some(rest.len()))
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|end| end + 2)
        } else {
            string_length(rest)
                .or_else(|| char_length(rest))
                .or_else(|| first.is_whitespace().then(|| first.len_utf8()))
        };
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let length = ignored.unwrap_or_else(|| match first {
            first if is_name(first) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            first => first.len_utf8(),
        });
        let (text, after) = rest.split_at(length);
        if ignored.is_none() {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// Returns the length of a string literal, raw or not, at the start of `text`.
fn string_length(text: &str) -> Option<usize> {
    if let Some(content) = text.strip_prefix('"') {
        let mut escaped = false;
        let is_end = |c: char| {
            let end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            end
        };
        return content.find(is_end).map(|end| end + 2);
    }
    let after_prefix = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let content = after_prefix.trim_start_matches('#');
    let hashes = &after_prefix[..after_prefix.len() - content.len()];
    let end = format!("\"{hashes}");
    let content = content.strip_prefix('"')?;
    content.find(&end).map(|position| text.len() - content.len() + position + end.len())
}

/// Returns the length of a character literal at the start of `text`; None for a lifetime.
fn char_length(text: &str) -> Option<usize> {
    let content = text.strip_prefix('\'')?;
    if content.starts_with('\\') {
        return content[2..].find('\'').map(|end| end + 4);
    }
    let length = content.chars().next()?.len_utf8();
    content[length..].starts_with('\'').then_some(length + 2)
}

/// Removes the items that are marked with `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let is_mark = |at: usize| {
        let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
        tokens[at..].iter().map(|token| token.text).take(mark.len()).eq(mark)
    };
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_mark(at) {
            at += item_length(&tokens[at..]);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// Returns the number of tokens up to the end of the item: a semicolon, or the brace that closes its body.
fn item_length(tokens: &[Token]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        let is_last =
            token.text == ";" || (token.text == "}" && tokens.get(at + 1).is_none_or(|next| next.text != ";"));
        if depth == 0 && is_last {
            return at + 1;
        }
    }
    tokens.len()
}

fn declared_modules(tokens: &[Token]) -> Vec<String> {
    let declarations = tokens.windows(3).filter(|window| window[0].text == "mod" && window[2].text == ";");
    declarations.map(|window| window[1].text.to_owned()).collect()
}

/// Returns what a module imports from its own crate: in `use` declarations, and by paths elsewhere.
fn imports(tokens: &[Token], module: &[String], children: &[String]) -> Vec<Import> {
    let mut imports = Vec::new();
    // The module of the present token: modules that are written inside this file are pushed, each with its depth of braces.
    let (mut scope, mut inline_depths, mut depth) = (module.to_vec(), Vec::new(), 0_usize);
    let mut at = 0;
    while at < tokens.len() {
        let text = |offset: usize| tokens.get(at + offset).map_or("", |token| token.text);
        let line = tokens[at].line;
        let mut paths = Vec::new();
        match text(0) {
            "mod" if text(2) == "{" => {
                scope.push(text(1).to_owned());
                inline_depths.push(depth);
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if inline_depths.pop_if(|opened| *opened == depth).is_some() {
                    scope.pop();
                }
            }
            "use" if text(1) != "<" => {
                at += 1;
                read_use_tree(tokens, &mut at, &[], &mut paths);
            }
            _ if text(1) == "::" && (at == 0 || !matches!(tokens[at - 1].text, "::" | "in")) => {
                let separators = tokens[at + 1..].iter().step_by(2).take_while(|token| token.text == "::").count();
                let names = tokens[at..].iter().step_by(2).take(separators + 1);
                paths.push(names.map(|token| token.text.to_owned()).collect());
            }
            _ => {}
        }
        let absolute = paths.iter().filter_map(|path| absolute(path, &scope, children));
        imports.extend(absolute.map(|path| Import { path, line }));
        at += 1;
    }
    imports
}

/// Reads one tree of a `use` declaration at `at`, and adds the path of each leaf. Stops at the separator that follows.
fn read_use_tree(tokens: &[Token], at: &mut usize, prefix: &[String], paths: &mut Vec<ModulePath>) {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(*at) {
        match token.text {
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token.text != "}") {
                    read_use_tree(tokens, at, &path, paths);
                    *at += usize::from(tokens.get(*at).is_some_and(|token| token.text == ","));
                }
                *at += 1;
                return;
            }
            "," | ";" | "}" => break,
            // Skips the other name too.
            "as" => *at += 1,
            "::" | "*" => {}
            "self" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        *at += 1;
    }
    paths.push(path);
}

/// Returns the path from the crate's root; None if it leads to another crate or to a local item.
fn absolute(path: &[String], scope: &[String], children: &[String]) -> Option<ModulePath> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([scope, rest].concat()),
        "super" => {
            let supers = path.iter().take_while(|name| *name == "super").count();
            Some([&scope[..scope.len().checked_sub(supers)?], &path[supers..]].concat())
        }
        name => children.iter().any(|child| child == name).then(|| [scope, path].concat()),
    }
}

mod tests {
    use super::*;

    /// Returns what `source` imports as module `lock::etcd`.
    fn imported(source: &str) -> Vec<String> {
        let source = Source::parse(source, &["lock".to_owned(), "etcd".to_owned()]);
        source.imports.iter().map(|import| import.path.join("::")).collect()
    }

    #[test]
    fn all_forms_of_imports_are_read() {
        assert_eq!(imported("use crate::{a::{self, b as c}, d::*, e};"), ["a", "a::b", "d", "e"]);
        assert_eq!(imported("use super::super::x; use self::y; use std::z;"), ["x", "lock::etcd::y"]);
        assert_eq!(imported("mod_x!(); fn f(a: super::A<crate::B>) {}"), ["lock::A", "B"]);
        assert_eq!(imported("mod inner { use super::X; } use super::Y;"), ["lock::etcd::X", "lock::Y"]);
    }

    #[test]
    fn tests_comments_and_literals_do_not_count() {
        assert_eq!(imported("#[cfg(test)] mod tests { use crate::a; } #[cfg(test)] use crate::{b, c};"), [""; 0]);
        assert_eq!(imported("#[cfg(test)]\n#[allow(x)]\nfn f() { crate::a() }\nuse crate::d;"), ["d"]);
        assert_eq!(imported("#[cfg(test)] mod tests;"), [""; 0]);
        assert_eq!(imported("// crate::a\n/* crate::b */ const C: &str = \"\\\" crate::c\";"), [""; 0]);
        assert_eq!(imported("const C: &str = r#\"\" crate::c\"#; const D: char = '\"'; use crate::d;"), ["d"]);
        assert_eq!(imported("pub(in crate::lock) fn f<'a>(c: &'a str) { '\\'' }"), [""; 0]);
    }
}
