/**
 * Wordings and forms of log that the fixtures do not have: other PyTorch versions, CUDA graphs, prefixes of launchers, this package's own lines.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { analyzeLogText } from "../src/diagnostics/logs/analyze.js";
import { CAUSES } from "../src/diagnostics/logs/causes.js";
import { adviceFor } from "../src/diagnostics/logs/advice.js";
import { diagnoseGuard, cutReason } from "../src/diagnostics/logs/guard-reason.js";

const FOLDER = new URL("./torch-logs/", import.meta.url).pathname;

function causesOf(text: string): string[] {
  return analyzeLogText(text).rootCauses.map((cause) => cause.cause);
}

describe("guards", () => {
  const CASES: readonly (readonly [guard: string, cause: string, kind: string])[] = [
    ["0/0: tensor 'x' size mismatch at index 0. expected 4, actual 7", "dynamic-size", "size"],
    ["tensor 'L['x']' size mismatch at index 0. expected 20, actual 21", "dynamic-size", "size"],
    ["1/2: tensor 'k' stride mismatch at index 1. expected 64, actual 128", "dynamic-size", "layout"],
    ["tensor 'L['past']' stride mismatch at index 0. expected 16, actual 24", "dynamic-size", "size"],
    ["2/0: 2 <= L['x'].size()[0] <= 1024  # x = x[: n]  # a.py:3 in f", "dynamic-size", "size"],
    ["0/1: tensor 'x' rank mismatch. expected 1, actual 2", "dynamic-size", "rank"],
    ["0/0: tensor 'h' dtype mismatch. expected Float, actual BFloat16", "type-change", "dtype"],
    ["0/0: tensor 'x' requires_grad mismatch. expected requires_grad=0", "type-change", "tensor-kind"],
    ["0/0: expected type of 'm' to be <class 'torch.Tensor'>, but found <class 'NoneType'>", "type-change", "none"],
    ["0/0: ___check_type_id(L['w'], 7585216)", "type-change", "class"],
    ["0/0: state is None", "type-change", "none"],
    ["0/0: not hasattr(s, 'scale')   # if hasattr(s, 'scale')", "type-change", "attribute"],
    ["0/0: set.__contains__(flags, 'fast')   # if 'fast' in flags", "list-or-dict-length", "dict"],
    ["0/3: len(L['past']) == 3", "list-or-dict-length", "list"],
    ["0/0: not self.history", "list-or-dict-length", "list"],
    ["0/0: len(features) != 4", "list-or-dict-length", "dict"],
    ["0/0: KeyError on features['b']", "list-or-dict-length", "dict"],
    ["0/0: list(d.keys()) == ['a', 'b']", "list-or-dict-length", "dict"],
    ["0/0: ___tuple_iterator_len(it) == 3", "list-or-dict-length", "list"],
    ["3/7: kv_cache._current_idx[7] == 0                    # pos = offset", "python-value-guard", "cache-index"],
    ["0/4: self.past_key_values.seen == 12", "python-value-guard", "cache-index"],
    ["0/4: L['input_pos'] == 12", "python-value-guard", "cache-index"],
    ["0/4: G['COUNTER'] == 12", "python-value-guard", "global"],
    ["0/4: L['temperature'] == 0.7", "python-value-guard", "argument"],
    ["0/4: L['self'].mode == 1", "python-value-guard", "attribute"],
    ["0/4: temperature == 0.7", "python-value-guard", "argument"],
    ["0/4: name == 'BTC'", "python-value-guard", "argument"],
    ["0/4: layer_idx == 3", "python-value-guard", "argument"],
    ["0/6: ___check_obj_id(self._modules['attn'].processor, 140576345756128)", "python-value-guard", "object"],
    ["0/0: GLOBAL_STATE changed: grad_mode ", "other", "torch-state"],
    ["0/0: ___check_global_state()", "other", "torch-state"],
    ['0/0: Duplicate tensors found: ["x", "y"]', "other", "aliasing"],
  ];
  it.each(CASES)("%s", (guard, cause, kind) => expect(diagnoseGuard(cutReason(guard))).toEqual({ cause, kind }));

  it("cuts the id and the comment, and nothing else", () => {
    expect(cutReason("    - 12/3: d['a # b'] == 1   # x = d  # a.py:3 in f")).toBe("d['a # b'] == 1");
    expect(cutReason("!0/12/3: x is None")).toBe("x is None");
  });
});

describe("a switch beside a value that never repeats", () => {
  const head = (compile: number): string => `V1126 14:34:30.000000 77 torch/_dynamo/guards.py:6374] [2/${compile}] [__recompiles]`;
  /** Recompile number `compile` as PyTorch logs it: the newest variant first, each with the guard that failed there. */
  const recompile = (compile: number, guards: readonly string[]): string[] => [
    `${head(compile)} Recompiling function forward in /srv/model.py:12`,
    `${head(compile)}     triggered by the following guard failure(s):`,
    ...guards.map((guard, variant) => `${head(compile)}     - 2/${guards.length - 1 - variant}: ${guard}`),
  ];
  const gradients = (compile: number): string => `tensor 'x' requires_grad mismatch. expected requires_grad=${compile % 2}`;
  const counter = (variant: number): string => `self.steps == ${variant}                  # x * self.steps`;

  it("is no cause: the value is", () => {
    const lines = Array.from({ length: 7 }, (_, index) =>
      recompile(index + 1, [gradients(index), ...Array.from({ length: index }, (__, variant) => counter(index - 1 - variant))]),
    ).flat();
    const analysis = analyzeLogText(lines.join("\n"));
    expect(analysis.recompiles.total).toBe(7);
    expect(Object.keys(analysis.recompiles.byReason)).toEqual([gradients(0), gradients(1)]);
    expect(analysis.rootCauses.map((cause) => `${cause.cause}/${cause.kind} ${cause.occurrences}`)).toEqual([
      "python-value-guard/attribute 7",
    ]);
  });

  it("is the cause where it stands alone", () => {
    const lines = [1, 2].flatMap((compile) => recompile(compile, [gradients(compile), gradients(compile + 1)].slice(0, compile)));
    expect(causesOf(lines.join("\n"))).toEqual(["type-change"]);
  });
});

describe("older PyTorch", () => {
  it("2.0: a recompile on one line", () => {
    const analysis = analyzeLogText(
      `[2023-04-13 21:42:57,808] torch._dynamo.convert_frame.__recompiles: [DEBUG] ('Recompiling function step in /srv/kf.py', "triggered by the following guard failure: L['t'] == 0")`,
    );
    expect(analysis.recompiles).toMatchObject({
      total: 1,
      byFunction: { step: 1 },
      byReason: { "L['t'] == 0": 1 },
      byLocation: { "/srv/kf.py": 1 },
    });
  });

  it("2.1: bracketed prefix, reasons without ids, the limit's old name", () => {
    const head = "[2023-11-21 19:02:13,073] [0/1] torch._dynamo.guards.__recompiles: [DEBUG]";
    const limit = "[2023-11-21 19:02:19,100] torch._dynamo.convert_frame: [WARNING]";
    const analysis = analyzeLogText(
      [
        `${head} Recompiling function accumulate in <ipython-input-6>:6`,
        `${head}     triggered by the following guard failure(s):`,
        `${head}     - L['end'] == 10                    # for i in range(start+1, end):  # <ipython-input-6>:9 in accumulate`,
        `${head}     - L['start'] == 1                   # result = X0[start]  # <ipython-input-6>:8 in accumulate`,
        `${limit} torch._dynamo hit config.cache_size_limit (64)`,
        `${limit}    function: 'accumulate' (<ipython-input-6>:6)`,
        `${limit}    last reason: L['end'] == 73`,
      ].join("\n"),
    );
    expect(analysis.recompiles).toMatchObject({ total: 1, byFunction: { accumulate: 1 }, byReason: { "L['end'] == 10": 1 } });
    expect(analysis.recompileLimitHits).toMatchObject({
      total: 1,
      byFunction: { accumulate: 1 },
      byLimit: { "64": 1 },
      lastReasons: ["L['end'] == 73"],
    });
    expect(analysis.rootCauses[0]).toMatchObject({ cause: "python-value-guard", severity: "bad" });
  });

  it("2.3: a graph break with its reason in the header", () => {
    const head = "V0424 17:43:09.047000 140335367288640 torch/_dynamo/symbolic_convert.py:527] [0/0] [__graph_breaks]";
    const analysis = analyzeLogText(
      [
        `${head} Graph break: call_function BuiltinVariable(print) [ConstantVariable(str)] {} from user code at:`,
        `${head}   File "/srv/a.py", line 8, in fn`,
        `${head}     print("x")`,
        `${head} Traceback (most recent call last):`,
        `${head} torch._dynamo.exc.Unsupported: call_function BuiltinVariable(print)`,
      ].join("\n"),
    );
    expect(analysis.graphBreaks).toMatchObject({ total: 1, byLocation: { "/srv/a.py:8": 1 } });
    expect(analysis.rootCauses[0]).toMatchObject({ cause: "unsupported-call", kind: "output" });
    expect(
      causesOf(`${head} Graph break: generic_jump TensorVariable() from user code at:\n${head}   File "/srv/a.py", line 8, in fn`),
    ).toEqual(["data-dependent-branch"]);
  });

  it.each([
    ["'skip function graph_break in file /usr/lib/torch/_dynamo/decorators.py'", "explicit-break"],
    ["builtin: print [<class 'torch._dynamo.variables.constant.ConstantVariable'>] False", "unsupported-call"],
    ["Tensor.item", "device-scalar-read"],
  ])("2.5: the reason is at the end of the traceback: %s", (reason, cause) => {
    const head = "V1126 14:57:03.072000 4057 torch/_dynamo/symbolic_convert.py:617] [0/0] [__graph_breaks]";
    const analysis = analyzeLogText(
      [
        `${head} Graph break: from user code at:`,
        `${head}   File "/srv/a.py", line 8, in fn`,
        `${head}     step(x)`,
        `${head} Traceback (most recent call last):`,
        `${head}   File "/usr/lib/python3.11/site-packages/torch/_dynamo/exc.py", line 297, in unimplemented`,
        `${head}     raise Unsupported(msg, case_name=case_name)`,
        `${head} torch._dynamo.exc.Unsupported: ${reason}`,
      ].join("\n"),
    );
    expect(analysis.graphBreaks).toEqual({ total: 1, byReason: { [reason]: 1 }, byLocation: { "/srv/a.py:8": 1 } });
    expect(analysis.rootCauses.map((entry) => entry.cause)).toEqual([cause]);
  });

  it("2.5: a value that was read, guarded as L['___stack0'], is no cause of its own", () => {
    const prefix = "057 torch/_dynamo/";
    const warning = `W1126 14:56:59.009000 4${prefix}variables/tensor.py:776] [0/0]`;
    const recompiles = `V1126 14:57:00.402000 4${prefix}guards.py:2813] [1/1] [__recompiles]`;
    const text = [
      `${warning} Graph break from \`Tensor.item()\`, consider setting:`,
      `${warning}     torch._dynamo.config.capture_scalar_outputs = True`,
      `${warning} Graph break: from user code at:`,
      `${warning}   File "/srv/a.py", line 126, in forward`,
      `${warning}     n = self.position.item()`,
      `${recompiles} Recompiling function torch_dynamo_resume_in_forward_at_126 in /srv/a.py:126`,
      `${recompiles}     triggered by the following guard failure(s):`,
      `${recompiles}     - 1/0: L['___stack0'] == 0`,
    ].join("\n");
    expect(causesOf(text)).toEqual(["device-scalar-read"]);
  });

  it("2.6: Reason: Unsupported: ...", () => {
    const head = "V0115 10:00:00.047000 77 torch/_dynamo/symbolic_convert.py:527] [0/0] [__graph_breaks]";
    const analysis = analyzeLogText(
      [`${head} Graph break in user code at /srv/a.py:8`, `${head} Reason: Unsupported: Tensor.item`, `${head} User code traceback:`].join(
        "\n",
      ),
    );
    expect(analysis.graphBreaks.byReason).toEqual({ "Unsupported: Tensor.item": 1 });
    expect(analysis.rootCauses[0]?.cause).toBe("device-scalar-read");
  });
});

describe("CUDA graphs", () => {
  const head = "W1121 03:48:10.428000 99 torch/_inductor/cudagraph_utils.py:404] [0/0] [__cudagraphs]";

  it("counts instances by cause and takes the place from the stack", () => {
    const analysis = analyzeLogText(
      [
        `${head} skipping cudagraphs due to mutated inputs (5 instances). Found from : `,
        `${head}    File "/srv/model.py", line 30, in step`,
        `${head}     self.buffer.add_(x)`,
        `${head} `,
        `${head} skipping cudagraphs due to skipping cudagraphs due to cpu device (device_put). Found from : `,
        `${head}    File "/srv/model.py", line 9, in f`,
        `${head} skipping cudagraphs due to multiple devices: device(type='cuda', index=0), device(type='cpu')`,
        `${head} disabling cudagraphs due to incompatible op aten.nonzero.default Found from    File "/srv/model.py", line 12, in f`,
      ].join("\n"),
    );
    expect(analysis.cudagraphSkips).toEqual({
      total: 8,
      byCause: {
        "mutated inputs": 5,
        "cpu device (device_put)": 1,
        "multiple devices: device(type='cuda', index=0), device(type='cpu')": 1,
        "incompatible op aten.nonzero.default": 1,
      },
    });
    expect(analysis.rootCauses.find((cause) => cause.cause === "mutated-input")).toMatchObject({
      location: "/srv/model.py:30",
      function: "step",
      severity: "investigate",
    });
    expect(analysis.rootCauses.find((cause) => cause.cause === "dynamic-size")?.location).toBe("/srv/model.py:12");
  });

  it("an annotation that switches them off, in either direction", () => {
    const analysis = analyzeLogText(
      [
        `${head} disabling cudagraphs due to override_cudagraphs annotation`,
        `${head} disabling cudagraphs for backward due to override_cudagraphs annotation`,
        `${head} skipping cudagraph due to function 3 exceeding max re-recording limit (=128) on cudagraph node 2 due to data pointer changed.`,
      ].join("\n"),
    );
    expect(analysis.cudagraphSkips.byCause).toEqual({
      "override_cudagraphs annotation": 2,
      "function 3 exceeding max re-recording limit (=128) on cudagraph node 2 due to data pointer changed": 1,
    });
    expect(analysis.rootCauses.map((cause) => cause.kind).sort()).toEqual(["address", "cudagraph"]);
  });

  it("takes a damaged instance count for one", () => {
    const analysis = analyzeLogText(`${head} skipping cudagraphs due to mutated inputs (99999999999 instances)`);
    expect(analysis.cudagraphSkips.total).toBe(1);
  });

  it("an output read after it was overwritten is an error of its own", () => {
    const analysis = analyzeLogText(
      [
        "Traceback (most recent call last):",
        '  File "/srv/run.py", line 12, in <module>',
        'RuntimeError: Error: accessing tensor output of CUDAGraphs that has been overwritten by a subsequent run. Stack trace: File "/srv/model.py", line 8, in step',
        "    return h * 2. To prevent overwriting, clone the tensor outside of torch.compile() or call torch.compiler.cudagraph_mark_step_begin() before each model invocation.",
      ].join("\n"),
    );
    expect(analysis.overwrittenOutputs).toBe(1);
    expect(analysis.rootCauses[0]).toMatchObject({
      cause: "output-overwritten",
      severity: "bad",
      location: "/srv/model.py:8",
      function: "step",
    });
  });

  it("one graph per size, and partitions of 2.15", () => {
    const scheduler = "V1121 03:48:10.428000 99 torch/_inductor/scheduler.py:12366] [0/0] [__cudagraphs]";
    const analysis = analyzeLogText(
      [
        `${head} CUDAGraph supports dynamic shapes by recording a new graph for each distinct input size. We have observed 9 distinct sizes.`,
        `${scheduler} Created 3 graph partitions: 2 cudagraphable, 1 non-cudagraphable`,
        `${scheduler}     buf3: reason=cpu ops, ir=DeviceCopy`,
      ].join("\n"),
    );
    expect(analysis.cudagraphSkips.total).toBe(1);
    expect(analysis.cudagraphPartitions).toBe(1);
    expect(analysis.rootCauses.map((cause) => `${cause.cause}/${cause.kind}`)).toEqual(["dynamic-size/graph-per-size", "other/cpu-tensor"]);
  });
});

describe("prefixes", () => {
  const block = (head: string, index: number): string[] => [
    `${head} Recompiling function step in /srv/a.py:3`,
    `${head}     triggered by the following guard failure(s):`,
    `${head}     - 0/${index}: pos == ${index}                   # x[pos]  # /srv/a.py:4 in step`,
  ];
  const head = (pid: number, rank = ""): string => `${rank}V1121 03:48:10.428000 ${pid} torch/_dynamo/guards.py:6374] [0/1] [__recompiles]`;

  it("keeps interleaved processes apart, line by line", () => {
    const a = block(head(11, "[rank0]:"), 0);
    const b = block(head(12, "[rank1]:"), 7);
    const mixed = a.flatMap((line, index) => [line, b[index] ?? "", "epoch 3 loss 0.25"]);
    const analysis = analyzeLogText(mixed.join("\n"));
    expect(analysis.recompiles.byReason).toEqual({ "pos == 0": 1, "pos == 7": 1 });
    expect(analysis.processes).toEqual(["rank0/11", "rank1/12"]);
    expect(analysis.unrecognisedLines).toBe(3);
  });

  it.each(["app_1  | ", "2025-11-21T03:48:10Z stdout F ", "[default3]:", " 40%|####      | 4/10 [00:01<00:02]", "<134>1 host: "])(
    "finds PyTorch's prefix behind %j",
    (lead) => {
      const analysis = analyzeLogText(block(head(11, lead), 2).join("\n"));
      expect(analysis.recompiles.byReason).toEqual({ "pos == 2": 1 });
      expect(analysis.unrecognisedLines).toBe(0);
    },
  );

  it("Windows paths", () => {
    const windows = "W1029 21:16:44.769000 20836 Lib\\site-packages\\torch\\_dynamo\\convert_frame.py:844] [1/8]";
    const analysis = analyzeLogText(
      `${windows} torch._dynamo hit config.cache_size_limit (8)\r\n${windows}    function: 'forward' (G:\\app\\joint.py:320)\r\n${windows}    last reason: 1/0: L['n'] == 31868\r\n`,
    );
    expect(analysis.recompileLimitHits).toMatchObject({ total: 1, byFunction: { forward: 1 }, lastReasons: ["L['n'] == 31868"] });
    expect(analysis.rootCauses[0]?.location).toBe("G:\\app\\joint.py:320");
  });

  it("a logger that puts its own prefix on the first line only", () => {
    const analysis = analyzeLogText(
      [
        "2025-10-30 09:08:02,114 WARNING torch._dynamo.convert_frame: torch._dynamo hit config.recompile_limit (8)",
        "   function: 'embed' (/srv/attention.py:105)",
        "2025-10-30 09:08:02,200 INFO app: unrelated",
        "   last reason: 6/7: cache.index[7] == 0",
      ].join("\n"),
    );
    expect(analysis.recompileLimitHits).toMatchObject({ byFunction: { embed: 1 }, lastReasons: ["cache.index[7] == 0"] });
  });

  it("does not count text that only talks about recompiles", () => {
    const analysis = analyzeLogText(
      [
        "INFO Recompiling function bodies is slow, see the handbook",
        "raise ValueError('Graph break in user code')",
        "assert 'skipping cudagraphs' not in caplog.text",
        "Unsupported file format: fallback to CSV",
        "Constraint: max 3 orders",
      ].join("\n"),
    );
    expect(analysis.rootCauses).toEqual([]);
    expect(analysis.recompiles.total + analysis.graphBreaks.total + analysis.cudagraphSkips.total).toBe(0);
  });
});

describe("our own event log", () => {
  const GROWING = Array.from(
    { length: 8 },
    (_, step) =>
      `[tempograph] recompiles: function=decodeStep location=src/nn/cache.ts:42 guard="position == ${step}" was=${step} now=${step + 1} count=${step + 1}`,
  );

  it("a growing cache leads to the same diagnosis as PyTorch's", () => {
    const own = analyzeLogText(
      [...GROWING, '[tempograph] recompile_limit: function=decodeStep limit=8 last="position == 7" location=src/nn/cache.ts:42'].join("\n"),
    );
    const torch = analyzeLogText(readFileSync(`${FOLDER}kvcache-listidx-12layers.log`, "utf8"));
    const diagnosis = ({ rootCauses: [first] }: ReturnType<typeof analyzeLogText>): unknown => ({
      cause: first?.cause,
      kind: first?.kind,
      title: first?.title,
      fix: first?.fix,
      severity: first?.severity,
    });
    expect(diagnosis(own)).toEqual(diagnosis(torch));
    expect(own.rootCauses[0]).toMatchObject({
      cause: "python-value-guard",
      kind: "cache-index",
      function: "decodeStep",
      location: "src/nn/cache.ts:42",
    });
    expect(own.recompiles).toMatchObject({ total: 8, byFunction: { decodeStep: 8 } });
    expect(own.recompileLimitHits).toEqual({
      total: 1,
      byFunction: { decodeStep: 1 },
      byLimit: { "8": 1 },
      lastReasons: ["position == 7"],
    });
    expect(own.valuesSeen[0]?.values).toEqual(["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
  });

  it("reads what the engine writes for static arguments, sizes, reads and the limit", () => {
    const lines = Array.from({ length: 4 }, (_, step) => [
      `[tempograph] compiles: function=decodeStep mode=default key="arguments[0]: f32[4]; arguments[1]: == ${step}"`,
      step < 3
        ? `[tempograph] recompiles: function=decodeStep location=src/a.ts:9 guard="arguments[1] == ${step}" was="== ${step}" now="== ${step + 1}" count=${step + 1}`
        : `[tempograph] recompile_limit: function=decodeStep location=src/a.ts:9 limit=3 last="arguments[1] == 3" was="== 3" now="== 4"\n[tempograph] fallback: function=decodeStep reason="recompileLimit 3 reached; running eager" guard="arguments[1] == 3"`,
    ]).flat();
    const analysis = analyzeLogText(
      [
        ...lines,
        '[tempograph] recompiles: function=score location=src/b.ts:3 guard="arguments[0] f32[1]" was="f32[1]" now="f32[2]" count=1',
        '[tempograph] recompiles: function=score location=src/b.ts:3 guard="arguments[0] f32[2]" was="f32[2]" now="i32[2]" count=2',
        '[tempograph] recompiles: function=score location=src/b.ts:3 guard="size context == 512" was=512 now=640 count=3',
        '[tempograph] graph_breaks: function=score location=src/b.ts:4 reason="value read in traced code" value=""',
        "RecompileError: score would recompile: arguments[0] f32[2] failed (was f32[2], now f32[3], src/b.ts:3). The stance fail_on_recompile forbids that.",
      ].join("\n"),
    );
    expect(analysis.rootCauses.map((cause) => `${cause.cause}/${cause.kind} ${cause.location}`)).toEqual([
      "stance-violation/stance src/b.ts:3",
      "python-value-guard/cache-index src/a.ts:9",
      "device-scalar-read/item src/b.ts:4",
      "dynamic-size/size src/b.ts:3",
      "type-change/dtype src/b.ts:3",
    ]);
    expect(analysis.valuesSeen.find((row) => row.function === "decodeStep")?.values).toEqual(["0", "1", "2", "3"]);
    expect(analysis.unrecognisedLines).toBe(0);
  });

  it("breaks, fallbacks and cache lines", () => {
    const analysis = analyzeLogText(
      [
        '[tempograph] graph_breaks: function=decodeStep reason="item() reads a device value" location=src/a.ts:7',
        '{"level":30,"msg":"[tempograph] fallback: function=sampler reason=\\"no fma\\""}',
        "[tempograph] cache: status=hit family=linear",
        "[tempograph] guards: function=decodeStep f32 [B][S]",
      ].join("\n"),
    );
    expect(analysis.graphBreaks).toMatchObject({ total: 1, byLocation: { "src/a.ts:7": 1 } });
    expect(analysis.rootCauses[0]?.cause).toBe("device-scalar-read");
    expect(analysis.fallbacks).toEqual({ "no fma": 1 });
    expect(analysis.cache.hits).toBe(1);
    expect(analysis.unrecognisedLines).toBe(0);
  });
});

describe("advice", () => {
  const patterns = readFileSync(new URL("../docs/patterns.md", import.meta.url), "utf8");
  const anchors = new Set(
    [...patterns.matchAll(/^#+ (.+)$/gm)].map(([, title = ""]) =>
      title
        .toLowerCase()
        .replace(/[^\w\s-]/g, "")
        .replace(/\s+/g, "-"),
    ),
  );

  it.each(CAUSES)("%s has a section in docs/patterns.md", (cause) => {
    const [file, anchor = ""] = adviceFor({ cause, kind: "" }).pattern.split("#");
    expect(file).toBe("docs/patterns.md");
    expect(anchors).toContain(anchor);
  });

  it("explains a Python index, .item(), mutated inputs, sizes, list lengths, global state and branches differently", () => {
    const kinds = [
      { cause: "python-value-guard", kind: "cache-index" },
      { cause: "device-scalar-read", kind: "item" },
      { cause: "mutated-input", kind: "skip" },
      { cause: "dynamic-size", kind: "size" },
      { cause: "list-or-dict-length", kind: "list" },
      { cause: "python-value-guard", kind: "global" },
      { cause: "other", kind: "torch-state" },
      { cause: "data-dependent-branch", kind: "branch" },
    ] as const;
    const advice = kinds.map((kind) => adviceFor(kind));
    for (const field of ["title", "explanation", "fix", "example"] as const)
      expect(new Set(advice.map((entry) => entry[field])).size).toBe(kinds.length);
    for (const { pattern } of advice) expect(anchors).toContain(pattern.split("#")[1]);
  });
});
