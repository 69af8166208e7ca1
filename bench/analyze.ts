/**
 * Throughput and memory of the log analyser on synthetic logs: PyTorch's text logs of many processes with application lines between.
 * `node bench/analyze.js [guards|recompiles] [MEGABYTES] [JSON FILE]`. `guards` is mostly guard tables, as TORCH_LOGS=guards writes them;
 * `recompiles` is mostly recompiles with all their failed guards. Prints one line of JSON, adds it to the file; asserts nothing.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { Readable } from "node:stream";
import { analyzeLogs } from "../src/diagnostics/logs/analyze.js";

const MEGABYTE = 1_000_000;
const CHUNK_BYTES = 1 << 18;

type Mix = "guards" | "recompiles";

/** Guard tables and failed guards per block. */
const SHARES: Readonly<Record<Mix, { guards: number; failed: number }>> = {
  guards: { guards: 24, failed: 1 },
  recompiles: { guards: 0, failed: 8 },
};

/** One block of log of process `pid`: guards, a recompile, a graph break, application lines. */
function block(mix: Mix, pid: number, step: number): string {
  const head = (source: string, artifact: string): string =>
    `V1121 03:48:${String(10 + (step % 50))}.428000 ${pid} ${source}] [${step % 40}/${step % 8}]${artifact}`;
  const guards = head("torch/_dynamo/guards.py:5307", " [__guards]");
  const recompiles = head("torch/_dynamo/guards.py:6374", " [__recompiles]");
  const breaks = head("torch/_dynamo/symbolic_convert.py:5577", " [__graph_breaks]");
  const lines: string[] = [];
  for (let guard = 0; guard < SHARES[mix].guards; guard += 1) {
    lines.push(
      `${guards} | +- GuardManager: source=L['self']._modules['layers']._modules['${guard}'].weight, accessed_by=DictGetItemGuardAccessor, type=<class 'torch.nn.Parameter'>`,
    );
  }
  lines.push(
    `${recompiles} Recompiling function forward in /srv/app/model/layer${step % 12}.py:121`,
    `${recompiles}     triggered by the following guard failure(s):`,
    ...Array.from(
      { length: SHARES[mix].failed },
      (_, variant) =>
        `${recompiles}     - 6/${variant}: cache._current_idx[${step % 12}] == ${(step + variant) % 100}                    # k, v = cache[layer]  # srv/app/model/layer.py:124 in forward`,
    ),
    `${breaks} Graph break in user code at /srv/app/model/util.py:${100 + (step % 30)}`,
    `${breaks} Graph Break Reason: Encountered graph break when attempting to trace CALL: a function call, e.g. f(x, y):`,
    `${breaks} `,
    `${breaks} Unsupported Tensor.item() call with capture_scalar_outputs=False`,
    `${breaks}   Explanation: Dynamo does not support tracing \`Tensor.item()\` with config.capture_scalar_outputs=False.`,
  );
  for (let line = 0; line < 8; line += 1)
    lines.push(
      `2025-11-21 03:48:10,114 INFO trader: forecast SYMBOL${line} step ${step} done in 0.${step % 1000}s, samples=256 horizon=96`,
    );
  return `${lines.join("\n")}\n`;
}

function* chunks(mix: Mix, bytes: number): Generator<Buffer, void, void> {
  // A few hundred different blocks, repeated: making the text must not be what is measured.
  const blocks = Array.from({ length: 400 }, (_, step) => Buffer.from(block(mix, 4000 + (step % 8), step)));
  let done = 0;
  let pending: Buffer[] = [];
  let length = 0;
  for (let index = 0; done < bytes; index += 1) {
    const next = blocks[index % blocks.length] ?? Buffer.alloc(0);
    pending.push(next);
    length += next.length;
    if (length < CHUNK_BYTES) continue;
    done += length;
    yield Buffer.concat(pending);
    pending = [];
    length = 0;
  }
}

const mix: Mix = process.argv[2] === "recompiles" ? "recompiles" : "guards";
const megabytes = Number(process.argv[3] ?? 1000);
let peak = 0;
const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 50);
const started = process.hrtime.bigint();
const analysis = await analyzeLogs([
  { name: "synthetic", stream: Readable.from(chunks(mix, megabytes * MEGABYTE), { objectMode: true, highWaterMark: 2 }) },
]);
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
clearInterval(watch);
peak = Math.max(peak, process.memoryUsage.rss());
const result = {
  mix,
  megabytes,
  lines: analysis.lines,
  recompiles: analysis.recompiles.total,
  seconds: Number(seconds.toFixed(2)),
  megabytesPerSecond: Math.round(megabytes / seconds),
  peakMegabytes: Math.round(peak / MEGABYTE),
};
console.log(JSON.stringify(result));

const file = process.argv[4];
if (file !== undefined) {
  const before = existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as { results: (typeof result)[] }).results : [];
  const machine = { cpu: cpus()[0]?.model ?? "unknown", cores: cpus().length, node: process.version };
  writeFileSync(file, `${JSON.stringify({ machine, results: [...before, result] }, null, 2)}\n`);
}
