/** Everything that npm start runs in a demo with the default set, after a while: what each process has of the machine's memory. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { SERVICES } from '../../scripts/lib/services.ts';
import { processes, Up } from '../up_child.ts';
import { atMost, type Suite } from './suite.ts';

const AFTER_MS = 120_000;
const GOAL_MB = { collector: 200, store: 250, total: 1500 };
const KIB_PER_MB = 1024;

export const memorySuite: Suite = {
  name: 'memory',
  async run(say) {
    const up = new Up();
    try {
      say(`memory: the whole target for ${AFTER_MS / 1000} s …`);
      await up.start(['--demo']);
      await up.running();
      await sleep(AFTER_MS);
      const sizes = new Map<string, number>();
      for (const { pid, command } of family(up.pid)) {
        const name = SERVICES.find((each) => command.includes(each.name))?.name ?? 'up';
        sizes.set(name, (sizes.get(name) ?? 0) + proportionalMb(pid));
      }
      const total = [...sizes.values()].reduce((sum, each) => sum + each, 0);
      const listed = [...sizes]
        .sort((one, other) => other[1] - one[1])
        .map(([name, mb]) => `${name} ${Math.round(mb)}`);
      up.signal('SIGTERM');
      await up.end();
      return {
        figures: [
          atMost('collector_mb', sizes.get('collector') ?? Number.NaN, GOAL_MB.collector),
          atMost('store_mb', sizes.get('store') ?? Number.NaN, GOAL_MB.store),
          atMost('total_mb', total, GOAL_MB.total),
        ],
        information: [
          `MiB, shared pages divided among who shares them, the simulated exchanges included: ${listed.join(', ')}`,
        ],
      };
    } finally {
      up.close();
    }
  },
};

function family(root: number): { pid: number; command: string }[] {
  const all = processes();
  const own = all.filter(({ pid }) => pid === root);
  for (const each of own) own.push(...all.filter(({ parent }) => parent === each.pid));
  return own;
}

/** Pss: what a process has alone, and its share of what it has with others; the sum over all is what they take together. */
function proportionalMb(pid: number): number {
  // One that has just ended has none.
  if (!readdirSync('/proc').includes(String(pid))) return 0;
  const found = /^Pss: +(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
  return Number(found?.[1] ?? 0) / KIB_PER_MB;
}
