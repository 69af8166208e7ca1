/**
 * Kernels and Programs. A kernel is parallel rows and a sequence of phases over one inner axis, a contraction with prologue and epilogue, an attention, or a
 * routine; a Program is a flat list of kernel launches over one arena. Plain data; must not know how kernels are rendered or run.
 */
import type { Dim } from "./dim.js";
import type { DType } from "./dtype.js";
import type { Node, StateDeclaration } from "./graph.js";
import type { KernelSchedule } from "./schedule.js";

/** Values computed row by row: every node has the same leading axes. */
export interface RowKernel {
  readonly kind: "rows";
  readonly rowShape: readonly Dim[];
  /** Nodes computed inside, in order; state writes among them are sinks. */
  readonly values: readonly Node[];
  /** Those that must be stored. */
  readonly stores: readonly Node[];
}

/** Matrices that share x: each segment is one or two contractions of equal width joined by an elementwise epilogue. */
export interface ContractionSegment {
  readonly contractions: readonly Node[];
  readonly width: number;
  readonly epilogue: readonly Node[];
  readonly stores: readonly Node[];
}

export interface ContractionKernel {
  readonly kind: "contraction";
  readonly x: Node;
  /** Nodes that compute x row by row into scratch; empty when x is read where it lies. */
  readonly prologue: readonly Node[];
  readonly depth: number;
  readonly segments: readonly ContractionSegment[];
}

export interface AttentionKernel {
  readonly kind: "attention";
  readonly node: Node;
}

export interface RoutineKernel {
  readonly kind: "routine";
  readonly node: Node;
}

export type Kernel = RowKernel | ContractionKernel | AttentionKernel | RoutineKernel;

/** Where a pointer of a launch comes from when sizes are bound. */
export type BufferReference =
  | { readonly kind: "input"; readonly name: string }
  | { readonly kind: "state"; readonly name: string }
  | { readonly kind: "value"; readonly buffer: number };

/** ceil(dim / divide) * times. */
export interface Units {
  readonly dim: Dim;
  readonly divide: number;
  readonly times: Dim;
}

export interface KernelLaunch {
  readonly symbol: string;
  readonly label: string;
  /** Positions in the graph of the nodes it computes. */
  readonly nodes: readonly number[];
  readonly pointers: readonly BufferReference[];
  readonly numbers: readonly Dim[];
  readonly units: Units;
  /** Units that a thread takes together. */
  readonly grain: number;
  /** Threads may take fewer, where units are few. */
  readonly divisible?: true;
  readonly scratchBytes: Dim;
  /** Useful arithmetic and memory traffic, for profiles. */
  readonly flops: Dim;
  readonly bytes: Dim;
  /** How the kernel's work is cut up; absent where there is nothing to choose. */
  readonly schedule?: KernelSchedule;
}

export interface ProgramBuffer {
  readonly label: string;
  /** Position in the graph of the node whose value it holds. */
  readonly node: number;
  readonly bytes: Dim;
  /** Launch that writes it first and last launch that reads it. */
  readonly first: number;
  readonly last: number;
}

export interface ProgramInput {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly Dim[];
}

export interface ProgramOutput {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly Dim[];
  readonly source: BufferReference;
}

export interface SourceFile {
  readonly name: string;
  readonly symbols: readonly string[];
  readonly text: string;
}

export interface Program {
  readonly name: string;
  readonly inputs: readonly ProgramInput[];
  readonly states: readonly StateDeclaration[];
  readonly outputs: readonly ProgramOutput[];
  readonly buffers: readonly ProgramBuffer[];
  readonly launches: readonly KernelLaunch[];
  readonly sources: readonly SourceFile[];
}
