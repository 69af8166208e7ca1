/** Forecasts that arrive as they finish, and a running process that is rolled back by a file. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Forecaster, InputError, type SeriesInput } from "../src/index.js";
import { FakeModel } from "./forecast-fake-model.js";

const many = (count: number): SeriesInput[] => Array.from({ length: count }, (_, index) => ({ values: [index, index + 0.5, index + 2] }));

describe("stream", () => {
  test("entries come in order, batch by batch, with the numbers and ids of one predict", async () => {
    const model = new FakeModel();
    const forecaster = Forecaster.fromModel(model);
    const seen: string[] = [];
    for await (const entry of forecaster.stream(many(5), { horizon: 2, samples: 4, batch: 2 }))
      seen.push(JSON.stringify([entry, Array.from(entry.quantile(0.9))]));
    expect(model.requests.map(({ series }) => series.length)).toEqual([2, 2, 1]);
    const { series } = await forecaster.predict(many(5), { horizon: 2, samples: 4 });
    expect(seen).toEqual(series.map((entry) => JSON.stringify([entry, Array.from(entry.quantile(0.9))])));
    expect(series.map(({ id }) => id)).toEqual(["0", "1", "2", "3", "4"]);
    // An entry by itself states what the call asked for, wherever it stands in what is written.
    const [first = ""] = seen;
    expect(Object.keys((JSON.parse(first) as [{ quantiles: object }])[0].quantiles)).toEqual(["0.1", "0.5", "0.9"]);
  });

  test("an asynchronous source is read no further than the batch that is asked for", async () => {
    let read = 0;
    let closed = false;
    async function* source(): AsyncGenerator<SeriesInput> {
      try {
        for (const series of many(100)) {
          read += 1;
          yield await Promise.resolve(series);
        }
      } finally {
        closed = true;
      }
    }
    const forecaster = Forecaster.fromModel(new FakeModel());
    for await (const entry of forecaster.stream(source(), { horizon: 1, batch: 3 })) {
      expect(read).toBeLessThanOrEqual(6);
      if (entry.id === "3") break;
    }
    expect(closed).toBe(true);
    expect((await forecaster.predict({ values: [1] }, { horizon: 1 })).series.length).toBe(1);
  });

  test("mistakes name the series by its place among all, and end the stream", async () => {
    const forecaster = Forecaster.fromModel(new FakeModel());
    const list = [...many(4), { values: [] }];
    const seen: string[] = [];
    const reading = (async () => {
      for await (const { id } of forecaster.stream(list, { horizon: 1, batch: 2 })) seen.push(id);
    })();
    await expect(reading).rejects.toMatchObject({ code: "empty-series", message: expect.stringContaining("series 4 is empty") as string });
    expect(seen).toEqual(["0", "1", "2", "3"]);
    await expect(forecaster.stream([], { batch: 0 }).next()).rejects.toBeInstanceOf(InputError);
    expect(await forecaster.stream([]).next()).toEqual({ done: true, value: undefined });
  });

  test("warnings are heard, a signal stops it", async () => {
    const forecaster = Forecaster.fromModel(new FakeModel({ stepDelay: 1 }));
    const codes: string[] = [];
    for await (const entry of forecaster.stream([{ values: [1] }], { horizon: 1, onWarning: ({ code }) => codes.push(code) }))
      expect(entry.id).toBe("0");
    expect(codes).toEqual(["one-value"]);
    const controller = new AbortController();
    const stream = forecaster.stream(many(3), {
      horizon: 500,
      batch: 1,
      signal: controller.signal,
      onProgress: () => controller.abort("enough"),
    });
    await expect(stream.next()).rejects.toBe("enough");
  });
});

test("an answer that is no number is an error that names series, variate and step", async () => {
  class Broken extends FakeModel {
    override async predict(request: Parameters<FakeModel["predict"]>[0]): Promise<Awaited<ReturnType<FakeModel["predict"]>>> {
      const answers = await super.predict(request);
      for (const { mean } of answers) (mean[0] as Float32Array)[1] = Number.NaN;
      return answers;
    }
  }
  const forecaster = Forecaster.fromModel(new Broken());
  await expect(forecaster.predict({ id: "a", columns: { load: [1, 2] } }, { horizon: 3 })).rejects.toMatchObject({
    code: "not-finite",
    message: expect.stringMatching(/^series "a", "load": .* answered NaN for step 1/) as string,
  });
});

describe("TEMPOGRAPH_ENV_FILE is looked at before each request", () => {
  let folder = "";
  const before = process.env["TEMPOGRAPH_ENV_FILE"];
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tempograph-rollback-"));
    process.env["TEMPOGRAPH_ENV_FILE"] = join(folder, "settings");
  });
  afterEach(() => {
    if (before === undefined) delete process.env["TEMPOGRAPH_ENV_FILE"];
    else process.env["TEMPOGRAPH_ENV_FILE"] = before;
    rmSync(folder, { recursive: true, force: true });
  });

  test("a running process is rolled back to op by op by editing it, and forward again, with the same bits", async () => {
    const write = (text: string): void => writeFileSync(join(folder, "settings"), text);
    write("");
    const forecaster = await Forecaster.load("bundled:toto2-nano", { device: "reference", mode: "default" });
    const series = { values: Array.from({ length: 70 }, (_, step) => Math.sin(step / 3)) };
    const ask = async (): Promise<[mode: string, numbers: string]> => {
      const { report, mean } = await forecaster.predict(series, { horizon: 8 });
      return [report.mode, JSON.stringify(Array.from(mean))];
    };
    const [mode, numbers] = await ask();
    expect(mode).toBe("default");
    write("export TOTO_DISABLE_COMPILE=1\n");
    expect(await ask()).toEqual(["eager", numbers]);
    // A file that is being replaced changes nothing.
    rmSync(join(folder, "settings"));
    expect((await ask())[0]).toBe("eager");
    write("# fine again\n");
    expect(await ask()).toEqual(["default", numbers]);
    forecaster.dispose();
  });

  test("without a mode in code, the file's mode counts, and its mistakes are named", async () => {
    writeFileSync(join(folder, "settings"), "");
    const forecaster = await Forecaster.load("bundled:toto2-nano", { device: "reference" });
    writeFileSync(join(folder, "settings"), "TEMPOGRAPH_MODE=eager\n");
    expect((await forecaster.predict({ values: [1, 2, 3] }, { horizon: 2 })).report.mode).toBe("eager");
    writeFileSync(join(folder, "settings"), "TEMPOGRAPH_MODE=fastest\n");
    await expect(forecaster.predict({ values: [1, 2, 3] }, { horizon: 2 })).rejects.toThrow(
      /settings TEMPOGRAPH_MODE: unknown mode "fastest"/,
    );
    writeFileSync(join(folder, "settings"), "");
    expect((await forecaster.predict({ values: [1, 2, 3] }, { horizon: 2 })).report.mode).toBe("reduce-overhead");
    forecaster.dispose();
  });
});
