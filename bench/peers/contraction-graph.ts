/** The contraction workloads as an ONNX graph: MatMuls, each of the first columns of the last. */
import { contractionWeights, depth, roundsOf, width, type ContractionCase } from "../contractions.js";
import { OnnxGraph } from "./onnx-graph.js";

export function contractionGraph(one: ContractionCase): OnnxGraph {
  const { name, matrices } = one;
  const rounds = roundsOf(one);
  const graph = new OnnxGraph(name);
  const x = graph.input("x", ["rows", depth]);
  const weights = Array.from({ length: matrices }, (_, index) =>
    graph.transposed(`weight${index}`, width, depth, contractionWeights(index)),
  );
  const bounds = [0, depth, 1].map((value, index) =>
    graph.initializer(["starts", "ends", "axes"][index] as string, [1], BigInt64Array.of(BigInt(value))),
  );
  let rows = x;
  for (let round = 0; round < rounds; round++) {
    const product = graph.node({ op: "MatMul", inputs: [rows, weights[round % matrices] as string] });
    const last = round === rounds - 1;
    rows = graph.node({ op: "Slice", inputs: [product, ...bounds], ...(last ? { outputs: ["y"] } : {}) });
  }
  graph.output("y", ["rows", depth]);
  return graph;
}
