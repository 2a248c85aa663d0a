// Colours of code: a text as pieces by what they are in most languages. A reader's help, no parser. No page, no network.

const WORDS = {
  python: `and as assert async await break case class continue def del elif else except finally for from global if import in is
    lambda match nonlocal not or pass raise return try while with yield None True False self`,
  javascript: `async await break case catch class const continue default delete do else enum export extends false finally for from
    function if implements import in instanceof interface let new null of private public readonly return static super switch this
    throw true try type typeof undefined var void while with yield`,
  c: `abstract auto bool break case catch char class const constexpr continue default delete do double else enum extends extern false
    final finally float for friend goto if implements import inline int interface long namespace new null nullptr override package
    private protected public register return short signed sizeof static struct super switch template this throw throws true try
    typedef typename union unsigned using var virtual void volatile while`,
  rust: `as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref
    return self Self static struct super trait true type unsafe use where while`,
  go: `break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range
    return select struct switch true type var`,
  shell: `case do done echo elif else esac exit export fi for function if in local read return set shift then unset until while`,
  sql: `add all alter and as asc between by case create delete desc distinct drop else end exists from full group having in index inner
    insert into is join key left like limit not null on or order outer primary right select set table then union unique update values
    view when where with`,
  data: `true false null yes no`,
};
const LANGUAGES = {
  python: ["py", "python", "python3", "pyi"], javascript: ["js", "javascript", "jsx", "mjs", "ts", "tsx", "typescript"],
  c: ["c", "h", "cpp", "c++", "cc", "cs", "csharp", "java", "kotlin", "kt", "scala", "swift", "php", "cuda"], rust: ["rs", "rust"],
  go: ["go", "golang"], shell: ["sh", "bash", "shell", "zsh", "console", "dockerfile", "makefile"], sql: ["sql", "mysql", "postgresql"],
  data: ["json", "jsonc", "yaml", "yml", "toml", "ini"],
};
const HASH = new Set(["python", "shell", "data"]), DASHES = new Set(["sql"]);
const LONGEST = 50_000; // characters; more stays plain: it would be coloured anew with every token

const known = new Map(Object.entries(LANGUAGES).flatMap(([family, names]) => names.map((name) => [name, family])));
const words = new Map(Object.entries(WORDS).map(([family, text]) => [family, new Set(text.split(/\s+/))]));

/**
 * Pieces {kind, text} of code in a language that a fence names; kinds: "text", "word" (of the language), "string", "number",
 * "comment". Put end to end they are the code. Of a language that is not known, all is text.
 */
export function colourPieces(code, language) {
  const family = known.get(language.trim().toLowerCase().split(/\s/)[0]);
  if (!family || code.length > LONGEST) return code ? [{ kind: "text", text: code }] : [];
  const pieces = [];
  let at = 0;
  const add = (kind, text) => {
    if (pieces.at(-1)?.kind === kind) pieces.at(-1).text += text;
    else if (text) pieces.push({ kind, text });
  };
  for (const found of code.matchAll(pattern(family))) {
    add("text", code.slice(at, found.index));
    const { comment, string, number, name } = found.groups;
    const isWord = name !== undefined && words.get(family).has(family === "sql" ? name.toLowerCase() : name);
    add(comment !== undefined ? "comment" : string !== undefined ? "string" : number !== undefined ? "number" : isWord ? "word" : "text", found[0]);
    at = found.index + found[0].length;
  }
  add("text", code.slice(at));
  return pieces;
}

function pattern(family) {
  const line = HASH.has(family) ? "#[^\\n]*" : DASHES.has(family) ? "--[^\\n]*" : "\\/\\/[^\\n]*";
  const comment = HASH.has(family) ? line : `${line}|\\/\\*[^]*?(?:\\*\\/|$)`;
  const long = family === "python" ? `"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|` : family === "javascript" ? "`(?:\\\\[^]|[^\\\\`])*`?|" : "";
  // A Rust lifetime or an apostrophe in a shell's words opens no string that goes on over lines.
  const string = `${long}"(?:\\\\[^\\n]|[^"\\\\\\n])*"?|'(?:\\\\[^\\n]|[^'\\\\\\n])*'`;
  const number = "\\b(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b";
  return new RegExp(`(?<comment>${comment})|(?<string>${string})|(?<number>${number})|(?<name>[A-Za-z_$][\\w$]*)`, "g");
}
