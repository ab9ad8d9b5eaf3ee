/** Where the data are, what they take, and how long there is room. */
import { existsSync, lstatSync, readdirSync, statfsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Severity as CheckSeverity } from '../../checks/check.ts';
import { disk as diskCheck, judgeRoom } from '../../checks/disk.ts';
import { readLimits } from '../../checks/limits.ts';
import { coldServer, createClickHouse, hotServer } from '../../clickhouse.ts';
import type { Config } from '../../config.ts';
import { bytesOf } from '../status_view.ts';
import { finding, ok, type Probe, type Severity } from './finding.ts';

const SEVERITIES: Record<CheckSeverity, Severity> = {
  ...{ hint: 'hint', low: 'warning', medium: 'warning', high: 'error', critical: 'error' },
};

export const disk: Probe = {
  area: 'disk',
  async look({ set: { config } }) {
    const path = resolve(config.dataDir);
    if (!existsSync(path)) return [ok(path, 'is not there yet: nothing was started here')];
    const parts = readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => ({ name, bytes: sizeOf(join(path, name)) }))
      .sort((one, other) => other.bytes - one.bytes);
    const told = parts.map(({ name, bytes }) => `${name} ${bytesOf(bytes)}`).join(', ');
    const [largest] = parts;
    const room = await roomOf(config);
    return [
      ok(path, told || 'is empty'),
      ...room.map(({ severity, what }) =>
        finding(severity, path, what, largest === undefined ? null : remedyFor(severity, path)),
      ),
    ];
  },
};

function remedyFor(severity: Severity, path: string): string | null {
  return severity === 'ok' || severity === 'hint'
    ? null
    : `npx tsx scripts/manage.ts clean; du -xh --max-depth=2 ${path} | sort -h | tail`;
}

/** As integrity.ts judges it; how fast cold grows only the database knows. */
async function roomOf(config: Config): Promise<{ severity: Severity; what: string }[]> {
  const hot = createClickHouse(hotServer(config), 'marketprism-manage');
  const cold = createClickHouse(coldServer(config), 'marketprism-manage');
  const now = Date.now();
  try {
    const limits = readLimits(config.dataDir);
    const { figure, findings } = await diskCheck.ask({ config, hot, cold, now, limits, from: now, to: now });
    const known = /days left/.test(figure)
      ? []
      : [{ severity: 'hint' as const, what: 'days left: cold has too few rows to tell' }];
    if (findings.length === 0) return [{ severity: 'ok', what: figure }, ...known];
    return [...findings.map(({ severity, what }) => ({ severity: SEVERITIES[severity], what })), ...known];
  } catch (error) {
    return [
      ...roomAlone(config.dataDir),
      { severity: 'unchecked', what: `days left: ${(error as Error).message.split('\n')[0]}` },
    ];
  } finally {
    await Promise.all([hot.close(), cold.close()]);
  }
}

function roomAlone(path: string): { severity: Severity; what: string }[] {
  const { bavail, blocks, bsize, files, ffree } = statfsSync(path);
  const { figure, findings } = judgeRoom(path, {
    ...{ free: bavail * bsize, size: blocks * bsize, inodes: files, freeInodes: ffree, growth: null },
  });
  if (findings.length === 0) return [{ severity: 'ok', what: figure }];
  return findings.map(({ severity, what }) => ({ severity: SEVERITIES[severity], what }));
}

/** What a folder takes on the disk; files that go meanwhile are left out. */
function sizeOf(path: string): number {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 0;
  const own = stat.blocks * 512;
  if (!stat.isDirectory()) return own;
  return namesIn(path).reduce((sum, name) => sum + sizeOf(join(path, name)), own);
}

function namesIn(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
