/**
 * The system's C compiler: finding it, telling it apart from others, and running it without a shell, two at a time.
 * Must not know instruction sets, kernels or where artifacts are kept.
 */
import { spawn, spawnSync } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join, resolve } from "node:path";
import { CompilerError, NativeError } from "./errors.js";

export interface Compiler {
  /** Absolute path of the program. */
  readonly path: string;
  /** Words of `CC` after the program, for example `-m64` or the compiler behind `ccache`. */
  readonly leadingArguments: readonly string[];
}

/** What the environment decides: `CC` and `PATH`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Diagnostics in plain ASCII and English, so that messages read the same everywhere. */
const compilerEnvironment = { ...process.env, LC_ALL: "C" };

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function findOnPath(program: string, searchPath: string): string | undefined {
  if (program.includes("/")) return isExecutable(program) ? resolve(program) : undefined;
  return searchPath
    .split(delimiter)
    .filter((folder) => isAbsolute(folder))
    .map((folder) => join(folder, program))
    .find(isExecutable);
}

/** `CC` when it is set (a program or a path, optionally followed by arguments), else `cc`, `gcc`, `clang` on PATH; undefined when none is there. */
export function findCompiler(environment: Environment): Compiler | undefined {
  const searchPath = environment["PATH"] ?? "";
  const asked = environment["CC"]?.trim();
  if (asked) {
    const whole = findOnPath(asked, searchPath);
    if (whole !== undefined) return { path: whole, leadingArguments: [] };
    const [program = "", ...leadingArguments] = asked.split(/\s+/);
    const path = findOnPath(program, searchPath);
    return path === undefined ? undefined : { path, leadingArguments };
  }
  for (const program of ["cc", "gcc", "clang"]) {
    const path = findOnPath(program, searchPath);
    if (path !== undefined) return { path, leadingArguments: [] };
  }
  return undefined;
}

/** The error for a machine without a compiler; `purpose` completes "A C compiler is needed to ...". */
export function compilerMissing(environment: Environment, purpose: string): NativeError {
  const looked = environment["CC"]?.trim()
    ? `CC="${environment["CC"].trim()}" is not an executable program`
    : "no cc, gcc or clang is on PATH";
  return new NativeError(
    "compiler-missing",
    `A C compiler is needed to ${purpose}, but ${looked}. Install gcc or clang, set CC to one, or use the device "reference".`,
  );
}

/** Size and time of the program file: changes when the compiler is replaced, and costs no process to ask. */
export function compilerStamp(compiler: Compiler): string {
  const { size, mtimeMs } = statSync(compiler.path);
  return [compiler.path, ...compiler.leadingArguments, size, mtimeMs].join(" ");
}

/** First line of `--version`; undefined when the program does not answer, so that its own message comes with the first file it fails on. */
export function compilerVersion(compiler: Compiler): string | undefined {
  const answer = spawnSync(compiler.path, [...compiler.leadingArguments, "--version"], { encoding: "utf8", env: compilerEnvironment });
  return answer.status === 0 ? answer.stdout.split("\n", 1)[0]?.trim() || undefined : undefined;
}

export interface CompileJob {
  readonly flags: readonly string[];
  readonly sourcePath: string;
  readonly outputPath: string;
  /** Flags after the source file, `-lm` for example. */
  readonly libraries: readonly string[];
  /** Length of the text: what takes longest is begun first, so that no compiler is left with a long file at the end while the other has none. */
  readonly length: number;
}

function firstLines(text: string): string {
  return text.trim().split("\n").slice(0, 12).join("\n");
}

function argumentsOf(compiler: Compiler, job: CompileJob): string[] {
  return [...compiler.leadingArguments, ...job.flags, "-o", job.outputPath, job.sourcePath, ...job.libraries];
}

function failure(compiler: Compiler, job: CompileJob, outcome: string, output: string): CompilerError {
  const said = firstLines(output) || "(it printed nothing)";
  return new CompilerError(`${compiler.path} failed on ${job.sourcePath} (${outcome}; the file is kept):\n${said}`, job.sourcePath, output);
}

/** Compiles and links one file, blocking. Throws `CompilerError`. */
export function compileSync(compiler: Compiler, job: CompileJob): void {
  const answer = spawnSync(compiler.path, argumentsOf(compiler, job), { encoding: "utf8", env: compilerEnvironment });
  if (answer.error) throw failure(compiler, job, answer.error.message, "");
  if (answer.status !== 0) throw failure(compiler, job, outcomeOf(answer.status, answer.signal), answer.stderr + answer.stdout);
}

function outcomeOf(status: number | null, signal: NodeJS.Signals | null): string {
  return status === null ? `killed by ${String(signal)}` : `exit status ${status}`;
}

const maximumRunning = 2;
let running = 0;
/** Longest first. */
const waiting: { readonly length: number; readonly begin: () => void }[] = [];

function turnOf({ length }: CompileJob): Promise<void> {
  return new Promise((begin) => {
    const shorter = waiting.findIndex((other) => other.length < length);
    waiting.splice(shorter < 0 ? waiting.length : shorter, 0, { length, begin });
  });
}

/** Compiles and links one file; at most two compilers of this process run at once, the longest of the waiting files first. Rejects with `CompilerError`. */
export async function compile(compiler: Compiler, job: CompileJob): Promise<void> {
  if (running >= maximumRunning) await turnOf(job);
  else running += 1;
  try {
    await spawnCompiler(compiler, job);
  } finally {
    const next = waiting.shift();
    if (next) next.begin();
    else running -= 1;
  }
}

function spawnCompiler(compiler: Compiler, job: CompileJob): Promise<void> {
  return new Promise((resolveDone, reject) => {
    const child = spawn(compiler.path, argumentsOf(compiler, job), { stdio: ["ignore", "pipe", "pipe"], env: compilerEnvironment });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (output += text));
    child.on("error", (error) => reject(failure(compiler, job, error.message, output)));
    child.on("close", (status, signal) => {
      if (status === 0) resolveDone();
      else reject(failure(compiler, job, outcomeOf(status, signal), output));
    });
  });
}
