/**
 * Key-value cache strategies: equal bits, equal contents, and the counts of recompiles, graph breaks, fallbacks and copies that set them apart. The table of
 * docs/kv-caches.md is measured here.
 */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { analyzeLogText } from "../src/diagnostics/logs/analyze.js";
import type { ModelRequest, ModelSeries } from "../src/models/model.js";
import type { KvCacheStrategy } from "../src/models/options.js";
import type { Toto1Model } from "../src/models/toto1/model.js";
import { cacheStrategies, type CacheStrategyName, type Places } from "../src/nn/caches/index.js";
import { DynamicStore } from "../src/nn/caches/dynamic.js";
import { GrowingStore } from "../src/nn/caches/growing.js";
import { PagedStore } from "../src/nn/caches/paged.js";
import { StaticStore } from "../src/nn/caches/static.js";
import { appendToCache, compile, Tensor } from "../src/tensor/index.js";
import { onEvent, openDevice, printEvent, RecompileError, setStance, size, type CompileEvent } from "../src/trace/entry.js";
import { firstDifference, isAlive, loadToto1, makeSeries, numbersOf, type ModelChoice } from "./toto1-harness.js";

const seed = 29;
const patch = 8;
const steps = 12;
const samples = 3;
const variates = 2;
const timeLayers = 3;
/** Contexts of 13, 5 and 17 patches: beside, below and beyond a block of 16 keys. */
const ragged: ModelSeries[] = [100, 37, 130].map((length, index) => makeSeries({ length, variates, seed: seed + index, stream: index }));
const request: ModelRequest = { series: ragged, horizon: steps * patch, samples, seed: 5 };
const contexts = Int32Array.from(
  ragged.flatMap(({ values }) => new Array<number>(samples * variates).fill(Math.ceil((values[0] as Float32Array).length / patch))),
);
const strategies = Object.keys(cacheStrategies) as CacheStrategyName[];

interface Measured {
  readonly numbers: Float32Array;
  readonly report: ReturnType<Toto1Model["report"]>;
  readonly counters: Toto1Model["cache"]["cacheCounters"];
  readonly contents: Float32Array;
  readonly events: readonly CompileEvent[];
}

/** Predicts with a fresh model and looks at everything it left behind. */
async function measure(choice: ModelChoice, asked = request): Promise<Measured> {
  const events: CompileEvent[] = [];
  const stop = onEvent((event) => events.push(event));
  const model = loadToto1(choice);
  try {
    const numbers = numbersOf(await model.predict(asked));
    const slots = contexts.map((tokens) => (choice.sharePrefix === false ? tokens : tokens % 16) + steps - 1);
    const layers = asked === request ? model.cache.cacheContents(slots) : [];
    const contents = Float32Array.from(layers.flatMap(({ keys, values }) => [...keys, ...values]));
    return { numbers, report: model.report(), counters: model.cache.cacheCounters, contents, events };
  } finally {
    stop();
    model.dispose();
  }
}

const once = new Map<string, Promise<Measured>>();

function measured(kvCache: KvCacheStrategy, sharePrefix = true): Promise<Measured> {
  const key = `${kvCache} ${sharePrefix}`;
  const known = once.get(key) ?? measure({ kvCache, sharePrefix });
  once.set(key, known);
  return known;
}

describe.each(strategies)(`%s (series seed ${seed})`, (kvCache) => {
  test.each([true, false])("the bits and contents of static, shared prefix: %s", async (sharePrefix) => {
    const [own, expected, shared] = [await measured(kvCache, sharePrefix), await measured("static", sharePrefix), await measured("static")];
    expect(isAlive(own.numbers)).toBe(true);
    expect(firstDifference(own.numbers, expected.numbers)).toBeUndefined();
    expect(firstDifference(own.numbers, shared.numbers)).toBeUndefined();
    expect(own.contents.filter((value) => value !== 0).length).toBeGreaterThan(own.contents.length / 2);
    expect(firstDifference(own.contents, expected.contents)).toBeUndefined();
  });

  test("eager and default mode: the same bits", async () => {
    const { numbers } = await measured("static");
    const short = { ...request, horizon: 4 * patch };
    const wanted = await measure({ kvCache: "static" }, short);
    for (const mode of ["eager", "default"] as const) {
      const own = await measure({ kvCache, mode }, short);
      expect(firstDifference(own.numbers, wanted.numbers), mode).toBeUndefined();
    }
    expect(firstDifference(wanted.numbers, numbers)).toBeDefined();
  });

  test("the reference device agrees with itself bit for bit", async () => {
    const tiny: ModelRequest = { series: [ragged[1] as ModelSeries], horizon: 3 * patch, samples: 2, seed: 5 };
    const own = await measure({ kvCache, device: "reference" }, tiny);
    const expected = await measure({ kvCache: "static", device: "reference" }, tiny);
    expect(isAlive(own.numbers)).toBe(true);
    expect(firstDifference(own.numbers, expected.numbers)).toBeUndefined();
  });
});

describe("the table of docs/kv-caches.md", () => {
  const text = readFileSync(new URL("../docs/kv-caches.md", import.meta.url), "utf8");
  const rows = [...text.matchAll(/^\| (\w+) +\| (\d+) +\| (\d+) +\| (\d+) +\| (\d+) +\| (no|every step|per doubling) +\|$/gm)].map(
    (match) => match.slice(1) as string[],
  );

  test("has a row for every strategy", () => {
    expect(rows.map(([name]) => name).sort()).toEqual([...strategies, "none"].sort());
  });

  test.each(rows)("%s: %s compiles, %s recompiles, %s breaks, %s fallbacks, copies: %s", async (name, ...expected) => {
    const { report, counters } = await measured(name as KvCacheStrategy);
    const { compiles, recompiles, graphBreaks, fallbacks } = report;
    expect([compiles, recompiles, graphBreaks, fallbacks].map(String)).toEqual(expected.slice(0, 4));
    expect(counters.copiedBytes > 0).toBe(expected[4] !== "no");
    expect(report.steps).toBe(steps);
  });
});

describe("none", () => {
  test("recomputes the context: the first patch has the bits of a cache, later ones have another rotary centre", async () => {
    const first = { ...request, horizon: patch };
    const [none, cached] = [await measure({ kvCache: "none" }, first), await measure({ kvCache: "static" }, first)];
    expect(firstDifference(none.numbers, cached.numbers)).toBeUndefined();
    expect(firstDifference((await measured("none")).numbers, (await measured("static")).numbers)).toBeDefined();
  });
});

describe("growing shows the disease", () => {
  test("a guard miss per step that names the guard, both values and the source line, then the limit, once, then eager", async () => {
    const { events } = await measured("growing");
    const of = (stream: string): CompileEvent[] => events.filter((event) => event.stream === stream);
    const recompiles = of("recompiles");
    // The shared prefix ends at slot 13 of its block in the longest suffix, so the first step is compiled for 13.
    expect(recompiles.map(({ fields }) => [fields["guard"], fields["was"], fields["now"], fields["count"]])).toEqual(
      Array.from({ length: 8 }, (_, miss) => [
        `arguments[0].cache.position == ${13 + miss}`,
        `== ${13 + miss}`,
        `== ${14 + miss}`,
        miss + 1,
      ]),
    );
    for (const { function: name, location } of recompiles) {
      expect(name).toBe("toto1.decode");
      expect(location).toMatch(/^src\/models\/toto1\/decode\.ts:\d+$/);
    }
    expect(of("recompile_limit").map(({ fields }) => [fields["limit"], fields["last"]])).toEqual([
      [8, "arguments[0].cache.position == 21"],
    ]);
    expect(of("fallback").map(({ fields }) => fields["guard"])).toEqual(
      [21, 22].map((position) => `arguments[0].cache.position == ${position}`),
    );
  });

  test("the analyser finds the KV cache in its log", async () => {
    const { events } = await measured("growing");
    const analysis = analyzeLogText(events.map(printEvent).join("\n"), "growing.log");
    expect(analysis.recompiles.total).toBe(8);
    expect(analysis.recompileLimitHits.total).toBe(1);
    expect(analysis.unrecognisedLines).toBe(0);
    const [cause] = analysis.rootCauses;
    expect(cause).toMatchObject({ cause: "python-value-guard", kind: "cache-index", function: "toto1.decode", severity: "bad" });
    expect(cause?.location).toMatch(/^src\/models\/toto1\/decode\.ts:\d+$/);
    expect(`${cause?.title} ${cause?.explanation} ${cause?.fix}`).toMatch(/KV cache/i);
    expect(analysis.rootCauses).toHaveLength(1);
  });

  test("the analyser finds nothing bad in the log of static", async () => {
    const { events } = await measured("static");
    expect(analyzeLogText(events.map(printEvent).join("\n"), "static.log").rootCauses).toEqual([]);
  });

  test("fail_on_recompile stops it, and lets static run", async () => {
    const models = { growing: loadToto1({ kvCache: "growing" }), static: loadToto1({ kvCache: "static" }) };
    try {
      const two = { ...request, horizon: 2 * patch };
      await models.growing.predict(two);
      await models.static.predict(two);
      const before = setStance("fail_on_recompile");
      try {
        await expect(models.static.predict(request)).resolves.toHaveLength(ragged.length);
        await expect(models.growing.predict(request)).rejects.toThrow(RecompileError);
        await expect(models.growing.predict(request)).rejects.toThrow(/position == 13 failed \(was == 13, now == 14, src/);
      } finally {
        setStance(before);
      }
    } finally {
      models.growing.dispose();
      models.static.dispose();
    }
  });
});

describe("host", () => {
  test("each break names the line that attends, layer by layer", async () => {
    const { events } = await measured("host");
    const breaks = events.filter(({ stream }) => stream === "graph_breaks");
    expect(breaks).toHaveLength(timeLayers * (steps - 1));
    expect(new Set(breaks.map(({ location }) => location)).size).toBe(1);
    expect(breaks[0]?.location).toMatch(/^src\/models\/toto1\/forward\.ts:\d+$/);
  });
});

describe("other sizes are data", () => {
  const others: ModelRequest[] = [
    { series: ragged.slice(0, 1), horizon: 40, samples: 7, seed: 1 },
    { series: [...ragged, ...ragged], horizon: 25 * patch, samples: 2, seed: 1 },
  ];
  test.each(["functional", "static", "dynamic", "host", "paged"] as const)(
    "%s: 0 recompiles over requests of other sizes",
    async (kvCache) => {
      const model = loadToto1({ kvCache });
      const plain = loadToto1({ kvCache: "static" });
      try {
        await model.predict(request);
        for (const other of others)
          expect(firstDifference(numbersOf(await model.predict(other)), numbersOf(await plain.predict(other)))).toBeUndefined();
        expect(model.report()).toMatchObject({ compiles: 2, recompiles: 0, fallbacks: 0 });
      } finally {
        model.dispose();
        plain.dispose();
      }
    },
  );
});

const { device } = openDevice("native");
const shape = { layers: 2, heads: 2, keyWidth: 8, valueWidth: 8 };
const ints = (values: readonly number[], axis = "tokens"): Tensor => Tensor.from(Int32Array.from(values), [size(axis, values.length)]);
const at = (row: readonly number[], slot: readonly number[]): Places => ({
  row: ints(row),
  slot: ints(slot),
  length: ints(slot.map((s) => s + 1)),
});

describe("stores", () => {
  test("dynamic doubles and keeps its contents", () => {
    const store = new DynamicStore(device, "grown", shape);
    try {
      store.begin(Int32Array.of(100, 100));
      const step = compile(
        (cache: ReturnType<DynamicStore["arguments"]>, k: Tensor, places: Places) => {
          cache.layers.forEach((layer) => appendToCache(layer as never, k, k, places.row, places.slot));
          return k.add(0);
        },
        { device, dynamic: { tokens: [1, 64] } },
      );
      for (let slot = 0; slot < 100; slot++) {
        const places = at([0, 1], [slot, slot]);
        const k = Tensor.from(
          Float32Array.from({ length: 2 * 16 }, (_, i) => slot * 100 + i),
          [size("tokens", 2), 2, 8],
        );
        step(store.arguments(places), k, places);
      }
      expect(step.report()).toMatchObject({ compiles: 1, recompiles: 0, graphBreaks: 0, fallbacks: 0 });
      // 16 slots at first; 32, 64 and 128 after.
      expect(store.rebinds).toBe(3);
      const { keys, values } = store.contents(1, Int32Array.of(100, 50));
      expect(keys).toEqual(values);
      const wanted: number[] = [];
      for (const [row, count] of [
        [0, 100],
        [1, 50],
      ] as const)
        for (let head = 0; head < 2; head++)
          for (let slot = 0; slot < count; slot++) for (let j = 0; j < 8; j++) wanted.push(slot * 100 + row * 16 + head * 8 + j);
      expect([...keys]).toEqual(wanted);
      step.dispose();
    } finally {
      store.dispose();
    }
  });

  test("paged: rows of unlike length take the blocks they use, static the longest for all", () => {
    const slots = Int32Array.of(500, ...new Array<number>(31).fill(10));
    const [paged, plain] = [new PagedStore(device, "pages", shape), new StaticStore(device, "rows", shape)];
    try {
      paged.begin(slots);
      plain.begin(slots);
      expect(plain.bytes / paged.bytes).toBeGreaterThan(10);
      expect(paged.usedPages).toBe(0);
      paged.arguments(at([0, 3, 3, 7], [0, 0, 1, 9]));
      expect(paged.usedPages).toBe(3);
      paged.arguments(at([0, 3], [16, 2]));
      expect(paged.usedPages).toBe(4);
      expect(() => paged.arguments(at([5], [40]))).not.toThrow();
      expect(() => paged.arguments(at([40], [0]))).toThrow(/paged cache "pages" .* row 40 has no room for slot 0/);
      expect(() => paged.arguments(at([0], [512]))).toThrow(/row 0 has no room for slot 512/);
    } finally {
      paged.dispose();
      plain.dispose();
    }
  });

  test("static and growing refuse what they have no room for", () => {
    const [plain, growing] = [new StaticStore(device, "fixed", shape), new GrowingStore(device, "long", shape)];
    try {
      plain.begin(Int32Array.of(20));
      expect(() => plain.arguments(at([0], [31]))).not.toThrow();
      expect(() => plain.arguments(at([0], [32]))).toThrow(/"fixed" was begun with room for 32 keys per row and cannot take key 33/);
      growing.begin(Int32Array.of(20));
      growing.arguments(at([0], [4]));
      expect(() => growing.arguments(at([0], [6]))).toThrow(/"long" holds 4 slots; the next token goes to slot 6/);
    } finally {
      plain.dispose();
      growing.dispose();
    }
  });

  test("a planted fault in a block table is seen", () => {
    const store = new PagedStore(device, "planted", { ...shape, layers: 1 });
    try {
      store.begin(Int32Array.of(40));
      const count = 40;
      const k = Tensor.from(
        Float32Array.from({ length: count * 16 }, (_, i) => Math.sin(i)),
        [size("tokens", count), 2, 8],
      );
      const places = at(
        new Array<number>(count).fill(0),
        Array.from({ length: count }, (_, slot) => slot),
      );
      const step = compile(
        (cache: ReturnType<PagedStore["arguments"]>, x: Tensor, where: Places) =>
          store.attend(cache, 0, { q: x, k: x, v: x }, where, { scale: 0.3, valueWidth: 8 }).attended,
        { device, dynamic: { tokens: [1, 64], ...store.sizes } },
      );
      const cache = store.arguments(places);
      const good = step(cache, k, places).data() as Float32Array;
      const again = step(cache, k, places).data() as Float32Array;
      (cache.table?.data() as Int32Array).reverse();
      const bad = step(cache, k, places).data() as Float32Array;
      expect(firstDifference(again, good)).toBeUndefined();
      expect(firstDifference(bad, good)).toBeDefined();
      step.dispose();
    } finally {
      store.dispose();
    }
  });

  test("attention over a value leaves the old cache as it was", () => {
    const store = cacheStrategies.functional.create(device, "value", { ...shape, layers: 1 });
    store.begin(Int32Array.of(20));
    const places = at([0], [3]);
    const before = store.arguments(places);
    const x = Tensor.from(Float32Array.from({ length: 16 }, Math.sqrt), [size("tokens", 1), 2, 8]);
    const step = compile(
      (cache: typeof before, y: Tensor, where: Places) => {
        const { attended, kept } = store.attend(cache, 0, { q: y, k: y, v: y }, where, { scale: 0.3, valueWidth: 8 });
        return { attended, kept: [kept as NonNullable<typeof kept>] };
      },
      { device, dynamic: { tokens: [1, 64], ...store.sizes } },
    );
    const { kept } = step(before, x, places);
    store.accept(kept);
    expect((before.layers[0]?.keys as Tensor).data().every((value) => value === 0)).toBe(true);
    expect([...store.contents(0, Int32Array.of(4)).keys.subarray(24, 32)]).toEqual([...(x.data() as Float32Array).subarray(0, 8)]);
    step.dispose();
  });
});
