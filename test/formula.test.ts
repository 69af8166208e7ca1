import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { formulaCheckpoint, formulaPresets } from "../src/models/formula/checkpoint.js";
import type { FormulaRequest } from "../src/models/formula/checkpoint.js";
import { fillFormula, fnv1a, mix, streamOf } from "../src/models/formula/generator.js";
import { InputError } from "../src/models/input-error.js";
import type { TensorSource } from "../src/models/tensor-source.js";

/** SHA-256 over names, dtypes and shapes in order and, when asked, the stored bytes; first 32 hex digits. */
function digest(source: TensorSource, withValues: boolean): string {
  const hash = createHash("sha256");
  for (const name of source.names()) {
    const info = source.info(name)!;
    hash.update(`${name} ${info.dtype} [${info.shape.join(",")}]\n`);
    if (!withValues) continue;
    const data = source.readStored(name);
    hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  }
  return hash.digest("hex").slice(0, 32);
}

/** Digests taken from the published generator script, not from this code. */
const wholeCheckpoints: [preset: string, request: FormulaRequest, expected: string][] = [
  ["toto1-tiny", { seed: 7 }, "e2bc0248bd527495ddf95de0c050215b"],
  ["toto1-tiny-ev", { seed: 7 }, "f03485619aeedf128e0198c954db75fc"],
  ["toto1-tiny-alt", { seed: 7 }, "b99aa541db90a76bd72130dbad8b981f"],
  ["toto2-tiny", { seed: 7 }, "6347e47dcd8b6e4b00f46f0ee7e4a360"],
  ["toto2-tiny-alt", { seed: 7 }, "74ce11f43c0cf238258b0fd4d1cfc8f8"],
  ["kronos-tiny", { seed: 7 }, "e03a47f746f1ccd95fbfd851425c89ae"],
  ["kronos-tokenizer-tiny", { seed: 7 }, "31a5ac15f5ffa9c53babd4f610d48f06"],
  ["toto1-tiny", { seed: 3, set: { mlp: "plain", labels: true, rotary: true } }, "d7ff9e6f621ff7dbd101c68a65685190"],
  [
    "toto1-tiny",
    {
      seed: 106,
      set: { output_distribution_classes: ["<class 'model.distribution.StudentTOutput'>"], output_distribution_kwargs: {} },
    },
    "b3262bab0b13a7306d5bcd7d9b4a32a6",
  ],
  ["toto1-tiny", { seed: 2, set: { spacewise_every_n_layers: -1, rotary: true } }, "76192360dbe7ee69bb6ef869dc769fc8"],
  [
    "toto1-tiny",
    { seed: 2, set: { spacewise_every_n_layers: 2, spacewise_first: true, rotary: true } },
    "a99e769e8c2f2108cc12dec0ba825546",
  ],
  [
    "toto2-tiny-alt",
    {
      seed: 216,
      set: {
        use_xpos: true,
        per_dim_scale: false,
        qk_norm_include_weight: false,
        variate_layer_first: false,
        attn_bias: true,
        mlp_bias: false,
      },
    },
    "651399e9eaf2195f28bbf02e55d68d68",
  ],
  ["toto2-tiny", { seed: 9, set: { num_groups: null, qk_dim: null, v_dim: null, d_ff: null } }, "eb6e7c37bb39e20dc2ef307319dde086"],
  [
    "toto2-tiny",
    { seed: 9, set: { qk_norm: true, qk_norm_include_weight: null, norm_include_weight: true, num_output_patches: 2 } },
    "0a375113738cf4d0496c9993f2dffa3b",
  ],
  ["kronos-tiny", { seed: 4294967295, set: { buffers: false, learn_te: false } }, "d2b1f84e52953018c011f4f129ac01e1"],
  ["kronos-tokenizer-tiny", { seed: 1, set: { buffers: false } }, "0064857af167e27d4cf4decb85777cd2"],
];

const layouts: [preset: string, expected: string][] = [
  ["toto1-base", "484bc8cc1f2747c9f519d4598759eeb7"],
  ["toto2-4m", "2c636ba487c005d176694a49b705444b"],
  ["toto2-22m", "74375e544fe7c43e291d40036d252278"],
  ["toto2-313m", "72715cd382a7b45b00df7d7a6b5c4903"],
  ["kronos-mini", "1056474e610d35d9bd7538eb3397dc33"],
  ["kronos-small", "7e37786704e3c3b3ba2cab8cb8f8b032"],
  ["kronos-base", "91484bfc67dd668876cba72524c354ce"],
  ["kronos-tokenizer-base", "01c6901e6987e32ec9aafcff55c79e66"],
  ["kronos-tokenizer-2k", "a4357a4c2325f2b1f036af3fad4eac1d"],
];

describe("weight formula", () => {
  test("hash constants", () => {
    expect(fnv1a("head.bias")).toBe(0x1e29e92e);
    expect(mix(1)).toBe(0x514e28b7);
  });

  test.each([
    ["toto1-tiny", 0, "model.patch_embed.projection.weight", 0, 0x3ea9acc7],
    ["toto1-base", 1, "model.unembed.weight", 37748735, 0xbc79f41e],
    ["toto2-22m", 1, "transformer.layers.0.attn.in_proj.bias", 7, 0xbfb05511],
    ["kronos-small", 1, "embedding.emb_s1.weight", 524287, 0x3babcc66],
    ["kronos-tokenizer-base", 7, "encoder.2.norm1.weight", 100, 0x3f7d636e],
  ])("published bits of %s seed %i %s [%i]", (preset, seed, name, index, bits) => {
    const values = formulaCheckpoint(preset, { seed }).source.read(name);
    expect(new Uint32Array(values.buffer)[index]).toBe(bits);
  });

  test("a later start continues the same stream", () => {
    const stream = streamOf("some.weight", 5);
    const whole = new Float32Array(1000);
    fillFormula(whole, stream, 0.3, 1);
    const tail = new Float32Array(400);
    fillFormula(tail, stream, 0.3, 1, 600);
    expect(tail).toEqual(whole.slice(600));
  });

  test("every name and every seed has its own stream", () => {
    expect(streamOf("a", 0)).not.toBe(streamOf("b", 0));
    expect(streamOf("a", 0)).not.toBe(streamOf("a", 1));
  });
});

describe("formula checkpoints", () => {
  test.each(wholeCheckpoints)("%s %j has the published bits", (preset, request, expected) => {
    expect(digest(formulaCheckpoint(preset, request).source, true)).toBe(expected);
  });

  test.each(layouts)("%s has the published layout", (preset, expected) => {
    expect(digest(formulaCheckpoint(preset).source, false)).toBe(expected);
  });

  test("the published size of Toto 1.0", () => {
    const { source } = formulaCheckpoint("toto1-base");
    const count = source.names().reduce((sum, name) => sum + source.info(name)!.shape.reduce((a, b) => a * b, 1), 0);
    expect(count).toBe(151_306_080);
  });

  test("our own preset for the example forecast", () => {
    const { config, source } = formulaCheckpoint("toto1-formula");
    expect(config).toMatchObject({ patch_size: 32, stride: 32, embed_dim: 128, num_layers: 4, num_heads: 4, mlp_hidden_dim: 256 });
    expect(source.info("model.unembed.weight")?.shape).toEqual([32 * 128, 128]);
    expect(source.info("model.output_distribution.mixture_weights.weight")?.shape).toEqual([8, 128]);
  });

  test("overrides do not leak into the preset", () => {
    formulaCheckpoint("toto1-tiny", { set: { num_layers: 1, rotary: true } });
    expect(formulaCheckpoint("toto1-tiny").config["num_layers"]).toBe(4);
    (formulaCheckpoint("toto1-tiny").config["output_distribution_kwargs"] as { k_components: number }).k_components = 99;
    expect(formulaCheckpoint("toto1-tiny").source.info("model.output_distribution.df.bias")?.shape).toEqual([4]);
  });

  test("constants: integers stay integers, scalars have no axes", () => {
    const { source } = formulaCheckpoint("kronos-tokenizer-tiny");
    expect(source.readStored("tokenizer.bsq.group_basis")).toEqual(BigInt64Array.of(8n, 4n, 2n, 1n));
    expect(() => source.read("tokenizer.bsq.group_basis")).toThrow(/I64.*floating-point/);
    const tau = formulaCheckpoint("toto2-tiny").source;
    expect(tau.info("transformer.layers.0.attn_tau")).toEqual({ dtype: "F32", shape: [] });
    expect(tau.read("transformer.layers.0.attn_tau").length).toBe(1);
  });

  test.each([
    ["unknown preset", "toto9", {}, /unknown formula preset "toto9".*toto1-base/],
    ["inherited name", "toString", {}, /unknown formula preset "toString"/],
    ["seed", "toto1-tiny", { seed: -1 }, /seed is -1, expected an integer/],
    ["fraction seed", "toto1-tiny", { seed: 0.5 }, /seed is 0.5/],
    ["option value", "toto1-tiny", { set: { mlp: "wide" } }, /option "mlp" is "wide", expected "fused" or "plain"/],
    ["option type", "kronos-tiny", { set: { buffers: "yes" } }, /option "buffers" is "yes", expected true or false/],
    ["config type", "toto1-tiny", { set: { embed_dim: "wide" } }, /config field "embed_dim" is "wide", expected a number/],
    ["shape", "toto1-tiny", { set: { embed_dim: 0 } }, /would have shape \[0, 8\]/],
    ["list", "toto1-tiny", { set: { output_distribution_classes: 3 } }, /expected a list of strings/],
  ] as [string, string, FormulaRequest, RegExp][])("refuses a wrong %s", (_, preset, request, message) => {
    const attempt = () => formulaCheckpoint(preset, request);
    expect(attempt).toThrow(InputError);
    expect(attempt).toThrow(message);
  });

  test("unknown tensors and wrong targets are named", () => {
    const { source } = formulaCheckpoint("toto1-tiny", { seed: 4 });
    expect(() => source.read("nothing")).toThrow(/toto1-tiny, seed 4: there is no tensor "nothing"/);
    expect(() => source.readInto("model.patch_embed.projection.bias", new Float32Array(31))).toThrow(/has 32 elements, the target has 31/);
    expect(source.info("nothing")).toBeUndefined();
  });

  test("all presets are listed and build", () => {
    expect(formulaPresets().length).toBe(17);
    for (const preset of formulaPresets()) expect(formulaCheckpoint(preset).source.names().length).toBeGreaterThan(10);
  });
});
