/** Measurements that overlap divide the time between them: their sum is the time that passed while any was under way. */
import { describe, expect, it } from "vitest";
import { SharedTime } from "../src/runtime/shared-time.js";

function clock(): { readonly time: SharedTime; at: (now: number) => void } {
  let now = 0;
  return { time: new SharedTime(() => now), at: (next) => void (now = next) };
}

describe("shared time", () => {
  it("is all of a measurement that is alone", () => {
    const { time, at } = clock();
    at(5);
    const end = time.begin();
    at(12);
    expect(end()).toBe(7);
    at(20);
    const again = time.begin();
    at(21);
    expect(again()).toBe(1);
  });

  it("is divided while measurements overlap, so that none is counted twice", () => {
    const { time, at } = clock();
    const first = time.begin();
    at(10);
    const second = time.begin();
    at(16);
    const third = time.begin();
    at(22);
    expect(first()).toBe(10 + 3 + 2);
    at(30);
    expect(second()).toBe(3 + 2 + 4);
    at(31);
    expect(third()).toBe(2 + 4 + 1);
  });

  it("a measurement that is ended twice keeps what it had", () => {
    const { time, at } = clock();
    const first = time.begin();
    at(3);
    expect(first()).toBe(3);
    at(9);
    expect(first()).toBe(3);
  });
});
