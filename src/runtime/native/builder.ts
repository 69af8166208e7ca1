/**
 * From C text to a loaded library: looks in the artifact cache, else compiles and adds, then hands the file to a loader.
 * Knows compilers and the cache; must not know what a kernel is or how libraries are opened.
 */
import { rmSync } from "node:fs";
import { artifactFormat, type ArtifactCache, sha256, type ArtifactKey } from "./artifact-cache.js";
import type { BuiltLibrary, Bundle } from "./bundle.js";
import {
  compile,
  compilerMissing,
  compilerStamp,
  compilerVersion,
  compileSync,
  findCompiler,
  type CompileJob,
  type Compiler,
  type Environment,
} from "./compiler.js";
import { CompilerError, NativeError } from "./errors.js";

export interface BuildUnit {
  readonly name: string;
  readonly text: string;
  readonly flags: readonly string[];
  /** Flags after the source file. */
  readonly libraries: readonly string[];
  /** Instruction set and CPU features, part of the key. */
  readonly machine: string;
  /** Opens the finished file; may be called again on a rebuilt one when it throws. */
  readonly load: (path: string) => void;
}

export interface BuildCounters {
  compiled: number;
  cacheHits: number;
  cacheRebuilds: number;
}

interface KnownCompiler {
  readonly compiler: Compiler | undefined;
  /** Hash of path and version; undefined when there is no compiler, or it does not say what it is: then any compiler's artifact will do. */
  readonly identity: string | undefined;
  readonly description: string;
}

interface PreparedJob {
  readonly compiler: Compiler;
  readonly job: CompileJob;
  readonly key: ArtifactKey;
}

/** Hash of everything but the compiler that decides what an artifact is. */
export function sourceKey(unit: BuildUnit): string {
  return sha256(artifactFormat, unit.text, unit.flags.join(" "), unit.libraries.join(" "), unit.machine);
}

/** The same without the machine, whose features a bundle states once: a library runs wherever those it needs are there. */
export function bundleKey(unit: BuildUnit): string {
  return sha256(artifactFormat, unit.text, unit.flags.join(" "), unit.libraries.join(" "));
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export class Builder {
  private known: KnownCompiler | undefined;
  private opened: ArtifactCache | undefined;

  constructor(
    private readonly openCache: () => ArtifactCache,
    private readonly environment: Environment,
    private readonly counters: BuildCounters,
    private readonly log: (line: string) => void,
    /** Libraries made ahead of time; they serve before the cache does. */
    private readonly bundle?: Bundle,
  ) {}

  /** Opened when first needed: with a bundle that may be never. */
  private get cache(): ArtifactCache {
    return (this.opened ??= this.openCache());
  }

  /** One line: which compiler serves, or that artifacts come from the cache without one. */
  get compilerDescription(): string {
    return this.bundle ? `libraries of the bundle ${this.bundle.folder}` : this.toolchain().description;
  }

  /** The built library of a unit that was obtained before. */
  built(unit: BuildUnit): BuiltLibrary {
    const key = bundleKey(unit);
    const path = this.bundle?.library(key) ?? this.cache.find(this.keyOf(unit)).path;
    if (path === undefined)
      throw new NativeError("library-failed", `The library of "${unit.name}" is no longer in the artifact cache ${this.cache.directory}.`);
    return { key, name: unit.name, path };
  }

  /** Loads the unit's library, compiling it first when the cache has none. Throws `compiler-missing`, `CompilerError`, `cache-*`. */
  obtainSync(unit: BuildUnit): void {
    if (this.loadCached(unit)) return;
    const prepared = this.prepare(unit);
    const { job, key } = prepared;
    try {
      compileSync(prepared.compiler, job);
      this.loadFresh(unit, job, this.cache.add(key, job.outputPath));
    } finally {
      rmSync(job.outputPath, { force: true });
    }
  }

  /** The same with the event loop free while the compiler runs. */
  async obtain(unit: BuildUnit): Promise<void> {
    if (this.loadCached(unit)) return;
    const prepared = this.prepare(unit);
    const { job, key } = prepared;
    try {
      await compile(prepared.compiler, job);
      this.loadFresh(unit, job, this.cache.add(key, job.outputPath));
    } finally {
      rmSync(job.outputPath, { force: true });
    }
  }

  /** A record about programs; undefined when there is none. */
  findRecord(name: string, key: string): string | undefined {
    return this.cache.findRecord({ name, source: key });
  }

  addRecord(name: string, key: string, text: string): void {
    this.cache.addRecord({ name, source: key }, text);
  }

  /** The unit's C text in the cache folder, when it was compiled there. */
  sourcePath(unit: BuildUnit): string | undefined {
    if (this.bundle) return undefined;
    return this.cache.sourcePath(this.keyOf(unit));
  }

  private keyOf(unit: BuildUnit): ArtifactKey {
    return { name: unit.name, source: sourceKey(unit), compiler: this.toolchain().identity };
  }

  private loadBundled(unit: BuildUnit): boolean {
    const path = this.bundle?.library(bundleKey(unit));
    if (path === undefined) return false;
    try {
      unit.load(path);
    } catch (error) {
      throw new NativeError(
        "library-failed",
        `${path} cannot be loaded on this machine (${reasonOf(error)}). Make the bundle on a machine like this one.`,
        {
          cause: error,
        },
      );
    }
    this.counters.cacheHits += 1;
    return true;
  }

  private loadCached(unit: BuildUnit): boolean {
    if (this.loadBundled(unit)) return true;
    const { path, damaged } = this.cache.find(this.keyOf(unit));
    if (damaged) this.counters.cacheRebuilds += 1;
    if (path === undefined) return false;
    try {
      this.open(unit, path);
    } catch (error) {
      if (error instanceof NativeError && error.code === "cache-noexec") throw error;
      // Whole, yet not loadable here: built against another C library, for example, in a home folder shared by machines.
      this.log(`artifact cache: ${path} cannot be loaded (${reasonOf(error)}); it is removed and built again`);
      this.counters.cacheRebuilds += 1;
      this.cache.discard(path);
      return false;
    }
    this.counters.cacheHits += 1;
    return true;
  }

  private prepare(unit: BuildUnit): PreparedJob {
    const { compiler } = this.toolchain();
    if (!compiler)
      throw compilerMissing(
        this.environment,
        `build "${unit.name}" (it is not in ${this.bundle ? `the bundle ${this.bundle.folder}, nor in ` : ""}the artifact cache ${this.cache.directory})`,
      );
    const key = this.keyOf(unit);
    const sourcePath = this.cache.writeSource(key, unit.text);
    const outputPath = this.cache.temporaryPath(key);
    return { compiler, key, job: { flags: unit.flags, sourcePath, outputPath, libraries: unit.libraries, length: unit.text.length } };
  }

  private loadFresh(unit: BuildUnit, job: CompileJob, path: string): void {
    this.counters.compiled += 1;
    try {
      this.open(unit, path);
    } catch (error) {
      if (error instanceof NativeError && error.code === "cache-noexec") throw error;
      this.cache.discard(path);
      throw new CompilerError(
        `The library compiled from ${job.sourcePath} cannot be used: ${reasonOf(error)}`,
        job.sourcePath,
        reasonOf(error),
      );
    }
  }

  private open(unit: BuildUnit, path: string): void {
    try {
      unit.load(path);
    } catch (error) {
      // The dynamic loader's words for "mapping this file executable was refused".
      if (/failed to map segment|Operation not permitted/.test(reasonOf(error))) {
        throw new NativeError(
          "cache-noexec",
          `The artifact cache ${this.cache.directory} is on a file system that does not allow running code (mounted noexec?): ${reasonOf(error)}. Set TEMPOGRAPH_CACHE_DIR to a folder elsewhere.`,
          { cause: error },
        );
      }
      throw error;
    }
  }

  /** The compiler and its identity; the version is asked for once per compiler file and remembered beside the artifacts. */
  private toolchain(): KnownCompiler {
    if (this.known) return this.known;
    const compiler = findCompiler(this.environment);
    if (!compiler) return (this.known = { compiler, identity: undefined, description: "none found: artifacts come from the cache" });
    const memory = `compiler-${sha256(compilerStamp(compiler)).slice(0, 16)}`;
    let version = this.cache.recall(memory);
    if (version === undefined) {
      version = compilerVersion(compiler);
      if (version !== undefined) this.cache.remember(memory, version);
    }
    const name = [compiler.path, ...compiler.leadingArguments].join(" ");
    return (this.known = {
      compiler,
      identity: version === undefined ? undefined : sha256(name, version),
      description: `${name}: ${version ?? "does not answer --version"}`,
    });
  }
}
