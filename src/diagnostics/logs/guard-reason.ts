/**
 * What a failed guard says: cutting PyTorch's text down to the guard, and telling from its shape what kind of thing changed.
 * The rules go by the form of the expression, never by the names of one program.
 */
import type { Diagnosis } from "./causes.js";

/** The first failed guard without its "i/j:" prefix and without everything from two spaces and "#" on. */
export function cutReason(text: string): string {
  const line = firstLine(text).replace(/^\s*(?:-\s+)?(?:!?[\d/]+\/\d+(?:_\d+)?: ?)?/, "");
  const comment = / {2,}#/.exec(line);
  return (comment === null ? line : line.slice(0, comment.index)).trim();
}

/** The cached values a guard holds and the actual value that failed it, as far as the text shows them. */
export function valuesOf(reason: string): string[] {
  const mismatch = /expected (.+?), (?:actual|but found) (.+)$/.exec(reason);
  if (mismatch !== null) return [mismatch[1] ?? "", mismatch[2] ?? ""];
  const equality = /^[^=<>!]+ (?:==|!=|is) (.+)$/.exec(reason);
  return equality === null ? [] : [equality[1] ?? ""];
}

/** The guard with its values taken out, so that guards that differ in values only count as one. */
export function guardTemplate(reason: string): string {
  return reason
    .replace(/(expected) .+?, (actual|but found) .+$/, "$1 *, $2 *")
    .replace(/( (?:==|!=) )'.*'$/, "$1*")
    .replace(/( (?:==|!=) )[^\s].*$/, "$1*")
    .replace(/\b0x[0-9a-f]+\b/g, "*")
    .replace(/\[\d+\]/g, "[*]");
}

/** The variable a value guard is about: "cache.index[3]" of "cache.index[3] == 0", and of "L['cache'].index[3] == 0" as older versions write it. */
export function guardSubject(reason: string): string {
  const equality = /^(.+?) (?:==|!=|is not|is) /.exec(reason);
  return (equality?.[1] ?? reason).trim().replace(/^L\['(\w+)'\]/, "$1");
}

const SHAPE = /(?:size|stride|rank|storage_offset) mismatch|\.(?:size|stride|storage_offset)\(\)|Shape guard failed|^s\d+\b|\bu\d+\b/;
const TYPE =
  /dtype mismatch|dispatch key set mismatch|requires_grad mismatch|device (?:index )?mismatch|expected type of|___check_type_id|\bis (?:not )?None$|^(?:not )?hasattr\(|___check_metadata|\btype\(/;
const LENGTH =
  /^(?:not )?len\(|__len__\(|___dict_version|___dict_contains|__contains__\(|^KeyError|_len\(|wrong length|\.keys\(\)|dict_keys|(?:==|!=) (?:set\(|frozenset\(|\{)|^not [A-Za-z_][\w.[\]'"]*$|LENGTH_CHECK/;
const GLOBAL_STATE =
  /^GLOBAL_STATE|___check_global_state|torch_function_mode_stack|CURRENT_DEVICE|forward_ad|functorch_state|saved_tensors_hooks|deterministic/;
const ALIASING = /Duplicate tensors? found|^[\w.[\]']+ is [A-Za-z_][\w.[\]']*$/;
const CACHE_NAME = /cache|\bkv|_kv\b|past_/i;
const POSITION = /_idx\b|\bidx\b|index|\bpos(?:ition)?s?\b|_pos\b|offset|cur(?:rent)?_len|seq_?len|num_tokens|n_past/i;
const LAYER = /layer|block_?(?:idx|i|id)|depth/i;

/** `arguments[0] f32[B][8]`, `cache.keys state keys f32[4]`: the form in which this package guards what a tensor is. */
const OWN_TENSOR = / (?:state \S+ )?((?:f|i|u|bf)\d+)\[[^\]]*\]/;

/** Tells the cause of a recompile from the guard that failed, and from the value that failed it where the guard alone does not say. */
export function diagnoseGuard(reason: string, values: readonly string[] = []): Diagnosis {
  const tensor = OWN_TENSOR.exec(reason);
  if (tensor !== null) {
    const now = values.at(-1) ?? "";
    const isOtherType = now !== "" && !now.includes(`${tensor[1] ?? ""}[`);
    return isOtherType ? { cause: "type-change", kind: "dtype" } : { cause: "dynamic-size", kind: "size" };
  }
  if (/^size \w+ ==/.test(reason)) return { cause: "dynamic-size", kind: "size" };
  if (/^number of arguments/.test(reason)) return { cause: "list-or-dict-length", kind: "list" };
  if (GLOBAL_STATE.test(reason)) return { cause: "other", kind: "torch-state" };
  if (/^BACKEND_MATCH/.test(reason)) return { cause: "other", kind: "backend" };
  if (/rank mismatch/.test(reason)) return { cause: "dynamic-size", kind: "rank" };
  // Up to 2.3 PyTorch compares strides before sizes, so that a stride may stand for a size there.
  if (!/tensor 'L\[/.test(reason) && /(?:stride|storage_offset) mismatch|\.(?:stride|storage_offset)\(\)/.test(reason))
    return { cause: "dynamic-size", kind: "layout" };
  if (SHAPE.test(reason)) return { cause: "dynamic-size", kind: "size" };
  if (/^KeyError|___dict_contains/.test(reason)) {
    return reason.includes("__dict__") ? { cause: "type-change", kind: "attribute" } : { cause: "list-or-dict-length", kind: "dict" };
  }
  if (LENGTH.test(reason))
    return { cause: "list-or-dict-length", kind: /dict|keys|__contains__|\{.*:|^len\(.*\) != /.test(reason) ? "dict" : "list" };
  if (TYPE.test(reason)) return { cause: "type-change", kind: typeKind(reason) };
  if (ALIASING.test(reason)) return { cause: "other", kind: "aliasing" };
  if (/___check_obj_id|id\(/.test(reason)) return { cause: "python-value-guard", kind: "object" };
  if (/==|!=|<=|>=|<|>|\bin\b|\bis\b|^not /.test(reason)) return { cause: "python-value-guard", kind: valueKind(reason) };
  return { cause: "other", kind: "unknown" };
}

/** A whole number that changes in a function that decodes or fills a cache is a position, whatever its variable is called. */
export function isCachePosition(reason: string, functionName: string): boolean {
  return / == \d+$/.test(reason) && /decode|cache/i.test(functionName) && !LAYER.test(guardSubject(reason));
}

function typeKind(reason: string): string {
  if (/dtype mismatch/.test(reason)) return "dtype";
  if (/hasattr\(/.test(reason)) return "attribute";
  if (/None/.test(reason)) return "none";
  if (/requires_grad|dispatch key|device/.test(reason)) return "tensor-kind";
  return "class";
}

function valueKind(reason: string): string {
  const subject = guardSubject(reason);
  if (LAYER.test(subject)) return "argument";
  if (CACHE_NAME.test(subject)) return "cache-index";
  if (/^G\[|__globals__|^globals\(/.test(subject)) return "global";
  if (POSITION.test(subject)) return "cache-index";
  if (/\.training$/.test(subject)) return "training";
  if (/[.[]/.test(subject)) return "attribute";
  return "argument";
}

function firstLine(text: string): string {
  const end = text.indexOf("\n");
  return end < 0 ? text : text.slice(0, end);
}
