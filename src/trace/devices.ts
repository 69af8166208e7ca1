/** Opens devices by name. `auto` takes native when it can be had and otherwise says what it uses and why. */
import type { Device, DeviceOptions } from "../runtime/device.js";
import { NativeDevice } from "../runtime/native/device.js";
import { NativeError } from "../runtime/native/errors.js";
import { ReferenceDevice } from "../runtime/reference/device.js";

/** `auto` takes native where it can be had, and reference otherwise. */
export type DeviceName = "auto" | "native" | "reference";

/** A device, and why it is not the best one where `auto` was asked for. */
export interface OpenedDevice {
  readonly device: Device;
  /** Why `auto` did not take the native device. */
  readonly note?: string;
}

/** A device was asked for that does not exist. */
export class DeviceError extends Error {
  override readonly name = "DeviceError";
  readonly code = "device-unavailable";
}

const opened = new Map<string, OpenedDevice>();

/** One device per name and options in a process. Throws NativeError when `native` is asked for and cannot be had. */
export function openDevice(name: DeviceName | (string & {}), options: DeviceOptions = {}): OpenedDevice {
  const key = JSON.stringify([name, options]);
  const known = opened.get(key);
  if (known) return known;
  const made = open(name, options);
  opened.set(key, made);
  return made;
}

function open(name: string, options: DeviceOptions): OpenedDevice {
  if (name === "reference") return { device: new ReferenceDevice() };
  if (name === "native") return { device: new NativeDevice(options) };
  if (name !== "auto") throw new DeviceError(`unknown device "${name}"; there are: auto, native, reference`);
  try {
    return { device: new NativeDevice(options) };
  } catch (error) {
    if (!(error instanceof NativeError)) throw error;
    return {
      device: new ReferenceDevice(),
      note: `the native device cannot be used (${error.message.split("\n").slice(0, 2).join(" ")}); using the reference device, which is much slower`,
    };
  }
}
