/** Which source of a setting wins, row by row, and what `config` says about it. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { MODE_ALIASES } from "../src/forecast/aliases.js";
import { parseEnvironmentFile, resolveSettings, type SettingSources } from "../src/forecast/resolve-settings.js";
import { readSwitch, SETTING_NAMES, SETTINGS } from "../src/forecast/settings.js";
import { runCli, temporaryFolder } from "./cli-harness.js";

function mode(sources: Partial<SettingSources>): [string, string] {
  const resolved = resolveSettings({ environment: {}, ...sources });
  const setting = resolved.settings.find(({ name }) => name === "mode");
  return [resolved.values.mode, setting?.source ?? ""];
}

/** From strongest to weakest; each must win over all that follow. */
const LADDER: readonly [string, string][] = [
  ["TEMPOGRAPH_DISABLE_COMPILE", "true"],
  ["--mode", "default"],
  ["option mode", "eager"],
  ["TEMPOGRAPH_MODE", "default"],
  ["TOTO_COMPILE", "0"],
  ["REAL_TOTO_COMPILE_MODE", "default"],
  ["TOTO_COMPILE_MODE", "eager"],
  ["REAL_TOTO_COMPILE_BACKEND", "eager"],
  ["TOTO_COMPILE_BACKEND", "aot_eager"],
  ["TORCH_COMPILE_MODE", "default"],
];

test.each(LADDER.map(([source], index) => [source, index] as const))("%s wins over everything weaker", (source, index) => {
  const present = LADDER.slice(index);
  const value = (name: string): string | undefined => present.find(([entry]) => entry === name)?.[1];
  const environment = Object.fromEntries(present.filter(([name]) => /^[A-Z_]+$/.test(name)));
  const flag = value("--mode");
  const option = value("option mode");
  const [winner, from] = mode({
    environment,
    ...(flag === undefined ? {} : { flags: { mode: flag } }),
    ...(option === undefined ? {} : { options: { mode: "eager" } }),
  });
  expect(from).toBe(source);
  const expected = ["TEMPOGRAPH_DISABLE_COMPILE", "TOTO_COMPILE", "REAL_TOTO_COMPILE_BACKEND", "TOTO_COMPILE_BACKEND"].includes(source)
    ? "eager"
    : LADDER[index]?.[1];
  expect(winner).toBe(expected);
});

test("the ladder names every Toto row of the alias table but the second spelling of a switch", () => {
  const rows = MODE_ALIASES.filter((alias) => alias.family !== "kronos").map((alias) => alias.variable);
  expect(rows.filter((row) => row !== "MARKETSIM_TOTO_COMPILE")).toEqual(LADDER.slice(4).map(([name]) => name));
});

test("nothing set: the default", () => {
  expect(mode({})).toEqual(["reduce-overhead", "default"]);
});

test.each(["TOTO_DISABLE_COMPILE", "MARKETSIM_TOTO_DISABLE_COMPILE"])(
  "%s true switches compiling off over a flag, false does nothing",
  (variable) => {
    expect(mode({ environment: { [variable]: "YES" }, flags: { mode: "default" } })).toEqual(["eager", variable]);
    expect(mode({ environment: { [variable]: "0" }, flags: { mode: "default" } })).toEqual(["default", "--mode"]);
    expect(mode({ environment: { [variable]: "maybe" } })).toEqual(["reduce-overhead", "default"]);
  },
);

test("a switch that is on, and the usual backend, leave the mode to the next row", () => {
  expect(mode({ environment: { TOTO_COMPILE: "1", TOTO_COMPILE_BACKEND: "inductor", TORCH_COMPILE_MODE: "default" } })).toEqual([
    "default",
    "TORCH_COMPILE_MODE",
  ]);
  expect(mode({ environment: { TOTO_COMPILE_MODE: "max-autotune-no-cudagraphs" } })).toEqual(["default", "TOTO_COMPILE_MODE"]);
});

test("Kronos rows apply to Kronos models, Toto rows to the others", () => {
  const environment = { TOTO_COMPILE_MODE: "eager", KRONOS_COMPILE_MODE: "default" };
  expect(mode({ environment })).toEqual(["eager", "TOTO_COMPILE_MODE"]);
  expect(mode({ environment, flags: { model: "NeoQuasar/Kronos-small" } })).toEqual(["default", "KRONOS_COMPILE_MODE"]);
});

test("unknown words are errors that name their source", () => {
  expect(() => mode({ environment: { TORCH_COMPILE_MODE: "fastest" } })).toThrow(/TORCH_COMPILE_MODE: unknown mode "fastest"/);
  expect(() => mode({ environment: { TOTO_COMPILE_BACKEND: "onnx" } })).toThrow(/TOTO_COMPILE_BACKEND: unknown backend "onnx"/);
  expect(mode({ flags: { mode: "max-autotune" } })).toEqual(["max-autotune", "--mode"]);
  expect(() => resolveSettings({ environment: {}, flags: { device: "wasm" } })).toThrow(/--device.*not available/);
  expect(() => resolveSettings({ environment: { TEMPOGRAPH_AUTOTUNE_SECONDS: "soon" } })).toThrow(/TEMPOGRAPH_AUTOTUNE_SECONDS/);
  expect(resolveSettings({ environment: { TEMPOGRAPH_AUTOTUNE_SECONDS: "2.5" } }).values.autotuneSeconds).toBe(2.5);
  expect(() => resolveSettings({ environment: { TEMPOGRAPH_THREADS: "two" } })).toThrow(/TEMPOGRAPH_THREADS/);
});

test(".env.compile is the weakest source but for its disable switch, and TEMPOGRAPH_ENV_FILE names another file", () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, ".env.compile"), '# a comment\nexport TOTO_COMPILE_MODE="eager" # why\nexport ADD_LATEST=1\n');
  expect(mode({ folder })).toEqual(["eager", ".env.compile TOTO_COMPILE_MODE"]);
  expect(mode({ folder, environment: { TORCH_COMPILE_MODE: "default" } })).toEqual(["default", "TORCH_COMPILE_MODE"]);
  const other = join(folder, "rollback");
  writeFileSync(other, "TOTO_DISABLE_COMPILE=true\n");
  expect(mode({ folder, environment: { TEMPOGRAPH_ENV_FILE: other }, flags: { mode: "default" } })).toEqual([
    "eager",
    `${other} TOTO_DISABLE_COMPILE`,
  ]);
  expect(() => mode({ folder, environment: { TEMPOGRAPH_ENV_FILE: join(folder, "missing") } })).toThrow(/TEMPOGRAPH_ENV_FILE/);
});

test("environment files: exports, quotes, comments; other lines are left alone", () => {
  expect(parseEnvironmentFile("export A=1\nB='two words' # c\n C=\"x\"\nif true; then\nD=\n#E=5\r\nF=6\r\n")).toEqual({
    A: "1",
    B: "two words",
    C: "x",
    D: "",
    F: "6",
  });
});

test.each([
  ["1", true],
  ["TRUE", true],
  ["on", true],
  ["no", false],
  ["0", false],
  ["2", undefined],
  ["", undefined],
  [undefined, undefined],
])("switch %s reads as %s", (text, value) => {
  expect(readSwitch(text)).toBe(value);
});

test("presets of the key-value cache are names of strategies", () => {
  const strategyOf = (words: string): string => resolveSettings({ flags: { kvCache: words }, environment: {} }).values.kvCache;
  expect(["conservative", "moderate", "aggressive", "dynamic"].map(strategyOf)).toEqual(["host", "static", "paged", "dynamic"]);
  expect(resolveSettings({ options: { kvCache: "aggressive" as "paged" }, environment: {} }).values.kvCache).toBe("paged");
  expect(() => strategyOf("reckless")).toThrow(/unknown kv-cache "reckless"/);
});

test("variables and flags are spelled like their setting", () => {
  for (const name of SETTING_NAMES) {
    const words = name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
    expect(SETTINGS[name].environment).toBe(`TEMPOGRAPH_${words}`);
    if (SETTINGS[name].flag !== undefined) expect(SETTINGS[name].flag).toBe(`--${words.toLowerCase().replaceAll("_", "-")}`);
  }
});

test("config lists every setting with value and source, and names what is known but unused", async () => {
  const run = await runCli(["config"], { environment: { TEMPOGRAPH_SEED: "5", TORCH_LOGS: "recompiles" } });
  expect(run.code).toBe(0);
  for (const name of SETTING_NAMES) expect(run.out).toContain(name);
  expect(run.out).toMatch(/seed +5 +TEMPOGRAPH_SEED/);
  expect(run.out).toContain("TORCH_LOGS: known, not used here");
  const json = JSON.parse((await runCli(["config", "--json"], { environment: { TEMPOGRAPH_SEED: "5" } })).out) as { settings: object[] };
  expect(json.settings).toContainEqual({ name: "seed", value: 5, source: "TEMPOGRAPH_SEED" });
});

test("of two variables of one row, the first that can be read decides", () => {
  expect(mode({ environment: { TOTO_COMPILE: "1", MARKETSIM_TOTO_COMPILE: "0" } })).toEqual(["reduce-overhead", "default"]);
  expect(mode({ environment: { TOTO_COMPILE: "perhaps", MARKETSIM_TOTO_COMPILE: "0" } })).toEqual(["eager", "MARKETSIM_TOTO_COMPILE"]);
  expect(mode({ environment: { REAL_TOTO_COMPILE_BACKEND: "inductor", TOTO_COMPILE_BACKEND: "eager" } })).toEqual([
    "reduce-overhead",
    "default",
  ]);
  const kronos = { flags: { model: "bundled:kronos-nano" } };
  expect(mode({ ...kronos, environment: { KRONOS_COMPILE: "1", MARKETSIM_KRONOS_COMPILE: "0", KRONOS_COMPILE_MODE: "eager" } })).toEqual([
    "eager",
    "KRONOS_COMPILE_MODE",
  ]);
});

test("config explain: every source from the strongest to the weakest, and what became of it", async () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, ".env.compile"), "export TOTO_DISABLE_COMPILE=0\nexport TOTO_COMPILE_MODE=eager\n");
  const environment = { TEMPOGRAPH_MODE: "default", TOTO_COMPILE: "1", TORCH_COMPILE_MODE: "eager", ADD_LATEST: "1", TEMPOGRAPH_SEED: "3" };
  const explain = async (
    words: readonly string[],
  ): Promise<{ settings: { name: string; value: unknown; candidates: string[][] }[]; knownButUnused: string[] }> => {
    const run = await runCli(["config", "explain", "--json", ...words], { environment, folder });
    expect(run).toMatchObject({ code: 0, error: "" });
    const { settings, knownButUnused } = JSON.parse(run.out) as {
      settings: { name: string; value: unknown; candidates: { source: string; text: string; effect: string }[] }[];
      knownButUnused: string[];
    };
    return {
      knownButUnused,
      settings: settings.map(({ name, value, candidates }) => ({
        name,
        value,
        candidates: candidates.map(({ source, text, effect }) => [source, text, effect]),
      })),
    };
  };
  const { settings, knownButUnused } = await explain(["--mode", "reduce-overhead"]);
  expect(settings.find(({ name }) => name === "mode")).toEqual({
    name: "mode",
    value: "reduce-overhead",
    candidates: [
      [".env.compile TOTO_DISABLE_COMPILE", "0", "no opinion"],
      ["--mode", "reduce-overhead", "wins"],
      ["TEMPOGRAPH_MODE", "default", "overridden"],
      ["TOTO_COMPILE", "1", "no opinion"],
      ["TORCH_COMPILE_MODE", "eager", "overridden"],
      [".env.compile TOTO_COMPILE_MODE", "eager", "overridden"],
      ["default", "reduce-overhead", "overridden"],
    ],
  });
  expect(settings.find(({ name }) => name === "seed")?.candidates).toEqual([
    ["TEMPOGRAPH_SEED", "3", "wins"],
    ["default", "0", "overridden"],
  ]);
  expect(settings.map(({ name }) => name)).toEqual(SETTING_NAMES);
  for (const { candidates } of settings) expect(candidates.filter(([, , effect]) => effect === "wins").length).toBe(1);
  expect(knownButUnused).toEqual(["ADD_LATEST"]);
  const text = await runCli(["config", "explain"], { environment, folder });
  expect(text.out).toMatch(/mode +\.env\.compile TOTO_DISABLE_COMPILE +0 +no opinion\n +TEMPOGRAPH_MODE +default +wins\n/);
  expect(text.out).toContain("ADD_LATEST: known, not used here\n");
});
