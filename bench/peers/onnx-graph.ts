/** Writes ONNX models with onnx-proto's message types. Must not know what a graph computes or who runs it. */
import type { Require } from "./installed.js";

/** What of onnx-proto is used: plain objects in the shape of the messages go in, bytes come out. */
interface OnnxMessages {
  readonly ModelProto: { encode(message: object): { finish(): Uint8Array } };
}

type AttributeValue = number | { readonly float: number };

export interface OnnxNode {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs?: readonly string[];
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
  /** "" = ONNX's own operators. */
  readonly domain?: "" | "com.microsoft";
}

/** Numbers of the protocol: element types and attribute types. */
const elementTypes = { f32: 1, i32: 6, i64: 7 } as const;
const attributeTypes = { float: 1, int: 2 } as const;

type Dims = readonly (number | string)[];

export class OnnxGraph {
  readonly #nodes: object[] = [];
  readonly #initializers: object[] = [];
  readonly #inputs: object[] = [];
  readonly #outputs: object[] = [];

  constructor(private readonly name: string) {}

  /** Adds a node and answers the name of its first output. */
  node({ op, inputs, outputs = [`${op}_${this.#nodes.length}`], attributes = {}, domain = "" }: OnnxNode): string {
    this.#nodes.push({
      name: `${op}_${this.#nodes.length}`,
      opType: op,
      domain,
      input: inputs,
      output: outputs,
      attribute: Object.entries(attributes).map(([name, value]) =>
        typeof value === "number" ? { name, type: attributeTypes.int, i: value } : { name, type: attributeTypes.float, f: value.float },
      ),
    });
    return outputs[0] as string;
  }

  initializer(name: string, dims: readonly number[], values: Float32Array | BigInt64Array): string {
    this.#initializers.push({
      name,
      dims,
      dataType: values instanceof Float32Array ? elementTypes.f32 : elementTypes.i64,
      rawData: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
    });
    return name;
  }

  /** A row-major [rows, columns] matrix as its transpose. */
  transposed(name: string, rows: number, columns: number, values: Float32Array): string {
    const turned = new Float32Array(values.length);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) turned[c * rows + r] = values[r * columns + c] as number;
    return this.initializer(name, [columns, rows], turned);
  }

  input(name: string, dims: Dims, type: keyof typeof elementTypes = "f32"): string {
    this.#inputs.push(valueInfo(name, dims, type));
    return name;
  }

  output(name: string, dims: Dims): void {
    this.#outputs.push(valueInfo(name, dims, "f32"));
  }

  encode(require: Require): Uint8Array {
    const { onnx } = require("onnx-proto") as { onnx: OnnxMessages };
    return onnx.ModelProto.encode({
      irVersion: 8,
      opsetImport: [
        { domain: "", version: 17 },
        { domain: "com.microsoft", version: 1 },
      ],
      graph: { name: this.name, node: this.#nodes, initializer: this.#initializers, input: this.#inputs, output: this.#outputs },
    }).finish();
  }
}

const valueInfo = (name: string, dims: Dims, type: keyof typeof elementTypes): object => ({
  name,
  type: {
    tensorType: {
      elemType: elementTypes[type],
      shape: { dim: dims.map((dim) => (typeof dim === "number" ? { dimValue: dim } : { dimParam: dim })) },
    },
  },
});
