/** Whether there is room, and for how long. */
import { statfsSync } from 'node:fs';
import { selectText } from '../clickhouse.ts';
import { ofEveryServer, ofEveryShard, storedName } from '../cluster.ts';
import { at, ms } from '../gap_rows.ts';
import { DATA_TYPES, TABLES } from '../rows.ts';
import type { Check, Context, Finding } from './check.ts';
import type { Kind } from './kinds.ts';
import { SETTINGS } from './rows.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const LEAST_FREE_SHARE = 0.1;
const LITTLE_FREE_SHARE = 0.2;
const LITTLE_INODES_SHARE = 0.05;
const FEW_DAYS = 14;
const FEWEST_DAYS = 3;
/** What came in less time tells nothing about a day. */
const LEAST_KNOWN_MS = HOUR_MS;

/** Room of one disk, and what comes to it. */
export interface Room {
  /** Bytes, and inodes; inodes 0 where the file system does not count them. */
  free: number;
  size: number;
  freeInodes: number;
  inodes: number;
  /** Bytes a day, and bytes that are free where they go; null while it is not known. */
  growth: { perDay: number; free: number } | null;
}

export const disk: Check = {
  name: 'disk',
  zh: '磁盘',
  question: 'Is there room where the data is, and for how long?',
  limit: () => `20 % free, 10 % at the least; ${FEW_DAYS} days, ${FEWEST_DAYS} at the least; 5 % of inodes`,
  fix: 'du -sh data/*; drop what is older than you need',
  standsOn: ['cold'],
  isOfNow: true,
  async ask(context) {
    const { bavail, blocks, bsize, files, ffree } = statfsSync(context.config.dataDir);
    const size = { free: bavail * bsize, size: blocks * bsize, inodes: files, freeInodes: ffree };
    return judgeRoom(context.config.dataDir, { ...size, growth: await growthOf(context) });
  },
};

/** @param path what is looked at */
export function judgeRoom(path: string, { free, size, freeInodes, inodes, growth }: Room) {
  const findings: Finding[] = [];
  const add = (kind: Kind, what: string, severity: Finding['severity'], evidence: string) =>
    findings.push({ kind, subject: path, what, severity, evidence });
  const share = free / size;
  const parts = [`${Math.round(share * 100)} % free`];
  if (share < LITTLE_FREE_SHARE) add('full', parts[0]!, share < LEAST_FREE_SHARE ? 'high' : 'low', `df ${path}`);
  if (inodes > 0 && freeInodes / inodes < LITTLE_INODES_SHARE)
    add('inodes', `${((100 * freeInodes) / inodes).toFixed(1)} % of inodes free`, 'high', `df -i ${path}`);
  if (growth !== null && growth.perDay > 0) {
    const days = growth.free / growth.perDay;
    const told = `${days < 1000 ? days.toFixed(1) : Math.round(days)} days left at ${(growth.perDay / 1e9).toPrecision(3)} GB a day`;
    parts.push(told);
    if (days < FEW_DAYS) add('days_left', told, days < FEWEST_DAYS ? 'high' : 'low', 'system.parts, system.disks');
  }
  return { figure: parts.join(', '), findings };
}

/**
 * What cold grows by, from the rows that arrived in the last day and the bytes that a row takes there: hot keeps three days, cold ten years. What
 * was fetched of earlier days is a sum that does not come again.
 */
async function growthOf({ cold, config, now }: Context): Promise<Room['growth']> {
  const database = config.coldDatabase;
  const parts = `SELECT table, sum(bytes_on_disk), sum(rows) FROM ${ofEveryShard(cold, 'parts')} WHERE active AND database = '${database}' GROUP BY table`;
  const sizes = new Map(
    (await selectText(cold, parts, SETTINGS)).map(([name, bytes, rows]) => [name, Number(bytes) / Number(rows)]),
  );
  let [bytes, oldest] = [0, now];
  for (const type of DATA_TYPES) {
    const { name } = TABLES[type];
    const perRow = sizes.get(storedName(cold, name));
    if (perRow === undefined) continue;
    const since = at(now - DAY_MS);
    const day = `SELECT count(), ${ms('min(created_at)')} FROM ${database}.${name} WHERE timestamp > ${since} AND created_at > ${since}`;
    const [[count, first] = []] = await selectText(cold, day, SETTINGS);
    if (Number(count) === 0) continue;
    bytes += Number(count) * perRow;
    oldest = Math.min(oldest, Number(first));
  }
  const known = now - oldest;
  if (known < LEAST_KNOWN_MS) return null;
  const [[free] = []] = await selectText(cold, `SELECT min(free_space) FROM ${ofEveryServer(cold, 'disks')}`, SETTINGS);
  return { perDay: (bytes * DAY_MS) / known, free: Number(free) };
}
