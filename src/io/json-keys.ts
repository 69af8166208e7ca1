/**
 * Finding a repeated key in JSON text, which JSON.parse silently resolves to the last one.
 * Knows nothing of what the text means.
 */

/**
 * The first key that occurs twice in one object, with the path of keys to that object, or undefined.
 * `text` must be valid JSON: parse it first.
 */
export function firstDuplicateKey(text: string): { readonly key: string; readonly path: readonly string[] } | undefined {
  /** One entry per open object or list; lists hold no keys. */
  const open: { readonly keys: Set<string> | undefined; current: string }[] = [];
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === "{") open.push({ keys: new Set(), current: "" });
    else if (character === "[") open.push({ keys: undefined, current: "" });
    else if (character === "}" || character === "]") open.pop();
    else if (character === '"') {
      const end = endOfString(text, at);
      const inside = open.at(-1);
      if (inside?.keys && isKey(text, end)) {
        const key = JSON.parse(text.slice(at, end)) as string;
        if (inside.keys.has(key)) return { key, path: open.slice(0, -1).map((level) => level.current) };
        inside.keys.add(key);
        inside.current = key;
      }
      at = end - 1;
    }
  }
  return undefined;
}

/** Position after the closing quote of the string that opens at `start`. */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}

/** Whether the string that ended at `end` is followed by a colon. */
function isKey(text: string, end: number): boolean {
  let at = end;
  while (text[at] === " " || text[at] === "\n" || text[at] === "\r" || text[at] === "\t") at++;
  return text[at] === ":";
}
