/** Timing of several ways to do the same work, in one process, so that only their ratio matters and not the machine. */

/** One way to do the work. */
export interface Contestant {
  name: string;
  /** Called before each pass, outside of the timing; what it returns is the pass. */
  prepare(): () => void;
}

export interface Timing {
  /** Median seconds of a pass, by contestant: information only, since other work shares the machine. */
  seconds: Record<string, number>;
  /** Median over the rounds of `numerator`'s time over `denominator`'s time in the same round. */
  ratio(numerator: string, denominator: string): number;
}

export interface Plan {
  /** Rounds that are not counted: the JIT compiler needs some to be done. */
  warmUp: number;
  rounds: number;
}

/**
 * Each round runs every contestant once, next to each other in time, so that a busy machine slows all of them; who goes
 * first changes from round to round, so that none always meets the other's garbage.
 */
export function race(contestants: Contestant[], plan: Plan): Timing {
  const times = new Map(contestants.map(({ name }) => [name, [] as number[]]));
  for (let round = -plan.warmUp; round < plan.rounds; round++) {
    for (let turn = 0; turn < contestants.length; turn++) {
      const { name, prepare } = contestants[Math.abs(round + turn) % contestants.length]!;
      const pass = prepare();
      const start = performance.now();
      pass();
      const seconds = (performance.now() - start) / 1000;
      if (round >= 0) times.get(name)!.push(seconds);
    }
  }
  return {
    seconds: Object.fromEntries([...times].map(([name, each]) => [name, median(each)])),
    ratio: (numerator, denominator) => {
      const below = times.get(denominator)!;
      return median(times.get(numerator)!.map((seconds, round) => seconds / below[round]!));
    },
  };
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
