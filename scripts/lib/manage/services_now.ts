/** How each service runs now: its process from /proc, who keeps it running from npm start or systemd, and its health. */
import { join } from 'node:path';
import { z } from 'zod';
import { readJson } from '../files.ts';
import { RESTARTS_FILE } from '../processes.ts';
import { CpuMeter, listenersOn, type ProcessNow, readProcesses, secondsSinceBoot, treeOf } from '../procfs.ts';
import { INSTANCED, type Service } from '../services.ts';
import type { Verdict } from '../status.ts';
import { askHealth, type Health, isAskable } from './health.ts';
import { heldLocks, holderPid } from './locks.ts';
import { childrenOf, type ServiceSet } from './set.ts';
import { type Unit, unitOf } from './systemd.ts';

export interface ServiceNow {
  name: string;
  what: string;
  /** In words of systemd: active, inactive, failed, activating, …; active (elsewhere): it answers, and its process is not to be seen here. */
  state: string;
  pid: number | null;
  uptime_seconds: number | null;
  /** Since its supervisor was started; null: nobody counts them. */
  restarts: number | null;
  /** Of its process and all that this started. */
  rss_bytes: number | null;
  /** Of one core, since the look before; null at the first one. */
  cpu_percent: number | null;
  /** null: it has nothing to be asked at. */
  answers: boolean | null;
  health: Verdict;
  reason: string | null;
}

/** They may be on another machine; all others are asked on this one. */
const ELSEWHERE = ['nats-server', 'clickhouse_embedded'];
/** Where NATS listens unless told otherwise. */
const NATS_PORT = 4222;
const RESTARTS = z.object({ pid: z.number(), restarts: z.record(z.string(), z.number()) });

/** What was found of a service's process. */
interface Placed {
  pid: number | null;
  /** null: nobody says; the process tells. */
  state: string | null;
  restarts: number | null;
  /** Why it does not run, where its supervisor knows. */
  reason: string | null;
}

/** One look after the other, so that what rises between two of them is told. */
export class ServicesLook {
  private readonly cpu = new CpuMeter();

  /** @param healths as HealthLook found them */
  async look(set: ServiceSet, healths: ReadonlyMap<string, Health>): Promise<ServiceNow[]> {
    const processes = readProcesses();
    const now = secondsSinceBoot();
    const placed = await placesOf(set, processes);
    return Promise.all(
      set.expected.map(async (service) => {
        const place = placed.get(service.name) ?? { pid: null, state: null, restarts: null, reason: null };
        const health = await healthOf(service, set, healths);
        const tree = place.pid === null ? [] : treeOf(processes, place.pid);
        const isThere = tree.length > 0;
        const isElsewhere = !isThere && ELSEWHERE.includes(service.name) && health?.answers === true;
        const isOurs = isThere || isElsewhere;
        return {
          ...{ name: service.name, what: service.what, pid: isThere ? place.pid : null, restarts: place.restarts },
          state: place.state ?? (isThere ? 'active' : isElsewhere ? 'active (elsewhere)' : 'inactive'),
          uptime_seconds: isThere ? Math.max(Math.round(now - tree[0]!.startedAt), 0) : null,
          rss_bytes: isThere ? tree.reduce((sum, each) => sum + each.residentBytes, 0) : null,
          cpu_percent: this.cpu.percent(now, tree),
          answers: isAskable(service.name) ? isOurs && health?.answers === true : null,
          ...wordOf(place, isOurs, health),
        };
      }),
    );
  }
}

/** A service that does not run is not well, whatever an old state file still says. */
function wordOf(place: Placed, isOurs: boolean, health: Health | null): { health: Verdict; reason: string | null } {
  if (!isOurs) {
    const stranger = health?.answers ? '; what answers on its port is none of this set (manage.ts diagnose)' : '';
    return { health: 'unhealthy', reason: `${place.reason ?? 'does not run'}${stranger}` };
  }
  if (health === null) return { health: 'unchecked', reason: 'runs, and cannot be asked how it is' };
  return { health: health.status, reason: health.reason };
}

async function healthOf({ name, port }: Service, set: ServiceSet, healths: ReadonlyMap<string, Health>) {
  if (!name.includes('@')) return healths.get(name) ?? null;
  return port === null ? null : askHealth(port(set.config));
}

async function placesOf(set: ServiceSet, processes: ReadonlyMap<number, ProcessNow>): Promise<Map<string, Placed>> {
  if (set.supervisor === 'systemd') return new Map(set.expected.map(({ name }) => [name, placeOf(name, set.units)]));
  if (set.supervisor === 'npm start') return placesUnderUp(set, new Map(processes));
  const found = await Promise.all(set.expected.map(async ({ name }) => [name, await pidByHand(name, set)] as const));
  return new Map(found.map(([name, pid]) => [name, { pid, state: null, restarts: null, reason: null }]));
}

function placeOf(name: string, units: readonly Unit[]): Placed {
  const unit = units.find(({ id }) => id === unitOf(name));
  if (unit === undefined || unit.isUnneeded) return { pid: null, state: null, restarts: null, reason: null };
  const { pid, active, sub, result, restarts } = unit;
  const why = result === '' || result === 'success' ? '' : ` (${result})`;
  return { pid, state: active, restarts, reason: `does not run: ${active}, ${sub}${why}` };
}

function placesUnderUp({ up, config, expected }: ServiceSet, processes: Map<number, ProcessNow>): Map<string, Placed> {
  const children = childrenOf(up!.pid, processes);
  const written = RESTARTS.safeParse(readJson(join(config.dataDir, RESTARTS_FILE)));
  // What an earlier npm start counted says nothing of those that run now.
  const counts = written.success && written.data.pid === up!.pid ? written.data.restarts : null;
  return new Map(
    expected.map(({ name }) => [
      name,
      {
        ...{ pid: children.get(name)?.pid ?? null, state: null, reason: null },
        restarts: counts === null ? null : (counts[name] ?? 0),
      },
    ]),
  );
}

/** Of a service that somebody started by hand: who has its lock, or the broker's port. */
async function pidByHand(name: string, { config }: ServiceSet): Promise<number | null> {
  const { dataDir, collectorId, natsUrl } = config;
  if (name === 'nats-server') {
    const port = Number(new URL(natsUrl.split(',')[0]!).port || NATS_PORT);
    return listenersOn([port]).get(port)?.[0] ?? null;
  }
  if (name === 'clickhouse_embedded') return holderPid(join(dataDir, 'clickhouse'), name);
  if (!INSTANCED.has(name)) return holderPid(dataDir, name);
  // A lock for each part; a collector may have been told another name than this shell.
  const held = (await heldLocks(dataDir, collectorId)).find((each) => each.name.startsWith(`${name} `));
  return held === undefined ? null : holderPid(held.directory, held.name);
}

const RANK: readonly Verdict[] = ['healthy', 'degraded', 'unchecked', 'unhealthy'];

/** Of none it is `unchecked`: nothing was measured. */
export function worstOf(verdicts: readonly Verdict[]): Verdict {
  if (verdicts.length === 0) return 'unchecked';
  return RANK[Math.max(...verdicts.map((each) => RANK.indexOf(each)))]!;
}
