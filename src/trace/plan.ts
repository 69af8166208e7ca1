/** What is settled once for a specialization and its sizes and states, and then holds for every call that brings only other data. Must not run anything. */
import type { SizeBindings } from "../ir/dim.js";
import type { HostArray } from "../ir/dtype.js";
import type { ChainLinks, Replay, RunRequest, StateBuffer } from "../runtime/device.js";
import { Answers, type MakeValue } from "./outputs.js";
import { CallPattern } from "./repeat.js";
import { mutableStates } from "./run-order.js";
import type { Call, Replayable, ReplayableSpecialization } from "./specialization.js";
import type { Stance } from "./stance.js";
import { State } from "./state.js";
import type { Segment } from "./tracer.js";
import type { Value } from "./value.js";

export class CallPlan {
  readonly pattern: CallPattern;
  /** Mutable ones: their runs follow each other. */
  readonly mutable: ReadonlySet<State>;
  readonly #states: ReadonlyMap<string, StateBuffer>;
  readonly #sizes: SizeBindings;
  /** Inputs of the graph, each with the position of its array among the call's. */
  readonly #inputs: readonly { readonly name: string; readonly at: number }[];
  readonly #dtypes: ReadonlyMap<string, Value["dtype"]>;
  readonly answers: Answers;

  constructor(
    call: Call,
    readonly specialization: ReplayableSpecialization,
    readonly replay: Replay,
    /** The stance under which the specialization serves. */
    readonly stance: Stance,
    make: MakeValue,
  ) {
    const { replayable } = specialization;
    const { segment } = replayable;
    const states = statesOf(call, replayable);
    this.pattern = new CallPattern(call.args);
    this.mutable = mutableStates(states);
    this.#states = buffersOf(states);
    this.#sizes = sizesOf(call, segment);
    const paths = [...call.arrays.keys()];
    this.#inputs = segment.graph.inputs.map(({ name }) => ({ name, at: paths.indexOf(name) }));
    this.#dtypes = new Map(segment.graph.inputs.map(({ name, node }) => [name, node.dtype]));
    this.answers = new Answers(replayable, call.sizes, make);
  }

  /** `arrays` are those of the call's data leaves; with `copy` the caller may change them as soon as this returns. */
  request(arrays: readonly HostArray[], signal: AbortSignal | undefined, copy: boolean): RunRequest {
    const inputs = new Map<string, HostArray>();
    for (const { name, at } of this.#inputs) {
      const array = arrays[at] as HostArray;
      inputs.set(name, copy ? array.slice() : array);
    }
    const request = { inputs, states: this.#states, sizes: this.#sizes, replay: this.replay };
    return signal ? { ...request, signal } : request;
  }

  /** Inputs and outputs of the graph behind tensors that are arguments, whose `arrays` these are, and fields of the answer. */
  links(arrays: readonly HostArray[], carried: Readonly<Record<string, Value>>): ChainLinks {
    const { name } = this.specialization.replayable.segment.graph;
    const link = ([field, { content }]: [string, Value]): [string, string] => {
      const at = content.kind === "concrete" ? arrays.indexOf(content.array) : -1;
      const input = this.#inputs.find((one) => one.at === at);
      const output = this.answers.outputOf(field);
      if (!input) throw new TypeError(`${name}: the tensor carried from "${field}" is none of the arguments`);
      if (!output || output.dtype !== this.#dtypes.get(input.name) || output.length !== arrays[at]?.length)
        throw new TypeError(`${name}: the answer's "${field}" is no tensor of the dtype and size of the argument that it is carried to`);
      return [input.name, output.name];
    };
    return new Map(Object.entries(carried).map(link));
  }
}

/** States passed as arguments replace the traced ones of the same name; captured states stay. */
function statesOf(call: Call, { segment, passedStates }: Replayable): State[] {
  if (passedStates.size === 0) return [...segment.states.values()];
  const states = new Map(segment.states);
  for (const { value } of call.leaves) if (value instanceof State && passedStates.has(value.name)) states.set(value.name, value);
  return [...states.values()];
}

/** Sizes of the call and of states the function captured instead of being given. */
export function sizesOf(call: Call, { graph, states }: Segment): SizeBindings {
  let { sizes } = call;
  for (const state of states.values()) {
    for (const [name, value] of Object.entries(state.buffer.sizes)) {
      const known = sizes[name];
      if (known === undefined) sizes = { ...sizes, [name]: value };
      else if (known !== value && !call.leaves.some((leaf) => leaf.value instanceof State && leaf.value.name === state.name))
        throw new Error(
          `${graph.name}: size "${name}" is ${known} in this call but ${value} in the state ${state.name}; one name must have one value per call`,
        );
    }
  }
  return sizes;
}

export const buffersOf = (states: Iterable<State>): Map<string, StateBuffer> =>
  new Map([...states].map((state) => [state.name, state.buffer]));
