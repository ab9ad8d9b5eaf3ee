/** The locks of a data directory: who holds which. They are sockets that end with their processes, so that there are no stale ones. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type LockHolder, lockHolder, socketOf } from '../lock.ts';
import { listenerOnSocket } from '../procfs.ts';
import { EXCHANGES } from '../rows.ts';
import { STATE_FILE } from '../series.ts';
import { STREAM_NAMES } from '../streams.ts';

/** Of one process each, in any data directory. */
const NAMES = [
  'npm start',
  ...STREAM_NAMES.map((name) => `store ${name}`),
  'replicate',
  'monitor',
  'major events',
  'correlation alerts',
  'deadletter',
  'repair',
];
const COLLECTOR_FILE = /^collector-(.+)\.json$/;

export interface HeldLock {
  name: string;
  directory: string;
  holder: LockHolder;
}

/** The process that holds a lock, also one that is stopped or too busy to say so. @returns null: nobody's, or not for this user to see */
export async function holderPid(directory: string, name: string): Promise<number | null> {
  const holder = await lockHolder(directory, name);
  return holder === null ? null : (holder.pid ?? listenerOnSocket(socketOf(directory, name)));
}

/** All locks that somebody holds in a data directory. @param collectorId further collectors are known by the files that they left */
export async function heldLocks(dataDir: string, collectorId: string): Promise<HeldLock[]> {
  const state = join(dataDir, 'state');
  const files = existsSync(state) ? readdirSync(state) : [];
  const matches = (pattern: RegExp) => files.flatMap((file) => pattern.exec(file)?.[1] ?? []);
  const collectors = new Set([collectorId, ...matches(COLLECTOR_FILE)]);
  const names = [
    ...NAMES,
    ...[...collectors].map((id) => `collector ${id}`),
    ...EXCHANGES.map((exchange) => `harvest ${exchange}`),
    ...matches(STATE_FILE).map((name) => `series ${name}`),
  ];
  const places = [
    ...names.map((name) => ({ directory: dataDir, name })),
    { directory: join(dataDir, 'clickhouse'), name: 'clickhouse_embedded' },
    { directory: join(dataDir, 'harvest'), name: 'harvest export' },
  ];
  const asked = places.map(async (place) => ({ ...place, holder: await lockHolder(place.directory, place.name) }));
  return (await Promise.all(asked)).filter((each): each is HeldLock => each.holder !== null);
}
