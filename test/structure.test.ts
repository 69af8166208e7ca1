/** Structure: how many kernels, launches and foreign calls a layer takes, what is computed for rows nobody reads, and what inner loops are made of. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { queryGroup, together, valueVectors } from "../src/codegen/attention-functions.js";
import { isaTable } from "../src/codegen/helpers.js";
import { usualContractionSchedule } from "../src/codegen/schedule.js";
import { evaluateDim, sizeVar } from "../src/ir/dim.js";
import type { CompiledGraph, Device } from "../src/runtime/device.js";
import { findCompiler } from "../src/runtime/native/compiler.js";
import { compilerFlags } from "../src/runtime/native/cpu.js";
import { compile, rmsNorm, Tensor } from "../src/tensor/index.js";
import { openDevice, size } from "../src/trace/entry.js";
import { CaseBuilder, compileTogether, integers, noise, type GraphCase } from "./graph-harness.js";
import { decoderLayer, layerArguments } from "./structure-layer.js";

const device = openDevice("native").device;
const folder = mkdtempSync(join(tmpdir(), "tempograph-structure-"));
const dumped = process.env["TEMPOGRAPH_DUMP"];
beforeAll(() => void (process.env["TEMPOGRAPH_DUMP"] = folder));
afterAll(() => {
  if (dumped === undefined) delete process.env["TEMPOGRAPH_DUMP"];
  else process.env["TEMPOGRAPH_DUMP"] = dumped;
  rmSync(folder, { recursive: true, force: true });
});

const dump = (name: string, file: string): string => readFileSync(join(folder, name, file), "utf8");

describe("a decoder layer", () => {
  const dynamic = { tokens: [1, 512] as const };

  it("is six kernels, one foreign call when captured, one per launch otherwise", () => {
    const calls = { eager: 18, default: 6, "reduce-overhead": 1 };
    const bits = new Set<string>();
    for (const mode of ["eager", "default", "reduce-overhead"] as const) {
      const layer = decoderLayer(device, "layer");
      const step = compile(layer, { device, mode, dynamic, name: `layer_${mode}` });
      bits.add(Buffer.from(step(...layerArguments(9)).data().buffer).toString("hex"));
      const report = step.report();
      expect(report.specializations).toHaveLength(1);
      expect(report.specializations[0]).toMatchObject(mode === "eager" ? { launches: 18 } : { kernels: 6, launches: 6 });
      expect(report).toMatchObject({ foreignCalls: calls[mode], capturedCalls: mode === "reduce-overhead" ? 1 : 0, graphBreaks: 0 });
      step.dispose();
      for (const state of layer.states) state.dispose();
    }
    expect(bits.size).toBe(1);
    expect(
      dump("layer_default-default", "30-kernels.txt")
        .split("\n")
        .map((line) => line.split(" ").slice(2, 4).join(" ")),
    ).toEqual([
      "contraction rmsNorm_linear_96x96_96_96:",
      "rows rope_appendKeys_appendValues_rope_4x24:",
      "attention attention_4x24:",
      "contraction linear_add_96x96:",
      "contraction rmsNorm_linear_silu_mul_96x320:",
      "contraction linear_add_160x96:",
      "",
    ]);
  });

  it("twice is twelve launches of the same six kernels, in an arena smaller than all its values", () => {
    const layers = [decoderLayer(device, "first"), decoderLayer(device, "second")] as const;
    const step = compile(
      (...args: Parameters<(typeof layers)[0]>) => layers[1](layers[0](...args), ...(args.slice(1) as [Tensor, Tensor, Tensor])),
      {
        device,
        mode: "reduce-overhead",
        dynamic,
        name: "layers",
      },
    );
    step(...layerArguments(300));
    const [one] = step.report().specializations;
    expect(one).toMatchObject({ kernels: 6, launches: 12, foreignCalls: 1 });
    const values = [...dump("layers-reduce-overhead", "50-plan.txt").matchAll(/b\d+ (\d+)\*tokens bytes/g)].reduce(
      (sum, [, bytes]) => sum + Number(bytes) * 300,
      0,
    );
    expect(one?.arenaBytes).toBeLessThan(0.7 * values);
    step(...layerArguments(17));
    step(...layerArguments(400));
    expect(step.report()).toMatchObject({ compiles: 1, recompiles: 0, foreignCalls: 3 });
  });
});

describe("graphs", () => {
  it("print as text that can be compared", () => {
    const step = compile(
      (x: Tensor, by: number | Tensor) =>
        rmsNorm(x.mul(by as Tensor), undefined, 1e-6)
          .add(x.mul(by as Tensor))
          .sum(),
      { device, dynamic: { rows: [1, 8] }, name: "small" },
    );
    step(Tensor.from(new Float32Array(6).fill(1), [size("rows", 2), 3]), 2);
    expect(dump("small-default", "10-trace.txt")).toMatchInlineSnapshot(`
      "graph small
        %0 = input() name="arguments[0]" -> f32[rows, 3]  # arguments[0]
        %1 = input() name="arguments[1]" -> f32[]  # arguments[1]
        %2 = mul(%0, %1) -> f32[rows, 3]
        %3 = rmsNorm(%2) epsilon=0.000001 -> f32[rows, 3]
        %4 = add(%3, %2) -> f32[rows, 3]
        %5 = sum(%4) -> f32[rows, 1]
        return out0=%5
      "
    `);
  });

  it("compute only the rows that are selected", () => {
    const [rows, picked] = [sizeVar("rows", 0, 4096), sizeVar("picked", 0, 4096)];
    const c = new CaseBuilder("pruned");
    const x = c.f32([rows, 32], noise(1));
    const y = c.add("linear", [c.add("rmsNorm", [x], { epsilon: 1e-6 })], {}, [c.weight(40, 32, noise(2))]);
    const z = c.add("linear", [c.add("silu", [y])], {}, [c.weight(8, 40, noise(3))]);
    c.output(c.add("gatherRows", [z, c.i32([picked], integers(4, 0, 99))]));
    const { graph } = c.finish([]);
    const compiled = compileTogether("pruned", device, [{ ...c.finish([]), graph }], ["eager", "default"]);
    const flops = (mode: "eager" | "default"): number =>
      ((compiled.get(mode) as CompiledGraph[])[0] as CompiledGraph).program.launches.reduce(
        (sum, launch) => sum + evaluateDim(launch.flops, { rows: 1000, picked: 10 }),
        0,
      );
    const perRow = 2 * (32 * 40 + 40 * 8);
    expect([flops("eager"), flops("default")]).toEqual([1000 * perRow, 10 * perRow]);
  });
});

/** Instructions of the loops of one function, each from the target of a backward jump to the jump: of those that hold an fma the innermost only, whatever else they hold. */
function loopsOf(disassembly: string, name: string): string[][] {
  const body = new RegExp(`<${name}[.\\w]*>:\\n([^]*?)\\n\\n`).exec(`${disassembly}\n\n`)?.[1] ?? "";
  const lines = body.split("\n").flatMap((line) => {
    const match = /^\s*([0-9a-f]+):\s+(.*)$/.exec(line);
    return match ? [{ address: parseInt(match[1] as string, 16), text: match[2] as string }] : [];
  });
  const loops = lines.flatMap(({ address, text }, end) => {
    const target = parseInt(/^j\w+\s+([0-9a-f]+)/.exec(text)?.[1] ?? "", 16);
    const start = lines.findIndex((line) => line.address === target);
    const computes = start >= 0 && lines.slice(start, end).some((line) => line.text.startsWith("vfmadd"));
    return target < address && computes ? [{ start, end }] : [];
  });
  const innermost = loops.filter((loop) => !loops.some((other) => other !== loop && other.start >= loop.start && other.end <= loop.end));
  return innermost.map(({ start, end }) => lines.slice(start, end + 1).map(({ text }) => text));
}

const objdump = spawnSync("objdump", ["--version"]).status === 0;
const compiler = findCompiler(process.env);

/** Instruction sets of this processor's family: their code can be built and taken apart without being run. */
const wide = (["avx512", "avx2"] as const).map((target) => {
  const why = process.arch !== "x64" ? "not an x86-64 machine" : !objdump ? "no objdump here" : !compiler ? "no C compiler here" : "";
  return { target, on: { name: "native", target } as Device, missing: why !== "", skipped: why ? ` (skipped: ${why})` : "" };
});

/** The machine code of the only kernel of a case. */
function disassembly(target: "avx512" | "avx2", on: Device, one: GraphCase): string {
  const [compiled] = compileTogether(one.name, on, [one], ["default"]).get("default") as [CompiledGraph];
  const [source] = compiled.program.sources;
  const [text, library] = [join(folder, `${one.name}.c`), join(folder, `${one.name}-${target}.so`)];
  writeFileSync(text, source?.text ?? "");
  const { path, leadingArguments } = compiler as NonNullable<typeof compiler>;
  const built = spawnSync(path, [...leadingArguments, ...compilerFlags(target), "-o", library, text], { encoding: "utf8" });
  expect(built.status, built.stderr).toBe(0);
  return spawnSync("objdump", ["-d", "--no-show-raw-insn", library], { encoding: "utf8", maxBuffer: 1 << 28 }).stdout;
}

const fmas = (loop: readonly string[]): number => loop.filter((text) => text.startsWith("vfmadd")).length;
const separate = (loop: readonly string[]): string[] => loop.filter((text) => /^v(mul|add)ps/.test(text));
const spilled = (loop: readonly string[]): string[] =>
  loop.filter((text) => /\(%rsp|\(%rbp/.test(text) && /^vmov\w+\s+%[xyz]mm/.test(text));

describe("the contraction's inner loop", () => {
  for (const { target, on, missing, skipped } of wide)
    for (const [stored, width] of [
      ["f32", 48],
      ["f32", 768],
      ["bf16", 48],
      ["bf16", 768],
    ] as const)
      it.skipIf(missing)(
        `${target}, ${width} columns of ${stored} weights: one fma per vector of the tile, nothing kept on the stack${skipped}`,
        () => {
          const c = new CaseBuilder(`tile_${stored}_${width}`);
          c.output(c.add("linear", [c.f32([sizeVar("rows", 0, 64), 64], noise(1))], {}, [c.weight(width, 64, noise(2), stored)]));
          // Wide ones read rows that lie interleaved; a tile of whole panels is otherwise the highest of the low ones.
          const narrow = isaTable[target].tile.lanes * isaTable[target].tile.vectors < 48;
          const cut = usualContractionSchedule(64, false, target).chunkDepth > 0;
          const full = cut ? (width === 768 ? "piece_interleaved" : narrow ? "piece_full" : "piece_low") : "tile_full";
          const name = stored === "f32" ? full : `${full}_bf16`;
          const all = loopsOf(disassembly(target, on, c.finish([])), name);
          // Of the low tiles, which are one function, the highest.
          const loops = full === "piece_low" ? all.filter((loop) => fmas(loop) === Math.max(...all.map(fmas))) : all;
          const { tile } = isaTable[target];
          // One loop, or one for each part of the panel.
          expect([1, 48 / (tile.vectors * tile.lanes)]).toContain(loops.length);
          for (const loop of loops) {
            const steps = fmas(loop) / (tile.rows * tile.vectors);
            expect(Number.isInteger(steps) && steps > 0, `${fmas(loop)} fmas`).toBe(true);
            expect(separate(loop)).toEqual([]);
            expect(spilled(loop)).toEqual([]);
            // Widening is two instructions for each vector of weights, none for f32.
            for (const instruction of ["vpmovzxwd", "vpslld"])
              expect(loop.filter((text) => text.startsWith(instruction))).toHaveLength(stored === "bf16" ? steps * tile.vectors : 0);
          }
        },
      );

  const narrow = wide.filter(({ target }) => usualContractionSchedule(64, false, target).prefetchBytes === 0);
  for (const { target, on, missing, skipped } of narrow)
    it.skipIf(missing)(`${target}: one row over two panels, one fma per vector of both, no prefetch between${skipped}`, () => {
      const c = new CaseBuilder("pair");
      c.output(c.add("linear", [c.f32([sizeVar("rows", 0, 64), 64], noise(1))], {}, [c.weight(96, 64, noise(2))]));
      const loops = loopsOf(disassembly(target, on, c.finish([])), "tile_pair");
      expect(loops).toHaveLength(1);
      const [loop] = loops as [string[]];
      expect(fmas(loop) % (96 / isaTable[target].tile.lanes)).toBe(0);
      expect([...separate(loop), ...spilled(loop), ...loop.filter((text) => text.startsWith("prefetch"))]).toEqual([]);
    });
});

describe("the attention's inner loops", () => {
  for (const { target, on, missing, skipped } of wide)
    it.skipIf(missing)(`${target}: one fma per score vector and per value vector, for one query and for a group${skipped}`, () => {
      const [tokens, keys] = [sizeVar("tokens", 0, 64), sizeVar("keys", 0, 64)];
      const [heads, width, blocks, stored] = [2, 24, 8, 32];
      const c = new CaseBuilder("attention", { keys: 3 });
      const cache = [
        c.state([keys, heads, blocks, width, 16], "f32", noise(1)),
        c.state([keys, heads, 16 * blocks, stored], "f32", noise(2)),
      ];
      const vectors = [c.i32([tokens], integers(3, 0, 2)), c.i32([tokens], integers(4, 1, 100))];
      const prefix = [c.i32([tokens], integers(5, 0, 2)), c.i32([tokens], integers(6, 0, 100))];
      const query = c.f32([tokens, heads, width], noise(7));
      c.output(c.add("attention", [query, ...vectors, ...prefix], { scale: 0.25, valueWidth: width }, [...cache, ...cache]));
      const code = disassembly(target, on, c.finish([]));
      const parts = 16 / isaTable[target].tile.lanes;
      const { joint, single, values, turn: steps } = together[target];
      const all = valueVectors(stored);
      // Loops of the functions for one query and for a group, by what a step computes: a full one, and where it differs the rest.
      const expected = {
        [`scores_${width}_one`]: [single, 1],
        [`weigh_${width}_one`]: [all],
        [`scores_${width}_apart`]: [queryGroup],
        [`scores_${width}_group`]: [queryGroup * joint, queryGroup],
        [`weigh_${width}_group`]: [queryGroup * Math.min(values, all)],
      };
      for (const [name, counts] of Object.entries(expected)) {
        const chains = loopsOf(code, name).filter((loop) => separate(loop).length === 0);
        for (const loop of chains) expect(spilled(loop), name).toEqual([]);
        const found = [...new Set(chains.map((loop) => fmas(loop) / parts))];
        // Several steps in one turn, except where every query has keys of its own; what is left of a turn may be a loop too.
        const turn = name.endsWith("_apart") ? 1 : steps;
        expect(found, name).toEqual(expect.arrayContaining(counts.map((count) => count * turn)));
        expect(
          counts.flatMap((count) => [count, count * turn]),
          name,
        ).toEqual(expect.arrayContaining(found));
      }
    });
});
