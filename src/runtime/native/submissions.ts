/**
 * The JavaScript side of the dispatcher: hands tables over and settles one promise per ticket when its pipe says that jobs have finished.
 * No thread of Node's pool waits for anything; an idle pipe does not keep the process alive. Must not know what a table computes.
 */
import { Socket, type OnReadOpts, type SocketConstructorOpts } from "node:net";
import type { RunOptions } from "./contract.js";
import { NativeError } from "./errors.js";
import type { RuntimeFunctions } from "./ffi.js";

interface Pending {
  readonly resolve: (status: number) => void;
  readonly reject: (error: Error) => void;
}

export class Submissions {
  private client = 0;
  private pipe: Socket | undefined;
  private readonly pending = new Map<number, Pending>();
  /** Where the runtime writes the status of a job that is taken. */
  private readonly status = new Int32Array(1);

  /** `onWake` is called once for every time the event loop is woken. */
  constructor(
    private readonly runtime: RuntimeFunctions,
    private readonly onWake: () => void,
  ) {}

  submit(table: number, count: number, options: RunOptions): Promise<number> {
    return new Promise((resolve, reject) => {
      const pipe = this.openPipe();
      const { threads, abortWord, scratchBytes, profile } = options;
      const ticket = this.runtime.submit(this.client, table, count, threads, abortWord, scratchBytes, profile ? 1 : 0);
      if (ticket === 0)
        throw new NativeError("out-of-memory", "The dispatcher took no job: memory or threads are out. Free some and submit again.");
      if (this.pending.size === 0) pipe.ref();
      this.pending.set(ticket, { resolve, reject });
    });
  }

  private openPipe(): Socket {
    if (this.pipe) return this.pipe;
    const descriptor = new Int32Array(1);
    this.client = this.runtime.open(descriptor);
    if (this.client === 0)
      throw new NativeError("out-of-memory", "No pipe to the dispatcher: memory or file descriptors are out. Free some and submit again.");
    // What arrives says nothing: with a buffer of its own no stream, no copy and no event stands between the wake and the answer.
    const callback = (): boolean => {
      this.settleFinished();
      return true;
    };
    const options: SocketConstructorOpts & { readonly onread: OnReadOpts } = {
      fd: descriptor[0] as number,
      readable: true,
      writable: false,
      onread: { buffer: new Uint8Array(64), callback },
    };
    const pipe = new Socket(options);
    pipe.on("error", (error) => {
      for (const waiting of this.pending.values()) waiting.reject(error);
      this.close();
    });
    pipe.unref();
    // Stops what still runs, so that neither a process nor a worker waits for a forecast nobody will read.
    process.once("exit", () => this.close());
    this.pipe = pipe;
    return pipe;
  }

  private settleFinished(): void {
    this.onWake();
    const { status } = this;
    for (let ticket; (ticket = this.runtime.take(this.client, status)) !== 0;) {
      const waiting = this.pending.get(ticket);
      this.pending.delete(ticket);
      const answer = status[0] ?? 0;
      if (answer >= 0) waiting?.resolve(answer);
      else waiting?.reject(new NativeError("out-of-memory", "The run got no scratch memory: memory is out."));
    }
    if (this.pending.size === 0) this.pipe?.unref();
  }

  private close(): void {
    if (this.client === 0) return;
    this.runtime.close(this.client);
    this.client = 0;
    this.pending.clear();
    this.pipe?.destroy();
    this.pipe = undefined;
  }
}
