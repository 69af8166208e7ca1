/** What the tensor layer may use of tracing. */
export type { Chain } from "./chain.js";
export { CompiledCore, type CompileOptions } from "./compile.js";
export { onProgram } from "./ahead.js";
export { BitDifferenceError, type CheckSetting } from "./check.js";
export { DeviceError, openDevice, type DeviceName, type OpenedDevice } from "./devices.js";
export { emitEvent, onEvent, printEvent, type CompileEvent } from "./events.js";
export { modes, type Mode } from "./lower.js";
export type { CheckReport, CompileReport } from "./report.js";
export { currentStance, RecompileError, setStance, stances, TraceError, type Stance } from "./stance.js";
export { State, type StateOptions } from "./state.js";
export { currentTracer, Tracer, withTracer, type StateUse } from "./tracer.js";
export { concreteContent, Size, size, StaticValue, staticValue, Value, type Concrete, type Traced } from "./value.js";
