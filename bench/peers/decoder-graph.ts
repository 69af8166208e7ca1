/**
 * The decoder as an ONNX graph with onnxruntime's fused operators: (Skip)SimplifiedLayerNormalization for residual and RMSNorm, GroupQueryAttention for RoPE, append and causal
 * attention over one q/k/v contraction. Keys and values go in as `past` and come out as `present`, as that operator has it.
 */
import {
  heads,
  headWidth,
  hidden,
  layers,
  matrix,
  matrixShapes,
  normEpsilon,
  normWeight,
  positions,
  width,
  type MatrixName,
} from "../decoder-shape.js";
import { OnnxGraph } from "./onnx-graph.js";

const epsilon = { float: normEpsilon };

/** Matrices side by side: [columns, sum of rows]. */
function joined(graph: OnnxGraph, layer: number, names: readonly MatrixName[]): string {
  const columns = matrixShapes[names[0] as MatrixName][1];
  const rows = names.reduce((sum, name) => sum + matrixShapes[name][0], 0);
  const values = new Float32Array(rows * columns);
  let at = 0;
  for (const name of names) {
    values.set(matrix(layer, name), at);
    at += matrixShapes[name][0] * columns;
  }
  return graph.transposed(`${layer}.${names.join(".")}`, rows, columns, values);
}

/** Cosine and sine [positions, headWidth / 2]. */
function rotary(graph: OnnxGraph): [string, string] {
  const half = headWidth / 2;
  const angle = (i: number): number => Math.floor(i / half) * 10000 ** ((-2 * (i % half)) / headWidth);
  const table = (name: string, of: (x: number) => number): string =>
    graph.initializer(
      name,
      [positions, half],
      Float32Array.from({ length: positions * half }, (_, i) => of(angle(i))),
    );
  return [table("cosine", Math.cos), table("sine", Math.sin)];
}

export function decoderGraph(): OnnxGraph {
  const graph = new OnnxGraph("decoder");
  const x = graph.input("x", ["batch", "tokens", width]);
  const lengths = graph.input("lengths", ["batch"], "i32");
  const total = graph.input("total", [1], "i32");
  const [cosine, sine] = rotary(graph);
  const split = graph.initializer("split", [2], BigInt64Array.of(BigInt(hidden), BigInt(hidden)));
  let [residual, branch] = [x, undefined as string | undefined];
  /** Adds what the last branch gave to the residual stream and normalises the sum. */
  const normalised = (name: string, weight: string): string => {
    if (branch === undefined)
      return graph.node({ op: "SimplifiedLayerNormalization", inputs: [residual, weight], attributes: { epsilon } });
    const outputs = [`${name}.normal`, "", "", `${name}.sum`];
    graph.node({
      op: "SkipSimplifiedLayerNormalization",
      inputs: [residual, branch, weight],
      outputs,
      attributes: { epsilon },
      domain: "com.microsoft",
    });
    residual = `${name}.sum`;
    return `${name}.normal`;
  };
  for (let layer = 0; layer < layers; layer++) {
    const [norm1, norm2] = ([1, 2] as const).map((which) =>
      graph.initializer(`${layer}.norm${which}`, [width], normWeight(layer, which)),
    ) as [string, string];
    const y = normalised(`${layer}.first`, norm1);
    const qkv = graph.node({ op: "MatMul", inputs: [y, joined(graph, layer, ["query", "key", "value"])] });
    const past = ["keys", "values"].map((part) => graph.input(`past.${layer}.${part}`, ["batch", heads, "past", headWidth]));
    const attended = `${layer}.attended`;
    const present = ["keys", "values"].map((part) => `present.${layer}.${part}`);
    graph.node({
      op: "GroupQueryAttention",
      inputs: [qkv, "", "", ...past, lengths, total, cosine, sine],
      outputs: [attended, ...present],
      attributes: { num_heads: heads, kv_num_heads: heads, do_rotary: 1, rotary_interleaved: 0 },
      domain: "com.microsoft",
    });
    for (const name of present) graph.output(name, ["batch", heads, "all", headWidth]);
    branch = graph.node({ op: "MatMul", inputs: [attended, joined(graph, layer, ["out"])] });
    const z = normalised(`${layer}.second`, norm2);
    const both = graph.node({ op: "MatMul", inputs: [z, joined(graph, layer, ["gate", "up"])] });
    const [gate, up] = [`${layer}.gate`, `${layer}.up`];
    graph.node({ op: "Split", inputs: [both, split], outputs: [gate, up], attributes: { axis: -1 } });
    const activated = graph.node({ op: "Mul", inputs: [gate, graph.node({ op: "Sigmoid", inputs: [gate] })] });
    const product = graph.node({ op: "Mul", inputs: [activated, up] });
    branch = graph.node({ op: "MatMul", inputs: [product, joined(graph, layer, ["down"])] });
  }
  graph.node({ op: "Add", inputs: [residual, branch as string], outputs: ["y"] });
  graph.output("y", ["batch", "tokens", width]);
  return graph;
}
