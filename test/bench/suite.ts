/** What a part of the bench gives back. */

export interface Figure {
  /** Member of the JSON file, inside the suite's own object. */
  name: string;
  value: number;
  /** null: told for information. */
  goal: number | null;
  /** Whether the goal is a floor or a ceiling. */
  best: 'high' | 'low';
}

export interface SuiteResult {
  figures: Figure[];
  /** Absolute figures and side results, a line each: they depend on the machine and the moment. */
  information: string[];
}

export interface Suite {
  name: string;
  run(say: (line: string) => void): SuiteResult | Promise<SuiteResult>;
}

export function atMost(name: string, value: number, goal: number): Figure {
  return { name, value, goal, best: 'low' };
}

export function atLeast(name: string, value: number, goal: number): Figure {
  return { name, value, goal, best: 'high' };
}

export function only(name: string, value: number): Figure {
  return { name, value, goal: null, best: 'low' };
}

/** `met`, or by how much not. */
export function verdict({ value, goal, best }: Figure): string {
  if (goal === null) return '';
  const met = best === 'low' ? value <= goal : value >= goal;
  if (met) return 'met';
  return `missed by ${Math.ceil((Math.abs(value - goal) / goal) * 100)} %`;
}
