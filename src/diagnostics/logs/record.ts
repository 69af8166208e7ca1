/**
 * Multi-line records of text logs: a first line opens one, later lines with the same prefix continue it, and closing it emits its event.
 * Holds the contract that the readers of single record types share.
 */
import type { Evidence, EventSink } from "./events.js";

/** An opened record. */
export interface OpenRecord {
  /**
   * Offers the next line. `bare` lines have no prefix that ties them to the record, so only lines of its form may be taken.
   * Returns false when the line is not part of the record.
   */
  add(message: string, bare: boolean): boolean;
  /** No more lines will come. */
  close(): void;
}

/** What a record knows of the line that opened it. */
export interface RecordContext {
  readonly sink: EventSink;
  readonly process: string;
  readonly compileId: string | undefined;
  readonly artifact: string | undefined;
  readonly evidence: Evidence;
}

/** Opens a record when `message` is the first line of one. */
export type RecordOpener = (message: string, context: RecordContext) => OpenRecord | undefined;

/** A record of one line, already emitted. */
export const SINGLE_LINE: OpenRecord = { add: () => false, close: () => undefined };
