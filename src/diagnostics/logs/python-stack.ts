/**
 * Reading Python stacks as PyTorch prints them: `File "x.py", line 7, in forward`, then the source line, then markers.
 */
import type { CodeLine } from "./events.js";

const FRAME = /^\s*(?:-\s+)?File "([^"]+)", line (\d+)(?:, in (.+?))?(?:,? code: (.*))?$/;
const MARKERS = /^[\s~^|]*$/;
/** A stack deeper than this keeps its innermost frames only. */
const DEEPEST = 64;

/** Collects the frames of one stack, line by line. */
export class StackReader {
  private readonly frames: CodeLine[] = [];
  private awaitsCode = false;

  /** Takes a line when it belongs to a stack. */
  add(message: string): boolean {
    const frame = FRAME.exec(message);
    if (frame !== null) {
      this.frames.push({ file: frame[1] ?? "", line: Number(frame[2]), function: frame[3] ?? "", text: frame[4] ?? "" });
      if (this.frames.length > DEEPEST) this.frames.shift();
      this.awaitsCode = frame[4] === undefined;
      return true;
    }
    const last = this.frames.at(-1);
    if (last === undefined) return false;
    if (this.awaitsCode && /^\s{2,}\S/.test(message)) {
      this.awaitsCode = false;
      this.frames[this.frames.length - 1] = { ...last, text: message.trim() };
      return true;
    }
    return /[~^]/.test(message) && MARKERS.test(message);
  }

  /** Frames of the user's code, innermost last; every frame when the library's are all there is. */
  userCode(): CodeLine[] {
    const user = this.frames.filter((frame) => !isLibrary(frame.file));
    return user.length > 0 ? user : [...this.frames];
  }
}

/** True for files of PyTorch, of other installed packages and of Python itself. */
export function isLibrary(file: string): boolean {
  return /(?:site-packages|dist-packages)\/|\/lib\/python3[^/]*\/|^<frozen|^torch\//.test(file.replaceAll("\\", "/"));
}

/** "file:line" of a frame, "" for none. */
export function locationOf(frame: CodeLine | undefined): string {
  return frame === undefined ? "" : `${frame.file}:${frame.line}`;
}
