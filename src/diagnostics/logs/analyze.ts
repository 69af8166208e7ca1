/**
 * The log analyser: reads compiler logs of PyTorch and of this package and says what to change.
 * Entry of this folder: `analyzeLogs` for files and streams, `analyzeLogText` for text at hand.
 */
import type { LogAnalysis } from "./answer.js";
import { Ledger } from "./ledger.js";
import { LineRouter } from "./line-router.js";
import { findRootCauses } from "./root-causes.js";
import { openLog } from "./source.js";
import type { LogInput } from "./source.js";

/** Takes text as it comes; memory is bounded by the number of different events, not by the length of the log. */
export class LogAnalyzer {
  private readonly ledger = new Ledger();
  private readonly router = new LineRouter(this.ledger);
  private readonly inputs: string[] = [];
  private readonly notes: string[] = [];

  /** What follows is of the input `name`. */
  startInput(name: string): void {
    this.inputs.push(name);
    this.router.startSource(name);
  }

  /** Whole lines: `text` starts at the start of a line and ends at the end of one. */
  addLines(text: string): void {
    let start = 0;
    while (start < text.length) {
      const newline = text.indexOf("\n", start);
      const end = newline < 0 ? text.length : newline;
      this.router.line(text.slice(start, end));
      start = end + 1;
    }
  }

  note(text: string): void {
    this.notes.push(text);
  }

  finish(): LogAnalysis {
    this.router.finish();
    const { router, ledger } = this;
    const tally = ledger.tally();
    const notes = [...this.notes];
    if (tally.missingCompileIds.length > 0) notes.push(`the log was cut: ${tally.missingCompileIds.length} recompiles are missing from it`);
    if (router.trace.damagedPayloads > 0) notes.push(`${router.trace.damagedPayloads} payloads of the trace do not match their checksum`);
    if (router.recognised === 0)
      notes.push("no compiler lines found; PyTorch writes them with TORCH_LOGS=recompiles,graph_breaks,cudagraphs");
    else if (tally.recompileLimitHits.total > 0 && tally.recompiles.total === 0) {
      notes.push("the log shows a limit hit but no recompiles: run with TORCH_LOGS=recompiles,graph_breaks to see the rest");
    }
    return {
      recompiles: tally.recompiles,
      recompileLimitHits: tally.recompileLimitHits,
      graphBreaks: tally.graphBreaks,
      cudagraphSkips: tally.cudagraphSkips,
      cudagraphPartitions: tally.cudagraphPartitions,
      rootCauses: findRootCauses(ledger),
      unrecognisedLines: router.unrecognised,
      lines: router.lines,
      inputs: this.inputs,
      processes: tally.processes,
      valuesSeen: tally.valuesSeen,
      phases: tally.phases,
      overwrittenOutputs: tally.overwrittenOutputs,
      symbolicShapes: tally.symbolicShapes,
      compileSeconds: tally.compileSeconds,
      cache: tally.cache,
      fallbacks: tally.fallbacks,
      performanceHints: tally.performanceHints,
      missingCompileIds: tally.missingCompileIds,
      trace: { records: router.trace.records, damagedPayloads: router.trace.damagedPayloads },
      notes,
    };
  }
}

/**
 * Analyses logs together, in the order given.
 * `inputs`: paths (plain or gzip), "-" for stdin, or streams. Throws `InputError` for what is missing, empty, binary or a folder.
 */
export async function analyzeLogs(inputs: readonly LogInput[]): Promise<LogAnalysis> {
  const analyzer = new LogAnalyzer();
  for (const input of inputs) {
    const log = openLog(input);
    analyzer.startInput(log.name);
    for await (const text of log.text()) analyzer.addLines(text);
    for (const note of log.notes) analyzer.note(note);
  }
  return analyzer.finish();
}

/** Analyses text that is already in memory. Never throws. */
export function analyzeLogText(text: string, name = "text"): LogAnalysis {
  const analyzer = new LogAnalyzer();
  analyzer.startInput(name);
  analyzer.addLines(text);
  return analyzer.finish();
}
