/** The op table: one record per op with its shape rule, dtype rule, reference meaning and, for elementwise ops, its scalar definition. */
import type { Dim, SizeBindings } from "./dim.js";
import type { DType, HostArray } from "./dtype.js";
import type { Attributes, Node, StateDeclaration } from "./graph.js";
import type { Scalar } from "./scalar.js";
import { attentionOps } from "./ops/attention.js";
import { cacheValueOps } from "./ops/cache-values.js";
import { contractionOps } from "./ops/contraction.js";
import { elementwiseOps } from "./ops/elementwise.js";
import { maskedAttentionOps } from "./ops/masked-attention.js";
import { quantileOps } from "./ops/quantiles.js";
import { reduceOps } from "./ops/reduce.js";
import { routineOps } from "./ops/routines.js";
import { stateOps } from "./ops/state.js";
import { tokenOps } from "./ops/tokens.js";
import { viewOps } from "./ops/view.js";

export type OpClass =
  "elementwise" | "reduce" | "rowwise" | "scan" | "view" | "contraction" | "gather" | "state" | "random" | "routine" | "attention";

/** A concrete value on the reference device. */
export interface Value {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly data: HostArray;
}

export interface Evaluation {
  readonly inputs: readonly Value[];
  /** States in access order, row-major (weights [out, in]). Writes go into `data`. */
  readonly states: readonly Value[];
  readonly attributes: Attributes;
  /** Numeric shape of the result. */
  readonly shape: readonly number[];
  readonly sizes: SizeBindings;
  /** Result to fill, zeroed; storing rounds to the dtype. */
  readonly output: HostArray;
}

export interface OpSpec {
  readonly name: string;
  readonly class: OpClass;
  /** Result shape; throws a sentence with operand shapes when they don't fit. */
  shape(inputs: readonly Node[], attributes: Attributes, states: readonly StateDeclaration[], label: string): readonly Dim[];
  dtype(inputs: readonly Node[], attributes: Attributes): DType;
  /** Reference meaning, f64 inside. */
  evaluate(evaluation: Evaluation): void;
  /** Elementwise ops: the value of one element in terms of its operands. */
  define?(inputs: readonly Scalar[], attributes: Attributes): Scalar;
}

export const opTable: Readonly<Record<string, OpSpec>> = Object.fromEntries(
  [
    ...elementwiseOps,
    ...reduceOps,
    ...viewOps,
    ...contractionOps,
    ...attentionOps,
    ...stateOps,
    ...routineOps,
    ...cacheValueOps,
    ...tokenOps,
    ...maskedAttentionOps,
    ...quantileOps,
  ].map((spec) => [spec.name, spec]),
);

export function opSpec(name: string): OpSpec {
  const spec = Object.hasOwn(opTable, name) ? opTable[name] : undefined;
  if (!spec) throw new Error(`unknown op "${name}"; the table has: ${Object.keys(opTable).join(", ")}`);
  return spec;
}
