/**
 * From a traced graph to an executable on one device: lowered by mode, searched in mode max-autotune, run beside eager while bits are checked. Keeps time by stage.
 * Must not know calls, guards or specializations.
 */
import type { Graph } from "../ir/graph.js";
import type { CompiledGraph, Device, Executable } from "../runtime/device.js";
import { AutotuneExecutable, hasSchedules, lowerUsual } from "./autotune/executable.js";
import { CheckedExecutable, type CheckCounts, type LoadedGraph } from "./check.js";
import { lowerGraph, type Mode } from "./lower.js";
import type { CompileCounters } from "./report.js";
import { compileTime } from "./compile-time.js";

type Stage = "lower" | "build" | "search";

export class Loader {
  constructor(
    private readonly name: string,
    private readonly device: Device,
    private readonly counters: CompileCounters,
    /** Present while results are checked against running op by op. */
    readonly checked: CheckCounts | undefined,
  ) {}

  async load(graph: Graph, mode: Mode): Promise<Executable> {
    const loaded = await this.#loadAlone(graph, mode);
    if (!this.checked || mode === "eager") return loaded.executable;
    const eager = this.#lower(graph, "eager");
    const executable = await this.timed("build", () => this.device.load(eager));
    return this.#besideEager(graph, mode, loaded, { graph: eager.graph, executable }, this.checked);
  }

  /** A whole graph in mode max-autotune searches its schedules; a piece of a broken one has the usual ones. */
  loadSync(graph: Graph, mode: Mode, extent: "whole" | "piece" = "whole"): Executable {
    const loaded = this.#loadAloneSync(graph, mode, extent);
    if (!this.checked || mode === "eager") return loaded.executable;
    const eager = this.#lower(graph, "eager");
    const executable = this.timedSync("build", () => this.device.loadSync(eager));
    return this.#besideEager(graph, mode, loaded, { graph: eager.graph, executable }, this.checked);
  }

  #besideEager(graph: Graph, mode: Mode, compiled: LoadedGraph, eager: LoadedGraph, counts: CheckCounts): Executable {
    return new CheckedExecutable({ name: this.name, mode }, graph, this.device, compiled, eager, counts);
  }

  async #loadAlone(graph: Graph, mode: Mode): Promise<LoadedGraph> {
    const { device } = this;
    if (mode === "max-autotune" && hasSchedules(device)) {
      const usual = this.timedSync("lower", () => lowerUsual(graph, device));
      return loadedGraph(usual.usual, await this.timed("build", () => AutotuneExecutable.load(graph, device, usual)));
    }
    const lowered = this.#lower(graph, mode);
    return loadedGraph(lowered, await this.timed("build", () => device.load(lowered)));
  }

  #loadAloneSync(graph: Graph, mode: Mode, extent: "whole" | "piece"): LoadedGraph {
    const { device } = this;
    if (extent === "whole" && mode === "max-autotune" && hasSchedules(device)) {
      const usual = this.timedSync("lower", () => lowerUsual(graph, device));
      const executable = this.timedSync("build", () => AutotuneExecutable.loadSync(graph, device, usual));
      return loadedGraph(usual.usual, executable);
    }
    const lowered = this.#lower(graph, mode);
    const executable = this.timedSync("build", () => device.loadSync(lowered));
    return loadedGraph(lowered, executable);
  }

  /** What is checked is what the compiler makes now. */
  #lower(graph: Graph, mode: Mode): CompiledGraph {
    return this.timedSync("lower", () => lowerGraph(graph, this.device, mode, this.checked !== undefined));
  }

  async timed<T>(stage: Stage, body: () => Promise<T>): Promise<T> {
    const end = compileTime.begin();
    try {
      return await body();
    } finally {
      this.counters.milliseconds[stage] += end();
    }
  }

  timedSync<T>(stage: Stage, body: () => T): T {
    const end = compileTime.begin();
    try {
      return body();
    } finally {
      this.counters.milliseconds[stage] += end();
    }
  }
}

/** The executable that searches schedules, also inside a check. */
export function autotuned(executable: Executable): AutotuneExecutable | undefined {
  const subject = executable instanceof CheckedExecutable ? executable.subject : executable;
  return subject instanceof AutotuneExecutable ? subject : undefined;
}

/** The graph of a program made ahead of time is only made when a check asks for it. */
const loadedGraph = (compiled: CompiledGraph, executable: Executable): LoadedGraph => ({
  executable,
  get graph() {
    return compiled.graph;
  },
});
