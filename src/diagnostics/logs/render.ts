/**
 * The analysis as text for people: on a terminal, and as Markdown for a report or an issue. JSON is the analysis itself.
 */
import type { Counts, LogAnalysis, RootCause } from "./answer.js";
import type { Severity } from "./causes.js";

/** Rows of a table that are worth reading. */
const MOST_ROWS = 8;
const MOST_VALUES = 10;

const COLOURS: Readonly<Record<Severity, string>> = { good: "\u001b[32m", investigate: "\u001b[33m", bad: "\u001b[31m" };
const RESET = "\u001b[0m";

/** Plain text in lines of at most `columns` characters where words allow. */
export function renderTerminal(
  analysis: LogAnalysis,
  { columns = 80, colours = false }: { columns?: number; colours?: boolean } = {},
): string {
  const out: string[] = [...summary(analysis)];
  for (const [index, cause] of analysis.rootCauses.entries()) {
    const severity = colours ? `${COLOURS[cause.severity]}${cause.severity}${RESET}` : cause.severity;
    out.push("", `${index + 1}. ${cause.title}  [${cause.cause}, ${severity}]`);
    if (cause.location !== "") out.push(`   at ${cause.location}${cause.function === "" ? "" : ` in ${cause.function}`}`);
    out.push(...wrapped(cause.explanation, columns, "   "));
    out.push("   Seen:", ...cause.evidence.map((line) => `     ${shortened(line, columns * 2)}`));
    out.push(
      "   Change:",
      ...wrapped(cause.fix, columns, "     "),
      "",
      ...indented(cause.example, "       "),
      "",
      `   More: ${cause.pattern}`,
    );
  }
  if (analysis.rootCauses.length === 0) out.push("", "Nothing to change.");
  out.push(
    ...tables(analysis).flatMap(({ title, rows }) => [
      "",
      title,
      ...rows.map(([name, count]) => `  ${String(count).padStart(7)}  ${shortened(name, columns)}`),
    ]),
  );
  if (analysis.notes.length > 0) out.push("", ...analysis.notes.map((note) => `Note: ${note}`));
  return `${out.join("\n")}\n`;
}

export function renderMarkdown(analysis: LogAnalysis): string {
  const out: string[] = [`# Compiler log: ${analysis.inputs.join(", ")}`, "", ...summary(analysis).map((line) => `- ${line}`), ""];
  out.push(analysis.rootCauses.length === 0 ? "Nothing to change." : "## Root causes");
  for (const [index, cause] of analysis.rootCauses.entries()) out.push("", ...markdownCause(index + 1, cause));
  for (const { title, rows } of tables(analysis)) {
    out.push("", `## ${title}`, "", "| count | what |", "| ---: | --- |", ...rows.map(([name, count]) => `| ${count} | ${code(name)} |`));
  }
  if (analysis.notes.length > 0) out.push("", ...analysis.notes.map((note) => `> ${note}`));
  return `${out.join("\n")}\n`;
}

function markdownCause(number: number, cause: RootCause): string[] {
  const where = cause.location === "" ? "" : ` at ${code(cause.location)}${cause.function === "" ? "" : ` in ${code(cause.function)}`}`;
  return [
    `### ${number}. ${cause.title}`,
    "",
    `**${cause.severity}**, \`${cause.cause}\`${where}`,
    "",
    cause.explanation,
    "",
    ...cause.evidence.map((line) => `- ${code(line)}`),
    "",
    `**Change:** ${cause.fix}`,
    "",
    "```python",
    cause.example,
    "```",
    "",
    `More: [${cause.pattern}](${cause.pattern})`,
  ];
}

function summary(analysis: LogAnalysis): string[] {
  const { recompiles, recompileLimitHits, graphBreaks, cudagraphSkips, phases, symbolicShapes, cache } = analysis;
  const lines = [
    `${analysis.lines} lines, ${analysis.unrecognisedLines} of them not from a compiler${analysis.processes.length > 1 ? `, ${analysis.processes.length} processes` : ""}`,
    `recompiles ${recompiles.total}${recompiles.total > 0 ? ` (${phases.firstRun} in the first run, ${phases.steady} after it)` : ""}, limit hits ${recompileLimitHits.total}, graph breaks ${graphBreaks.total}`,
  ];
  if (cudagraphSkips.total + analysis.cudagraphPartitions + analysis.overwrittenOutputs > 0) {
    lines.push(
      `CUDA graphs: ${cudagraphSkips.total} skipped, ${analysis.cudagraphPartitions} partitions, ${analysis.overwrittenOutputs} outputs overwritten`,
    );
  }
  if (symbolicShapes.symbols > 0) {
    lines.push(
      `symbolic shapes: ${symbolicShapes.symbols} symbols, ${symbolicShapes.guards} guards, ${symbolicShapes.specializations} specialised to a constant`,
    );
  }
  if (analysis.compileSeconds !== null) lines.push(`compile time: ${analysis.compileSeconds.total.toFixed(1)} s`);
  if (cache.hits + cache.misses + cache.bypasses > 0)
    lines.push(`compile cache: ${cache.hits} hits, ${cache.misses} misses, ${cache.bypasses} bypasses`);
  if (analysis.missingCompileIds.length > 0)
    lines.push(`missing from the log: ${analysis.missingCompileIds.slice(0, MOST_ROWS).join(", ")}`);
  return lines;
}

function tables(analysis: LogAnalysis): { title: string; rows: [string, number][] }[] {
  const values = analysis.valuesSeen.map((row): [string, number] => [
    `${row.function}: ${row.guard}${row.values.length === 0 ? "" : `   values ${row.values.slice(0, MOST_VALUES).join(", ")}`}`,
    row.count,
  ]);
  return [
    { title: "Recompiles by function", rows: top(analysis.recompiles.byFunction) },
    { title: "Recompiles by place", rows: top(analysis.recompiles.byLocation) },
    { title: "Guards that failed", rows: values.slice(0, MOST_ROWS) },
    { title: "Graph breaks by reason", rows: top(analysis.graphBreaks.byReason) },
    { title: "Graph breaks by place", rows: top(analysis.graphBreaks.byLocation) },
    { title: "CUDA graph skips by cause", rows: top(analysis.cudagraphSkips.byCause) },
    { title: "Fallbacks", rows: top(analysis.fallbacks) },
    { title: "Performance hints", rows: top(analysis.performanceHints) },
  ].filter(({ rows }) => rows.length > 0);
}

function top(counts: Counts): [string, number][] {
  return Object.entries(counts)
    .sort((a, b) => b[1] - a[1])
    .slice(0, MOST_ROWS);
}

function wrapped(text: string, columns: number, indent: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent.length + line.length + 1 + word.length > columns) {
      lines.push(indent + line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, indent + line];
}

function indented(text: string, indent: string): string[] {
  return text.split("\n").map((line) => indent + line);
}

function shortened(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, Math.max(length - 4, 1))} ...`;
}

/** As code in Markdown, whatever is in it; also inside a table. */
function code(text: string): string {
  const safe = text.replaceAll("\n", " ").replaceAll("|", "\\|");
  return safe.includes("`") ? `\`\` ${safe} \`\`` : `\`${safe}\``;
}
