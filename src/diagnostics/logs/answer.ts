/**
 * The answer of the log analyser: its JSON form, whose field names scripts rely on, as a schema and as types. Knows no logs.
 */
import { z } from "zod";
import { CAUSES, SEVERITIES } from "./causes.js";

const count = z.number().int().nonnegative();
/** Counts by key, most frequent first. */
const counts = z.record(z.string(), z.number().nonnegative()).readonly();
const texts = z.array(z.string()).readonly();

export const rootCauseSchema = z
  .strictObject({
    cause: z.enum(CAUSES),
    kind: z.string().describe('Variety of the cause, which decides the explanation: "cache-index", "global", "item" ...'),
    function: z.string().describe("Function most concerned, empty when the log names none."),
    location: z.string().describe('"file:line" most concerned, empty when the log shows none.'),
    evidence: texts.describe('What was seen, in plain words, then lines of the log as "input:line: text".'),
    severity: z.enum(SEVERITIES),
    fix: z.string().describe("What to change, in plain words."),
    title: z.string(),
    explanation: z.string().describe("Why it costs time."),
    example: z.string().describe("A few lines of code that show the change."),
    pattern: z.string().describe("Section of docs/patterns.md."),
    occurrences: count.describe("Recompiles, breaks, skips and errors this cause accounts for."),
  })
  .readonly();

export const valuesSeenSchema = z
  .strictObject({
    function: z.string(),
    location: z.string(),
    guard: z.string().describe('The guard with its values replaced by "*".'),
    count,
    values: texts.describe("In order of appearance, at most 32."),
  })
  .readonly();

export const logAnalysisSchema = z
  .strictObject({
    recompiles: z.strictObject({ total: count, byFunction: counts, byReason: counts, byLocation: counts }).readonly(),
    recompileLimitHits: z.strictObject({ total: count, byFunction: counts, byLimit: counts, lastReasons: texts }).readonly(),
    graphBreaks: z.strictObject({ total: count, byReason: counts, byLocation: counts }).readonly(),
    cudagraphSkips: z.strictObject({ total: count, byCause: counts }).readonly(),
    cudagraphPartitions: count,
    rootCauses: z.array(rootCauseSchema).readonly().describe("Worst first; empty when there is nothing to do."),
    unrecognisedLines: count.describe("Lines that neither PyTorch nor this package wrote."),

    lines: count,
    inputs: texts,
    processes: texts.describe("Ranks and process ids that wrote compiler lines."),
    valuesSeen: z.array(valuesSeenSchema).readonly(),
    phases: z
      .strictObject({ firstRun: count, steady: count })
      .readonly()
      .describe("Recompiles while functions were still compiled for the first time, and after the last of those."),
    overwrittenOutputs: count,
    symbolicShapes: z.strictObject({ symbols: count, guards: count, specializations: count }).readonly(),
    compileSeconds: z
      .strictObject({ total: z.number().nonnegative(), byFunction: counts })
      .readonly()
      .nullable()
      .describe("Null when the log has no compile times (only structured traces have)."),
    cache: z.strictObject({ hits: count, misses: count, bypasses: count }).readonly(),
    fallbacks: counts,
    performanceHints: counts,
    missingCompileIds: texts.describe("Recompiles that must have happened but are not in the log: it was cut."),
    trace: z
      .strictObject({ records: count, damagedPayloads: count })
      .readonly()
      .describe("Records of a structured trace, and payloads that do not match their checksum."),
    notes: texts.describe("What a reader of the counts should know."),
  })
  .readonly();

export type Counts = z.infer<typeof counts>;
/** One reason for recompiles, graph breaks or skipped captures, with its evidence and what to change. */
export type RootCause = z.infer<typeof rootCauseSchema>;
export type ValuesSeen = z.infer<typeof valuesSeenSchema>;
/** What a reading of logs found: counts, root causes and lines that were not understood. The form of `tempograph analyze --json`. */
export type LogAnalysis = z.infer<typeof logAnalysisSchema>;
