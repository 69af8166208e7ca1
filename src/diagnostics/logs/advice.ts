/**
 * What a person is told about each root cause: what it is, why it costs time, what to change, and a few lines that show the change.
 * One entry per cause and kind; the longer text is the section of docs/patterns.md that `pattern` names.
 */
import type { Cause, Diagnosis } from "./causes.js";

export interface Advice {
  readonly title: string;
  readonly explanation: string;
  readonly fix: string;
  readonly example: string;
  readonly pattern: string;
}

type Entry = Omit<Advice, "pattern">;

/** Sections of docs/patterns.md are headed by the cause's word; a kind with a section of its own is listed here. */
const SECTIONS: Readonly<Record<string, string>> = {
  "python-value-guard/cache-index": "kv-cache-index",
  "python-value-guard/global": "global-state",
  "other/torch-state": "global-state",
};

const CACHE_EXAMPLE = `# before: a Python integer per layer, guarded by value
cache.position[layer] += keys.shape[2]
# after: a tensor, which is data and not a guard
cache.position[layer].add_(keys.shape[2])
cache.keys[layer].index_copy_(2, positions, keys)`;

const ITEM_EXAMPLE = `# before: the host waits for the device and the graph ends here
start = self.position[layer].item()
self.keys[:, start : start + n] = keys
# after: the index stays on the device
self.keys.index_copy_(1, self.position[layer] + torch.arange(n, device=keys.device), keys)`;

const ENTRIES: Readonly<Record<Cause, Readonly<Record<string, Entry>>>> = {
  "python-value-guard": {
    "cache-index": {
      title: "A Python index or position of a KV cache is guarded by its value",
      explanation:
        "The position in the KV cache is a Python number. The compiler bakes its value into the graph and guards it, so that every decode step (and every layer with a slot of its own) is compiled again until the limit is reached and the function runs eagerly.",
      fix: 'Keep the cache position as data: a tensor that is updated in place (index_copy_ into a cache of fixed size, masked by length), or take the cache update out of the compiled region. Raising the recompile limit only delays the fallback. In tempograph: kvCache "static".',
      example: CACHE_EXAMPLE,
    },
    global: {
      title: "A global variable of the program is guarded by its value",
      explanation:
        "Compiled code reads a module-level Python variable. Its value is baked in and guarded; each assignment elsewhere in the program compiles the function again.",
      fix: "Pass the value as a tensor argument, or move it out of compiled code. A setting that never changes while compiled code runs does no harm.",
      example: `# before
def scaled(x):\n    return x * STEP\n# after\ndef scaled(x, step):          # step = torch.tensor(float(STEP))\n    return x * step`,
    },
    attribute: {
      title: "A number kept in an object or module changes and is guarded by its value",
      explanation:
        "Numbers in attributes, lists and dicts are constants to the compiler. A counter or setting that changes between calls fails its guard and compiles the function again.",
      fix: "Make the attribute a buffer (register_buffer) or a tensor updated in place, update it outside the compiled function, or set torch._dynamo.config.allow_unspec_int_on_nn_module = True for integers of modules.",
      example: `self.register_buffer("step", torch.zeros((), dtype=torch.long))\n# in forward\nself.step.add_(1)`,
    },
    training: {
      title: "The module switches between training and evaluation",
      explanation: "train() and eval() change a flag that compiled code depends on: one graph for each is needed and correct.",
      fix: "Compile one module for training and one for inference, or warm up both modes before measuring.",
      example: `model.eval()\ncompiled = torch.compile(model)`,
    },
    argument: {
      title: "A Python number or string argument is guarded by its value",
      explanation:
        "Floats, strings, booleans and integers that a shape or branch depends on are constants to the compiler; each new value is a new graph.",
      fix: "Pass a number that changes as a tensor (0-d), loop over the values outside the compiled function (one compile per value, as for layer numbers, is avoided when the layer is a module of its own), or mark an integer dynamic where it is only a size.",
      example: `# before: one graph per temperature\nstep(x, 0.7)\n# after\nstep(x, torch.tensor(0.7))`,
    },
    object: {
      title: "A function or object is passed anew on each call and guarded by identity",
      explanation:
        "Lambdas, bound methods, partials and freshly built objects have a new identity each time, so their guard can never hold.",
      fix: "Build the object once outside the loop, or pass only the tensors it holds.",
      example: `scale = make_scale()          # once\nfor batch in batches:\n    step(batch, scale)`,
    },
  },
  "list-or-dict-length": {
    list: {
      title: "A list (or tuple, set, deque) grows and is guarded by its length",
      explanation:
        "The compiler unrolls Python containers: each length is another graph. A history that is appended to compiles the function on every call.",
      fix: "Stack the items into one tensor of fixed size (with a mask or a length tensor), or append outside the compiled function and pass the stacked tensor.",
      example: `# before\nhistory.append(x); step(history)\n# after\nhistory[:, count] = x         # preallocated [batch, capacity, width]\nstep(history, mask)`,
    },
    dict: {
      title: "A dict or set has other keys or another size than when it was compiled",
      explanation: "Each set of keys is a graph of its own; a dict or set that collects entries compiles the function on every call.",
      fix: "Give the dict the same keys on every call (with placeholders), pass the tensors as arguments of their own, or turn a test of membership into a flag decided outside.",
      example: `features = {name: batch.get(name, zeros) for name in FEATURE_NAMES}`,
    },
  },
  "dynamic-size": {
    size: {
      title: "A tensor comes in different sizes",
      explanation:
        "A size seen first is a constant. The second size makes it dynamic by itself (one recompile, by design); branches on sizes, sizes 0 and 1, relations between sizes, and switched-off automatic dynamic shapes bring more.",
      fix: "Mark the dimension before the first call with torch._dynamo.mark_dynamic(x, dim) (size at least 2), compile with dynamic=True, or pad to a few fixed lengths. Treat a first step of length 1 as a case of its own, and avoid branches on sizes.",
      example: `torch._dynamo.mark_dynamic(x, 1, min=2, max=4096)\ny = compiled(x)`,
    },
    rank: {
      title: "A tensor comes with different numbers of dimensions",
      explanation: "The number of dimensions cannot be dynamic: each is a graph of its own.",
      fix: "Bring inputs to one rank before the compiled function (unsqueeze, reshape).",
      example: `x = x if x.dim() == 3 else x.unsqueeze(0)\ny = compiled(x)`,
    },
    layout: {
      title: "A tensor comes in different memory layouts",
      explanation:
        "Strides and the offset into the storage are guarded: a transposed tensor, a slice of another one and a contiguous one are graphs of their own, although their sizes are equal.",
      fix: "Bring inputs to one layout before the compiled function (contiguous(), or contiguous(memory_format=...)), and do not mix views with whole tensors.",
      example: `y = compiled(x.contiguous())`,
    },
    "data-dependent-size": {
      title: "The size of a result depends on the data",
      explanation: "nonzero, boolean masks, unique and the like give a size that only the device knows; the graph ends there.",
      fix: "Use a form of fixed size (torch.where, masked sums, topk), or set torch._dynamo.config.capture_dynamic_output_shape_ops = True.",
      example: `# before\ntotal = x[x > 0].sum()\n# after\ntotal = torch.where(x > 0, x, 0).sum()`,
    },
    "graph-per-size": {
      title: "CUDA graphs are recorded for each size, or skipped for dynamic sizes",
      explanation: "A CUDA graph has fixed sizes. Each new size is recorded anew and keeps its memory.",
      fix: "Pad inputs to a few fixed sizes, or set torch._inductor.config.triton.cudagraph_skip_dynamic_graphs = True.",
      example: `length = next(b for b in (64, 128, 256, 512) if b >= n)\nx = F.pad(x, (0, length - n))`,
    },
  },
  "type-change": {
    none: {
      title: "An argument is sometimes None",
      explanation:
        "None and a tensor take different paths through the code: one graph each, and one more for every combination with other arguments.",
      fix: "Pass a tensor always (an all-ones mask does what None does), or compile the two paths as two functions.",
      example: `mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask`,
    },
    dtype: {
      title: "A tensor comes in different dtypes",
      explanation: "Each dtype is a graph of its own.",
      fix: "Convert inputs to one dtype before the compiled function.",
      example: `y = compiled(x.to(torch.float32))`,
    },
    "tensor-kind": {
      title: "A tensor comes with and without gradients, on another device, or from inference mode",
      explanation: "requires_grad, the device and inference mode are part of what a graph is compiled for.",
      fix: "Call the compiled function in one mode only: all inputs on one device, detached, and under the same no_grad or inference_mode block.",
      example: `with torch.inference_mode():\n    y = compiled(x.to(device))`,
    },
    class: {
      title: "An argument changes its type",
      explanation: "An integer, a float, a bool and a tensor are different programs to the compiler.",
      fix: "Pass one type always, best a tensor.",
      example: `step(x, torch.as_tensor(weight, dtype=torch.float32))`,
    },
    attribute: {
      title: "An object gains or loses an attribute",
      explanation: "Which attributes an object has is guarded; setting one later compiles its users again.",
      fix: "Set every attribute in __init__, with a placeholder where there is no value yet.",
      example: `def __init__(self):\n    super().__init__()\n    self.cached_mask = None`,
    },
  },
  "device-scalar-read": {
    item: {
      title: "A tensor's value is read on the host (.item(), int(), float(), tolist())",
      explanation:
        "The read ends the graph, makes the host wait for the device on every call, keeps the piece out of a CUDA graph, and the number that comes back is guarded by value in the code that follows, which compiles again for each new value.",
      fix: "Keep the value on the device (index_copy_, torch.where, comparison with arange). Where the number itself is needed, mirror it in Python outside the compiled function, or set torch._dynamo.config.capture_scalar_outputs = True (TORCHDYNAMO_CAPTURE_SCALAR_OUTPUTS=1).",
      example: ITEM_EXAMPLE,
    },
  },
  "mutated-input": {
    skip: {
      title: "An input is changed in place, so CUDA graphs are skipped",
      explanation:
        "A CUDA graph replays fixed addresses; an input that is written to and may be another tensor next time cannot be replayed. The graph runs kernel by kernel.",
      fix: "Return the new value instead, or keep the state in a buffer of the module whose address never changes (register_buffer, torch._dynamo.mark_static_address).",
      example: `self.register_buffer("keys", torch.zeros(shape))\ntorch._dynamo.mark_static_address(cache.keys)`,
    },
    "in-place": {
      title: "An input is changed in place in a way that cannot be traced",
      explanation: "The compiler has to take part of the mutation out of the graph.",
      fix: "Work on a clone inside the function and return it.",
      example: `def step(x):\n    x = x.clone()\n    x[0] = 0\n    return x`,
    },
  },
  "explicit-break": {
    "graph-break": {
      title: "The code asks for a graph break",
      explanation: "torch._dynamo.graph_break() splits the function; each piece is compiled, guarded and launched by itself on every call.",
      fix: "Remove the call once the reason it was put there is gone (often a cache update that recompiled: see the KV cache section), or move the boundary out of the decode loop.",
      example: `# remove\ntorch._dynamo.graph_break()`,
    },
    disable: {
      title: "A function is excluded from compilation",
      explanation: "torch.compiler.disable runs the function eagerly and splits its callers.",
      fix: "Call it before or after the compiled function rather than inside, or rewrite it so that it can be compiled.",
      example: `y = compiled(x)\nreport(y)                     # disabled function, outside`,
    },
  },
  "data-dependent-branch": {
    branch: {
      title: "A branch or loop depends on a tensor's value",
      explanation: "if, while and assert on a tensor need its value on the host: the graph ends, and the device waits.",
      fix: "Compute both sides and choose with torch.where, use torch.cond or torch.while_loop, or take the decision outside the compiled function.",
      example: `# before\nif x.sum() > 0: y = x * 2\n# after\ny = torch.where(x.sum() > 0, x * 2, x)`,
    },
  },
  "unsupported-call": {
    output: {
      title: "Printing or logging inside compiled code",
      explanation: "Output cannot be part of a graph: each print splits the function.",
      fix: "Print outside the compiled function, or add the function to torch._dynamo.config.reorderable_logging_functions.",
      example: `y = compiled(x)\nprint(y.shape)`,
    },
    skipped: {
      title: "A call into code that the compiler does not trace",
      explanation: "Functions of C extensions and of modules PyTorch skips end the graph.",
      fix: "Call it outside the compiled function, wrap it as a custom operator (torch.library.custom_op), or use a tensor operation instead.",
      example: `@torch.library.custom_op("app::smooth", mutates_args=())\ndef smooth(x: torch.Tensor) -> torch.Tensor: ...`,
    },
    call: {
      title: "A call or construct the compiler does not support",
      explanation: "The graph ends before it, the call runs in Python, and a new graph starts after it.",
      fix: "Move it out of the compiled function or use an equivalent that can be traced; the log's hints name one for most cases.",
      example: `value = unsupported(config)   # once, before the loop\nfor batch in batches: compiled(batch, value)`,
    },
    "cudagraph-op": {
      title: "An operator that cannot be in a CUDA graph",
      explanation: "The whole graph (or, with partitions, the piece around the operator) runs kernel by kernel.",
      fix: "Replace the operator, or take it out of the compiled function; turn graph partition on where it is off.",
      example: `torch._inductor.config.graph_partition = True`,
    },
  },
  "output-overwritten": {
    replay: {
      title: "An output is read after a later replay has overwritten it",
      explanation: "CUDA graphs reuse their output memory: a tensor kept from one call is gone after the next.",
      fix: "Clone outputs that must live on (y = compiled(x).clone()) and call torch.compiler.cudagraph_mark_step_begin() before each step.",
      example: `torch.compiler.cudagraph_mark_step_begin()\ny = compiled(x).clone()`,
    },
  },
  "mark-dynamic-violation": {
    constraint: {
      title: "A dimension marked dynamic turned out to be constant or limited",
      explanation:
        "mark_dynamic promises that any size works; the code (a reshape, a weight's shape, a branch) fixes or limits it, and compilation stops with an error.",
      fix: "Remove the constraint from the code (use x.shape instead of the number), give the range (mark_dynamic(x, dim, min=, max=)), or use maybe_mark_dynamic.",
      example: `# before\nx.reshape(16, -1)\n# after\nx.reshape(x.shape[0], -1)`,
    },
  },
  "stance-violation": {
    stance: {
      title: "A recompile was forbidden and happened",
      explanation:
        "The stance fail_on_recompile (or error_on_recompile) turned the recompile into an error; the failed guard below says what changed.",
      fix: "Remove the recompile (see the guard's own cause), warm up every case before setting the stance, or use eager_on_recompile where falling back is acceptable.",
      example: `for example in warmup_inputs: compiled(example)\nwith torch.compiler.set_stance("fail_on_recompile"):\n    compiled(x)`,
    },
  },
  other: {
    "torch-state": {
      title: "A global setting of PyTorch changes between calls",
      explanation:
        "Gradient mode, autocast, default dtype and device, deterministic algorithms and the number of threads are part of what is compiled for.",
      fix: "Set them once before the first call, or keep every call under the same context (all in no_grad, all in autocast).",
      example: `with torch.no_grad():\n    for batch in batches: compiled(batch)`,
    },
    backend: {
      title: "The function is compiled again with another backend object",
      explanation: "Each torch.compile with a new callable backend is a backend of its own, also when it does the same.",
      fix: "Call torch.compile once and keep the result.",
      example: `compiled = torch.compile(model)   # once, outside the loop`,
    },
    aliasing: {
      title: "Two arguments are sometimes the same tensor",
      explanation: "Whether arguments alias is guarded, because writes through one are seen through the other.",
      fix: "Pass a clone, or call a function of fewer arguments in that case.",
      example: `y = compiled(x, x.clone())`,
    },
    "cpu-tensor": {
      title: "CUDA graphs are skipped because of work on the CPU",
      explanation: "A tensor or operator on the CPU inside the graph cannot be replayed by the device.",
      fix: "Create the tensor on the device (device=x.device), and move host work out of the compiled function.",
      example: `positions = torch.arange(n, device=x.device)`,
    },
    address: {
      title: "Inputs of a CUDA graph change their address",
      explanation: "Static inputs that are other tensors each time are recorded again until the limit is reached.",
      fix: "Copy new values into one buffer that stays (buffer.copy_(x)).",
      example: `self.input.copy_(x)\ny = compiled(self.input)`,
    },
    cudagraph: {
      title: "CUDA graphs are skipped",
      explanation: "The graph runs kernel by kernel; the log's reason says why.",
      fix: "Remove the reason the log names, or accept it where the step is long compared to its launches.",
      example: `TORCH_LOGS=cudagraphs python program.py`,
    },
    fallback: {
      title: "A call ran eagerly instead of compiled",
      explanation: "The compiled version could not be used; the log's reason says why.",
      fix: "Remove the reason, or set the stance fail_on_recompile while testing so that a fallback cannot pass unseen.",
      example: `TEMPOGRAPH_LOGS=recompiles,graph_breaks`,
    },
    unknown: {
      title: "Recompiles for a reason that is not recognised",
      explanation: "The guard is of a form this tool does not know, or the log does not show it.",
      fix: "Run again with TORCH_LOGS=recompiles_verbose and read the guard next to its source line.",
      example: `TORCH_LOGS=recompiles_verbose,graph_breaks python program.py`,
    },
  },
};

/** The advice for a diagnosis; a kind without an entry of its own gets the first of its cause. */
export function adviceFor({ cause, kind }: Diagnosis): Advice {
  const entries = ENTRIES[cause];
  const entry = entries[kind] ?? Object.values(entries)[0];
  if (entry === undefined) throw new Error(`no advice for ${cause}`);
  return { ...entry, pattern: `docs/patterns.md#${SECTIONS[`${cause}/${kind}`] ?? cause}` };
}
