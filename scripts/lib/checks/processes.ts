/** What the processes take, and how often they were started again. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { readJson } from '../files.ts';
import { RESTARTS_FILE } from '../processes.ts';
import { INSTANCED, SERVICES } from '../services.ts';
import { type Check, type Context, type Finding, NotApplicable } from './check.ts';

const MIB = 2 ** 20;
const ANSWER_WITHIN_MS = 5000;
const RESIDENT = /^\w*resident_memory_bytes (\d+(?:\.\d+)?(?:e\+?\d+)?)$/m;

const RESTARTS = z.object({
  pid: z.number().int().positive(),
  since: z.number(),
  restarts: z.record(z.string(), z.number()),
});

interface Process {
  name: string;
  metrics: string;
  mostMib: number;
}

export const processes: Check = {
  name: 'processes',
  zh: '进程',
  question: 'Does any process take more memory than it should, or is it started again and again?',
  limit: ({ service_memory_mib, engine_memory_mib, restarts }) =>
    `${service_memory_mib} MiB a service, ${engine_memory_mib} MiB the embedded ClickHouse; ${restarts} restarts`,
  fix: 'journalctl of the service tells why it ended',
  standsOn: [],
  isOfNow: true,
  async ask(context) {
    const findings: Finding[] = [];
    const measured: string[] = [];
    for (const { name, metrics, mostMib } of processesOf(context)) {
      const mib = await residentMib(metrics);
      // Whether it answers at all is asked by another check; a ClickHouse server elsewhere has no such figure.
      if (mib === null) continue;
      measured.push(`${name} ${mib} MiB`);
      if (mib <= mostMib) continue;
      findings.push({
        ...{ kind: 'memory', subject: name, what: `${mib} MiB, limit ${mostMib}` },
        ...{ severity: 'medium' as const, evidence: `curl -s ${metrics}` },
      });
    }
    const restarts = await restartCounts(context);
    for (const [name, count] of restarts?.counts ?? []) {
      if (count <= context.limits.restarts) continue;
      findings.push({
        ...{ kind: 'restarts', subject: name, what: `started again ${count} times since ${restarts!.since}` },
        ...{ severity: 'medium' as const, evidence: restarts!.evidence },
      });
    }
    if (measured.length === 0) throw new NotApplicable('no process answers');
    const told = restarts === null ? 'restarts are not counted here' : `${sum(restarts.counts.values())} restarts`;
    return { figure: `${measured.join(', ')}; ${told}`, findings };
  },
};

function processesOf({ config, limits }: Context): Process[] {
  const service = (name: string, port: number) => ({
    name,
    metrics: `http://127.0.0.1:${port}/metrics`,
    mostMib: limits.service_memory_mib,
  });
  const all = (name: string, ports: readonly number[]) =>
    ports.map((port) => service(ports.length === 1 ? name : `${name} ${port}`, port));
  return [
    ...all('collector', config.collectorPorts),
    ...all('store', config.storePorts),
    service('replicate', config.replicatePort),
    {
      name: 'clickhouse_embedded',
      metrics: new URL('/metrics', config.clickhouseUrl).href,
      mostMib: limits.engine_memory_mib,
    },
  ];
}

/** Of a process that answers, and tells it. */
async function residentMib(url: string): Promise<number | null> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
    const found = RESIDENT.exec(await answer.text());
    return found === null ? null : Math.round(Number(found[1]) / MIB);
  } catch {
    // Down: the check of services says so.
    return null;
  }
}

interface Restarts {
  counts: Map<string, number>;
  since: string;
  evidence: string;
}

/** As npm start counts them, or systemd; null where neither runs them. */
async function restartCounts({ config }: Context): Promise<Restarts | null> {
  const path = join(config.dataDir, RESTARTS_FILE);
  const written = RESTARTS.safeParse(readJson(path));
  if (written.success && isAlive(written.data.pid)) {
    const since = new Date(written.data.since).toISOString();
    return { counts: new Map(Object.entries(written.data.restarts)), since, evidence: path };
  }
  const units = [...SERVICES.map(({ unit }) => unit), ...[...INSTANCED.keys()].map((name) => `${name}@*`)].map(
    (name) => `marketprism-${name}.service`,
  );
  const args = ['show', '--property=Id,LoadState,NRestarts', ...units];
  try {
    const { stdout } = await promisify(execFile)('systemctl', args, { timeout: ANSWER_WITHIN_MS });
    const counts = new Map<string, number>();
    for (const block of stdout.trim().split('\n\n')) {
      const value = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(block)?.[1];
      if (value('LoadState') === 'loaded') counts.set(value('Id')!, Number(value('NRestarts')));
    }
    return counts.size === 0 ? null : { counts, since: 'they were started', evidence: `systemctl ${args.join(' ')}` };
  } catch {
    // No systemd here.
    return null;
  }
}

/** What an earlier npm start counted says nothing of those that run now. */
function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`);
}

function sum(values: Iterable<number>): number {
  return [...values].reduce((total, each) => total + each, 0);
}
