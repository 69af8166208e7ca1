/** The weight panel layout of the native device. A constant: packing depends on it, so it is never tuned. */

export const panelColumns = 48;

/** Elements of a packed [rows][depth] matrix: whole panels, missing rows zero. */
export const panelElements = (rows: number, depth: number): number => Math.ceil(rows / panelColumns) * panelColumns * depth;
