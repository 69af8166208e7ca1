// The API reference as Markdown: every public name of src/index.ts with its comment and its declaration, bodies left out.
// `npm run docs` writes it to docs/api/; a test compares.
import { readFileSync } from "node:fs";
import { dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const root = fileURLToPath(new URL("../", import.meta.url));

/** Pages by file name under docs/api/, and the folders whose names they hold. */
const pages = [
  { file: "forecasting.md", title: "Forecasting", folders: ["forecast", "models"], intro: "Series in, forecasts out. A guide with examples: [forecasting.md](../forecasting.md)." },
  { file: "compiler.md", title: "The compiler", folders: ["tensor", "trace", "runtime"], intro: "Tensors, traced functions, devices and what they report. How they fit together: [layout.md](../layout.md)." },
  { file: "logs.md", title: "Compiler logs", folders: ["diagnostics"], intro: "The reader of compiler logs behind `tempograph analyze`: [patterns.md](../patterns.md)." },
];

/** Text of every page by file name. */
export function apiReference() {
  const entry = resolve(root, "src/index.ts");
  const program = ts.createProgram([entry], { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, strict: true, skipLibCheck: true, types: [] });
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(entry);
  const symbols = checker.getExportsOfModule(checker.getSymbolAtLocation(source));
  const entries = symbols.map((symbol) => {
    const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    const declarations = target.declarations.filter((declaration) => !isImplementation(declaration, target));
    const folder = relative(resolve(root, "src"), declarations[0].getSourceFile().fileName).split("/")[0];
    return { name: symbol.name, folder, declarations };
  });
  const files = new Map();
  for (const { file, title, folders, intro } of pages) {
    const list = entries.filter(({ folder }) => folders.includes(folder)).sort((left, right) => (left.name < right.name ? -1 : 1));
    files.set(file, page(title, intro, list, checker));
  }
  const left = entries.filter(({ folder }) => !pages.some(({ folders }) => folders.includes(folder)));
  if (left.length > 0) throw new Error(`no page takes ${left.map(({ name }) => name).join(", ")}`);
  return files;
}

/** The body of an overloaded function is not part of its interface. */
function isImplementation(declaration, symbol) {
  return ts.isFunctionDeclaration(declaration) && declaration.body !== undefined && symbol.declarations.length > 1;
}

function page(title, intro, entries, checker) {
  const sections = entries.map(({ name, declarations }) => {
    const comment = declarations.map(commentOf).find((text) => text !== "") ?? "";
    const code = declarations.map((declaration) => declarationText(declaration, name, checker)).join("\n");
    return `## ${name}\n\n${comment === "" ? "" : `${comment}\n\n`}\`\`\`ts\n${code}\n\`\`\`\n`;
  });
  const contents = entries.map(({ name }) => `[${name}](#${name.toLowerCase()})`).join(", ");
  return `# ${title}\n\n${intro}\n\nMade from the comments in the code by \`npm run docs\`; change it there.\n\n${contents}\n\n${sections.join("\n")}`;
}

/** The comment before a declaration, its parts joined; a variable's stands before the statement. */
function commentOf(declaration) {
  const owner = ts.isVariableDeclaration(declaration) ? declaration.parent.parent : declaration;
  return (ts.getJSDocCommentsAndTags(owner)[0]?.comment ?? "").toString().replace(/\s*\n\s*/g, " ").trim();
}

function declarationText(declaration, name, checker) {
  if (ts.isClassDeclaration(declaration)) return classText(declaration, checker);
  if (ts.isFunctionDeclaration(declaration)) return `function ${withoutBody(declaration, checker).replace(/^(export |async |function )*/, "")};`;
  if (ts.isVariableDeclaration(declaration)) {
    const type = checker.typeToString(checker.getTypeAtLocation(declaration), declaration, ts.TypeFormatFlags.NoTruncation);
    return `const ${name}: ${declaration.type?.getText() ?? type};`;
  }
  // Exported under another name than it was declared with.
  const renamed = (text) => text.replace(new RegExp(`^(\\w+ )${declaration.name.getText()}\\b`), `$1${name}`);
  return renamed(declaration.getText().replace(/^export (declare )?/, ""));
}

function classText(declaration, checker) {
  const heritage = declaration.heritageClauses?.map((clause) => ` ${clause.getText()}`).join("") ?? "";
  const generics = declaration.typeParameters ? `<${declaration.typeParameters.map((parameter) => parameter.getText()).join(", ")}>` : "";
  const members = declaration.members.filter(isPublic).map((member) => memberText(member, checker));
  return `class ${declaration.name.getText()}${generics}${heritage} {\n${members.join("\n")}\n}`;
}

function isPublic(member) {
  if (ts.isSemicolonClassElement(member) || ts.isClassStaticBlockDeclaration(member)) return false;
  if (member.name !== undefined && ts.isPrivateIdentifier(member.name)) return false;
  const flags = ts.getCombinedModifierFlags(member);
  return (flags & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) === 0;
}

function memberText(member, checker) {
  const comment = ts.getJSDocCommentsAndTags(member)[0]?.getText();
  const lines = comment === undefined ? "" : `${indented(comment)}\n`;
  if (ts.isPropertyDeclaration(member)) {
    const type = member.type?.getText() ?? checker.typeToString(checker.getTypeAtLocation(member), member, ts.TypeFormatFlags.NoTruncation);
    const words = (member.modifiers ?? []).map((modifier) => modifier.getText()).filter((word) => word !== "override" && word !== "declare");
    return `${lines}  ${[...words, ""].join(" ")}${member.name.getText()}${member.questionToken ? "?" : ""}: ${type};`;
  }
  return `${lines}${indented(`${withoutBody(member, checker).replace(/^((public|override|async) )+/, "")};`)}`;
}

/** Source text up to the body, with the return type where the source leaves it to be inferred. */
function withoutBody(node, checker) {
  const start = node.getStart();
  const end = node.body === undefined ? node.getEnd() : node.body.getStart();
  const text = node.getSourceFile().text.slice(start, end).trim().replace(/;$/, "").replace(/^((static|public|override) )*async \*?/, (words) => words.replace("async ", "").replace("*", ""));
  if (node.type !== undefined || ts.isConstructorDeclaration(node)) return text;
  const signature = checker.getSignatureFromDeclaration(node);
  return signature === undefined ? text : `${text}: ${checker.typeToString(signature.getReturnType(), node, ts.TypeFormatFlags.NoTruncation)}`;
}

function indented(text) {
  const lines = text.split("\n");
  const margin = Math.min(...lines.slice(1).filter((line) => line.trim() !== "").map((line) => /^ */.exec(line)[0].length), Infinity);
  const cut = Number.isFinite(margin) ? (text.startsWith("/**") ? Math.max(0, margin - 1) : margin) : 0;
  return lines.map((line, index) => `  ${index === 0 ? line : line.slice(Math.min(cut, line.length))}`.trimEnd()).join("\n");
}

/** Pages as they are on disk, for the comparison. */
export function writtenReference() {
  return new Map(pages.map(({ file }) => [file, readOrEmpty(resolve(root, "docs/api", file))]));
}

function readOrEmpty(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

export const referenceFolder = dirname(resolve(root, "docs/api", pages[0].file));
