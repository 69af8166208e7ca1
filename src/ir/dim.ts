/**
 * Sizes: plain numbers, or polynomials over bounded size variables whose value is data of a call, never part of a guard.
 * Must not know of graphs or devices.
 */

/** A number, or a `SizeExpression` over declared size variables. */
export type Dim = number | SizeExpression;

export interface SizeVar {
  readonly name: string;
  readonly min: number;
  readonly max: number;
}

/** Values of size variables for one call. */
export type SizeBindings = Readonly<Record<string, number>>;

/** One product of variables times a coefficient, for example 3 * rows * tokens. */
interface Term {
  readonly coefficient: number;
  /** Variable names, sorted; a repeated name is a power. */
  readonly variables: readonly string[];
}

/** Sum of terms in canonical order, so equal sizes print equally. Immutable. */
export class SizeExpression {
  private constructor(
    readonly terms: readonly Term[],
    readonly variables: Readonly<Record<string, SizeVar>>,
  ) {}

  static of(variable: SizeVar): SizeExpression {
    return new SizeExpression([{ coefficient: 1, variables: [variable.name] }], { [variable.name]: variable });
  }

  /** Canonical form; collapses to a number when no variable is left. */
  static from(terms: readonly Term[], variables: Readonly<Record<string, SizeVar>>): Dim {
    const sums = new Map<string, Term>();
    for (const term of terms) {
      const key = term.variables.join("*");
      const before = sums.get(key)?.coefficient ?? 0;
      sums.set(key, { coefficient: before + term.coefficient, variables: term.variables });
    }
    const kept = [...sums.entries()].filter(([, term]) => term.coefficient !== 0).sort(([a], [b]) => (a < b ? -1 : 1));
    if (kept.length === 0) return 0;
    const [first] = kept;
    if (kept.length === 1 && first && first[1].variables.length === 0) return first[1].coefficient;
    return new SizeExpression(
      kept.map(([, term]) => term),
      variables,
    );
  }

  toString(): string {
    return this.terms
      .map(({ coefficient, variables }) => {
        if (variables.length === 0) return String(coefficient);
        return coefficient === 1 ? variables.join("*") : `${coefficient}*${variables.join("*")}`;
      })
      .join("+");
  }

  toJSON(): unknown {
    return { terms: this.terms, variables: Object.values(this.variables) };
  }

  /** Inverse of `toJSON`. */
  static fromJSON(value: { terms: Term[]; variables: SizeVar[] }): SizeExpression {
    return new SizeExpression(value.terms, Object.fromEntries(value.variables.map((variable) => [variable.name, variable])));
  }
}

export function sizeVar(name: string, min: number, max: number): SizeExpression {
  return SizeExpression.of({ name, min, max });
}

const termsOf = (dim: Dim): readonly Term[] => (typeof dim === "number" ? [{ coefficient: dim, variables: [] }] : dim.terms);
const variablesOf = (dim: Dim): Readonly<Record<string, SizeVar>> => (typeof dim === "number" ? {} : dim.variables);

export function addDims(a: Dim, b: Dim): Dim {
  if (typeof a === "number" && typeof b === "number") return a + b;
  return SizeExpression.from([...termsOf(a), ...termsOf(b)], { ...variablesOf(a), ...variablesOf(b) });
}

export function multiplyDims(a: Dim, b: Dim): Dim {
  if (typeof a === "number" && typeof b === "number") return a * b;
  const products = termsOf(a).flatMap((x) =>
    termsOf(b).map((y) => ({ coefficient: x.coefficient * y.coefficient, variables: [...x.variables, ...y.variables].sort() })),
  );
  return SizeExpression.from(products, { ...variablesOf(a), ...variablesOf(b) });
}

export const productOf = (dims: readonly Dim[]): Dim => dims.reduce<Dim>(multiplyDims, 1);

export const sameDim = (a: Dim, b: Dim): boolean => a === b || String(a) === String(b);
export const sameShape = (a: readonly Dim[], b: readonly Dim[]): boolean =>
  a.length === b.length && a.every((dim, axis) => sameDim(dim, b[axis] as Dim));

/** Value of a size under `bindings`; throws when a variable is unbound. */
export function evaluateDim(dim: Dim, bindings: SizeBindings): number {
  if (typeof dim === "number") return dim;
  let total = 0;
  for (const term of dim.terms) {
    let product = term.coefficient;
    for (const name of term.variables) {
      const value = bindings[name];
      if (value === undefined)
        throw new Error(`size variable "${name}" has no value in this call; bound are: ${Object.keys(bindings).join(", ") || "none"}`);
      product *= value;
    }
    total += product;
  }
  return total;
}

/** a / b where that is exact for every binding; undefined otherwise. */
export function divideDim(a: Dim, b: Dim): Dim | undefined {
  if (typeof b === "number") {
    if (b === 0) return undefined;
    if (typeof a === "number") return Number.isInteger(a / b) ? a / b : undefined;
    if (!a.terms.every((term) => Number.isInteger(term.coefficient / b))) return undefined;
    return SizeExpression.from(
      a.terms.map((term) => ({ coefficient: term.coefficient / b, variables: term.variables })),
      a.variables,
    );
  }
  if (sameDim(a, b)) return 1;
  const [divisor] = b.terms;
  if (b.terms.length !== 1 || !divisor || typeof a === "number") return undefined;
  const quotient: Term[] = [];
  for (const term of a.terms) {
    const rest = [...term.variables];
    for (const name of divisor.variables) {
      const at = rest.indexOf(name);
      if (at < 0) return undefined;
      rest.splice(at, 1);
    }
    if (!Number.isInteger(term.coefficient / divisor.coefficient)) return undefined;
    quotient.push({ coefficient: term.coefficient / divisor.coefficient, variables: rest });
  }
  return SizeExpression.from(quotient, a.variables);
}

export const printShape = (shape: readonly Dim[]): string => `[${shape.map(String).join(", ")}]`;
