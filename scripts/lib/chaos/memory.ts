/** Resident memory of the processes over a run. */

export interface MemoryFigures {
  process: string;
  /** MiB: medians of the first and of the last third of the run, and the most. */
  first: number;
  last: number;
  most: number;
}

/** Medians tell what stays: a backlog that was read again is over, and what it took is given back. */
const MOST_GROWTH = 1.5;
/** What a young process has not taken yet, MiB. */
const WARMING_UP_MIB = 100;
/** The simulator keeps the keys of all that it sent, to be judged by. */
const MAY_GROW = 'exchange_sim';

export class MemoryWatch {
  /** MiB by process. */
  private readonly samples = new Map<string, number[]>();

  /** @param bytes by process */
  add(bytes: ReadonlyMap<string, number>): void {
    for (const [name, each] of bytes) {
      const own = this.samples.get(name);
      if (own) own.push(each / 2 ** 20);
      else this.samples.set(name, [each / 2 ** 20]);
    }
  }

  figures(): MemoryFigures[] {
    return [...this.samples].map(([process, mib]) => {
      const third = Math.ceil(mib.length / 3);
      return {
        process,
        first: median(mib.slice(0, third)),
        last: median(mib.slice(-third)),
        most: Math.round(Math.max(...mib)),
      };
    });
  }
}

/** Processes that took more and more, each as one line. */
export function grown(figures: MemoryFigures[]): string[] {
  return figures
    .filter(({ process, first, last }) => process !== MAY_GROW && last > first * MOST_GROWTH + WARMING_UP_MIB)
    .map(
      ({ process, first, last }) =>
        `memory of ${process}: ${first} MiB in the first third of the run, ${last} in the last`,
    );
}

function median(values: number[]): number {
  return Math.round([...values].sort((one, other) => one - other)[values.length >> 1]!);
}
