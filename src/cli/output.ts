/**
 * Where a command's answer goes: stdout, or a file that appears whole or not at all.
 */
import { open, rename, rm, stat } from "node:fs/promises";
import { InputError } from "../forecast/errors.js";

/** Throws InputError when `path` can not become a file: a folder, or in a folder that is missing. For checks before any work. */
export async function checkOutput(path: string): Promise<void> {
  const target = await stat(path).catch(() => undefined);
  if (target?.isDirectory() === true) throw new InputError("output-directory", `--output ${path} is a folder: name a file`);
  const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) || "/" : ".";
  const parent = await stat(folder).catch(() => undefined);
  if (parent?.isDirectory() !== true)
    throw new InputError("output-folder", `--output ${path}: there is no folder ${folder}: create it first`);
}

/** Writes beside `path` and renames, so that a reader sees the old file or the whole new one. Throws InputError. */
export async function writeWhole(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}.${Date.now().toString(36)}.tmp`;
  try {
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(text, "utf8");
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    const code = (error as NodeJS.ErrnoException).code ?? "unknown error";
    throw new InputError("output-write", `--output ${path} could not be written (${code}); nothing was left behind`, { cause: error });
  }
}
