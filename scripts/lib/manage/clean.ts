/** `manage.ts clean`: what may go. Nothing is deleted without --yes, and no data without being asked for by name. */
import { existsSync, lstatSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { OperatorError, UsageError } from '../cli.ts';
import { readProcesses } from '../procfs.ts';
import { textTable } from '../status.ts';
import { type Command, onlyFlags } from './command.ts';
import { heldLocks } from './locks.ts';
import { upLog } from './npm_start.ts';
import { findSet, type ServiceSet } from './set.ts';
import { bytesOf } from './status_view.ts';

/** `store.log.1`, `store.log-20261130`, `store.log-20261130.gz`. */
const ROTATED_LOG = /\.log[.-]\d[\d-]*(\.gz)?$/;
/** A file that is written beside the one that it will replace has its writer's pid in its name. */
const TEMPORARY = /\.(\d+)\.tmp$/;
/** The database's and the broker's own files are theirs. */
const ENGINES = ['clickhouse', 'nats'];
/** Stands in the repository, and explains the directory. */
const KEPT = ['README.md'];
const CACHE = join(import.meta.dirname, '..', '..', '..', 'node_modules', '.cache', 'marketprism');
/** What a set-up that was cut off has left there. */
const UNPACKED = /\.unpacked$/;

const CLEAN = {
  name: 'clean',
  takes: '[--yes] [--data | --live-data]',
  what: 'shows what may go, with sizes; with --yes it goes: rotated logs, what crashes and cut-off set-ups left',
  more: `
Flags:
  --yes         delete; without it all is only shown
  --data        a demo's data instead: everything below DATA/demo; the demo must not run
  --live-data   the live data instead: everything below DATA but the demo's; only with --yes does it go, and only while nothing runs,
                no demo either. There is no way back.

Tables and streams of a ClickHouse or NATS server elsewhere are not touched.
Exit code: 0; 1 something still runs that uses it; 64 wrong usage.
`,
};

interface Item {
  what: string;
  path: string;
  bytes: number;
}

export const clean: Command = {
  ...CLEAN,
  async run(argv, { env, systemd, out }) {
    const flag = { type: 'boolean', default: false } as const;
    const options = onlyFlags(CLEAN, { yes: flag, data: flag, 'live-data': flag }, argv);
    if (options.data && options['live-data']) throw new UsageError('--data and --live-data exclude each other');
    const set = await findSet(env, systemd);
    const base = set.config.mode === 'demo' ? dirname(resolve(set.config.dataDir)) : resolve(set.config.dataDir);
    const demo = join(base, 'demo');
    const items = options.data
      ? partsOf(demo, 'demo data', [])
      : options['live-data']
        ? partsOf(base, 'live data', [...KEPT, 'demo'])
        : leftovers(resolve(set.config.dataDir), upLog(set.env));
    if (items.length === 0) {
      out.write('there is nothing to delete\n');
      return 0;
    }
    const total = items.reduce((sum, { bytes }) => sum + bytes, 0);
    out.write(
      `${textTable(
        ['what', 'path', 'size'],
        items.map(({ what, path, bytes }) => [what, path, bytesOf(bytes)]),
        2,
      )}\n`,
    );
    if (!options.yes) {
      out.write(`${bytesOf(total)} in all; nothing was deleted (--yes does it)\n`);
      return 0;
    }
    if (options.data) await refuseInUse(demo, set);
    if (options['live-data']) await refuseInUse(base, set);
    for (const { path } of items) rmSync(path, { recursive: true, force: true });
    out.write(`deleted: ${bytesOf(total)}\n`);
    return 0;
  },
};

/** What nobody needs any more. */
function leftovers(dataDir: string, up: string): Item[] {
  const logs = [...filesIn(join(dataDir, 'logs')), ...filesIn(dirname(up))].filter((path) => ROTATED_LOG.test(path));
  const temporary = walk(dataDir, ENGINES).filter((path) => {
    const pid = TEMPORARY.exec(path)?.[1];
    return pid !== undefined && !existsSync(`/proc/${pid}`);
  });
  const unpacked = filesIn(CACHE).filter((path) => UNPACKED.test(path));
  return [
    ...[...new Set(logs)].map((path) => itemOf('rotated log', path)),
    ...temporary.map((path) => itemOf('temporary file', path)),
    ...unpacked.map((path) => itemOf('cut-off set-up', path)),
  ];
}

function partsOf(directory: string, what: string, kept: readonly string[]): Item[] {
  const parts = filesIn(directory).filter((path) => !kept.some((name) => path === join(directory, name)));
  return parts.map((path) => itemOf(what, path));
}

/** @throws OperatorError naming who uses it */
async function refuseInUse(directory: string, { config, units }: ServiceSet): Promise<void> {
  const demo = join(directory, 'demo');
  const locks = [...(await heldLocks(directory, config.collectorId)), ...(await heldLocks(demo, config.collectorId))];
  const users = [...readProcesses().values()].filter(
    ({ pid, argv }) => pid !== process.pid && argv.some((word) => word.startsWith(`${directory}/`)),
  );
  const active = units.filter(
    ({ id, active }) => id.endsWith('.service') && active !== 'inactive' && active !== 'failed',
  );
  const told = [
    ...locks.map(({ name, holder }) => `${name} (pid ${holder.pid ?? 'not known'})`),
    ...users.map(({ pid, argv }) => `${argv[0]} (pid ${pid})`),
    ...active.map(({ id }) => id),
  ];
  if (told.length > 0)
    throw new OperatorError(`nothing was deleted: ${directory} is in use by ${told.join(', ')}; manage.ts stop first`);
}

function itemOf(what: string, path: string): Item {
  const bytes = [path, ...(lstatSync(path).isDirectory() ? walk(path, []) : [])].reduce(
    (sum, each) => sum + (lstatSync(each, { throwIfNoEntry: false })?.blocks ?? 0) * 512,
    0,
  );
  return { what, path, bytes };
}

function filesIn(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory).map((name) => join(directory, name));
}

/** All that lies below a directory; links are not followed. @param but names of folders at its top that are left out */
function walk(directory: string, but: readonly string[]): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => !(entry.isDirectory() && but.includes(entry.name)))
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? [path, ...walk(path, [])] : [path];
    });
}
