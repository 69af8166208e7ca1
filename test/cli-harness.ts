/**
 * Runs commands inside the test process on a fake model, and makes temporary files.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { onTestFinished } from "vitest";
import type { CliContext } from "../src/cli/context.js";
import { runProgram } from "../src/cli/program.js";
import { Forecaster } from "../src/index.js";
import { FakeModel, type FakeModelOptions } from "./forecast-fake-model.js";

export interface CliRun {
  readonly code: number;
  readonly out: string;
  readonly error: string;
  readonly loads: readonly { reference: string; options: unknown }[];
  readonly models: readonly FakeModel[];
}

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "tempograph-cli-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A CSV with hourly stamps and two numeric columns. */
export function exampleCsv(folder: string, rows = 72, name = "plant.csv"): string {
  const lines = Array.from({ length: rows }, (_, step) => {
    const stamp = new Date(Date.UTC(2024, 0, 1, step)).toISOString().replace(".000Z", "Z");
    return `${stamp},${(100 + 10 * Math.sin((step / 24) * 2 * Math.PI)).toFixed(3)},${step}`;
  });
  const path = join(folder, name);
  writeFileSync(path, `time,load,count\n${lines.join("\n")}\n`);
  return path;
}

export async function runCli(words: readonly string[], changes: Partial<CliContext> & { model?: FakeModelOptions } = {}): Promise<CliRun> {
  const { model, ...context } = changes;
  let out = "";
  let error = "";
  const loads: { reference: string; options: unknown }[] = [];
  const models: FakeModel[] = [];
  const code = await runProgram(words, {
    writeOut: (text) => void (out += text),
    writeError: (text) => void (error += text),
    standardInput: () => Readable.from([]),
    environment: {},
    folder: tmpdir(),
    terminal: { columns: 80, colours: false },
    signal: new AbortController().signal,
    load: (reference, options) => {
      loads.push({ reference, options });
      const fake = new FakeModel(model);
      models.push(fake);
      return Promise.resolve(Forecaster.fromModel(fake, 3));
    },
    ...context,
  });
  return { code, out, error, loads, models };
}
