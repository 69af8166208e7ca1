/** The contraction workloads as an ONNX graph: x times a factor, MatMul, sum of each row, and the sum over all rounds. */
import { contractionWeights, depth, rounds, width, type ContractionCase } from "../contractions.js";
import { OnnxGraph } from "./onnx-graph.js";

export function contractionGraph({ name, matrices }: ContractionCase): OnnxGraph {
  const graph = new OnnxGraph(name);
  const x = graph.input("x", ["rows", depth]);
  const weights = Array.from({ length: matrices }, (_, index) =>
    graph.transposed(`weight${index}`, width, depth, contractionWeights(index)),
  );
  const axes = graph.initializer("axes", [1], BigInt64Array.of(-1n));
  let total: string | undefined;
  for (let round = 0; round < rounds; round++) {
    const factor = graph.initializer(`factor${round}`, [], Float32Array.of(1 + round));
    const scaled = graph.node({ op: "Mul", inputs: [x, factor] });
    const product = graph.node({ op: "MatMul", inputs: [scaled, weights[round % matrices] as string] });
    const sum = graph.node({ op: "ReduceSum", inputs: [product, axes], attributes: { keepdims: 0 } });
    const last = round === rounds - 1;
    total = total === undefined ? sum : graph.node({ op: "Add", inputs: [total, sum], ...(last ? { outputs: ["y"] } : {}) });
  }
  graph.output("y", ["rows"]);
  return graph;
}
