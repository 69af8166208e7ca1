/**
 * Bundles: a folder with programs, built libraries and what machine they need, made ahead of time so that a machine without a compiler can run them.
 * Writes one whole or not at all; reads one only on a machine that has what it needs. Must not know models or graphs.
 */
import { randomUUID } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { artifactFormat, sha256 } from "./artifact-cache.js";
import type { BundledProgram } from "../device.js";
import type { Isa } from "./contract.js";
import { cpuFeatures, requiredFeatures } from "./cpu.js";
import { NativeError } from "./errors.js";

export const bundleFormat = "tempograph-bundle-1";
const manifestName = "bundle.json";

export interface BundleManifest {
  readonly format: string;
  readonly artifacts: string;
  /** What the bundle was made of and for; the model layer's own words. */
  readonly about: Readonly<Record<string, unknown>>;
  readonly machine: { readonly platform: string; readonly arch: string; readonly isa: Isa; readonly features: readonly string[] };
  readonly programs: readonly { readonly key: string; readonly name: string; readonly file: string; readonly sha256: string }[];
  readonly libraries: readonly { readonly key: string; readonly name: string; readonly file: string; readonly sha256: string }[];
}

/** A library as it is built, to be put into a bundle. */
export interface BuiltLibrary {
  readonly key: string;
  readonly name: string;
  readonly path: string;
}

export const isBundle = (folder: string): boolean => existsSync(join(folder, manifestName));

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Manifest of the bundle in `folder`, its form checked but not this machine. Throws `bundle-damaged`. */
export function readBundleManifest(folder: string): BundleManifest {
  const path = join(folder, manifestName);
  let manifest: BundleManifest;
  try {
    manifest = JSON.parse(readFileSync(path, "utf8")) as BundleManifest;
  } catch (error) {
    throw new NativeError("bundle-damaged", `${path} cannot be read as a bundle's manifest (${reasonOf(error)}). Make the bundle again.`);
  }
  if (manifest?.format !== bundleFormat || manifest.artifacts !== artifactFormat)
    throw new NativeError(
      "bundle-machine",
      `${path} is of format ${String(manifest?.format)}, ${String(manifest?.artifacts)}; this version reads ${bundleFormat}, ${artifactFormat}. Make the bundle again with this version.`,
    );
  if (!Array.isArray(manifest.programs) || !Array.isArray(manifest.libraries) || !Array.isArray(manifest.machine?.features))
    throw new NativeError("bundle-damaged", `${path} lacks programs, libraries or machine. Make the bundle again.`);
  return manifest;
}

export class Bundle {
  private constructor(
    readonly folder: string,
    readonly manifest: BundleManifest,
  ) {}

  /** Opens a bundle for this machine. Throws `bundle-machine` naming what the machine lacks, `bundle-damaged`, `cache-unsafe`. */
  static open(folder: string, features: ReadonlySet<string> = cpuFeatures()): Bundle {
    const manifest = readBundleManifest(folder);
    const { platform, arch, isa, features: needed } = manifest.machine;
    if (platform !== process.platform || arch !== process.arch)
      throw new NativeError(
        "bundle-machine",
        `The bundle ${folder} was made for ${platform} on ${arch}; this machine is ${process.platform} on ${process.arch}. Make a bundle on such a machine.`,
      );
    const missing = needed.filter((feature) => !features.has(feature));
    if (missing.length > 0)
      throw new NativeError(
        "bundle-machine",
        `The bundle ${folder} was made for ${isa} and needs the CPU features ${needed.join(", ")}; this CPU lacks ${missing.join(", ")}. Make it again with TEMPOGRAPH_ISA set to an instruction set both machines have (avx2, plain).`,
      );
    const found = statSync(folder);
    const user = process.getuid?.();
    if ((found.mode & 0o022) !== 0 || (user !== undefined && found.uid !== user && found.uid !== 0))
      throw new NativeError(
        "cache-unsafe",
        `The bundle ${folder} belongs to user ${found.uid} with mode ${(found.mode & 0o777).toString(8)}: others may change the code in it. Make it yours or root's, and run "chmod go-w ${folder}".`,
      );
    return new Bundle(folder, manifest);
  }

  get isa(): Isa {
    return this.manifest.machine.isa;
  }

  /** Path of a whole, unchanged library; undefined when the bundle has none of that key. */
  library(key: string): string | undefined {
    const entry = this.manifest.libraries.find((library) => library.key === key);
    if (!entry) return undefined;
    this.#checked(entry);
    return join(this.folder, entry.file);
  }

  /** Text of a whole, unchanged program; undefined when the bundle has none of that key. */
  program(key: string): string | undefined {
    const entry = this.manifest.programs.find((program) => program.key === key);
    return entry && this.#checked(entry).toString("utf8");
  }

  #checked(entry: { readonly file: string; readonly sha256: string }): Buffer {
    let bytes: Buffer;
    try {
      bytes = readFileSync(join(this.folder, entry.file));
    } catch (error) {
      throw this.#damaged(entry.file, reasonOf(error));
    }
    if (sha256(bytes) !== entry.sha256) throw this.#damaged(entry.file, "its checksum differs");
    return bytes;
  }

  #damaged(file: string, reason: string): NativeError {
    return new NativeError("bundle-damaged", `The bundle ${this.folder} is damaged: ${file}: ${reason}. Make it again.`);
  }
}

export interface BundleContents {
  readonly about: Readonly<Record<string, unknown>>;
  readonly isa: Isa;
  readonly programs: ReadonlyMap<string, BundledProgram>;
  readonly libraries: readonly BuiltLibrary[];
  /** Files to take along, path inside the bundle -> path of the original. */
  readonly files?: ReadonlyMap<string, string>;
}

/** Writes a bundle to a new folder. Throws `bundle-exists` when something is there, `bundle-unwritable`. */
export function writeBundle(folder: string, { about, isa, programs, libraries, files }: BundleContents): BundleManifest {
  const target = resolve(folder);
  if (existsSync(target))
    throw new NativeError("bundle-exists", `${folder} exists already; name a new folder for the bundle, or remove it.`);
  const temporary = join(dirname(target), `.${randomUUID()}.partial`);
  try {
    mkdirSync(join(temporary, "programs"), { recursive: true, mode: 0o755 });
    mkdirSync(join(temporary, "libraries"), { mode: 0o755 });
    const manifest: BundleManifest = {
      format: bundleFormat,
      artifacts: artifactFormat,
      about,
      machine: { platform: process.platform, arch: process.arch, isa, features: requiredFeatures(isa) },
      programs: [...programs].map(([key, { name, text }]) => {
        const file = join("programs", `${name.replace(/[^\w.-]+/g, "_")}-${key.slice(0, 12)}.json`);
        writeFileSync(join(temporary, file), text);
        return { key, name, file, sha256: sha256(text) };
      }),
      libraries: libraries.map(({ key, name, path }) => {
        const file = join("libraries", `${name.replace(/[^\w.-]+/g, "_").slice(0, 80)}-${key.slice(0, 12)}.so`);
        copyFileSync(path, join(temporary, file));
        return { key, name, file, sha256: sha256(readFileSync(join(temporary, file))) };
      }),
    };
    for (const [file, source] of files ?? []) {
      mkdirSync(dirname(join(temporary, file)), { recursive: true });
      copyFileSync(source, join(temporary, file));
    }
    writeFileSync(join(temporary, manifestName), `${JSON.stringify(manifest, null, 2)}\n`);
    renameSync(temporary, target);
    return manifest;
  } catch (error) {
    rmSync(temporary, { recursive: true, force: true });
    throw new NativeError(
      "bundle-unwritable",
      `The bundle ${folder} cannot be written (${reasonOf(error)}). Name a folder in a place you may write to.`,
      {
        cause: error,
      },
    );
  }
}
