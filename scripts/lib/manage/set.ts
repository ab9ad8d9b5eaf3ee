/**
 * The set of services that an operator means: who keeps it running (systemd, npm start, or nobody), its environment, and what should run in it.
 * An environment is that of the services, and not that of the shell: a port or a database that only they were told of is asked all the same.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { OperatorError } from '../cli.ts';
import { type Config, loadConfig, MODES, type Mode } from '../config.ts';
import { directoryOf, environmentOf, type ProcessNow, readProcesses } from '../procfs.ts';
import { INSTANCED, SERVICES, type Service, serviceOf } from '../services.ts';
import { TARGET } from '../systemd/units.ts';
import { holderPid } from './locks.ts';
import { environmentFrom, nameOf, type Systemd, type Unit } from './systemd.ts';

export type Supervisor = 'systemd' | 'npm start' | 'none';

/** What npm start was started with. */
export interface Up {
  pid: number;
  mode: Mode;
  argv: readonly string[];
  env: Record<string, string>;
}

export interface ServiceSet {
  supervisor: Supervisor;
  config: Config;
  /** For scripts that are to look at the same set. */
  env: NodeJS.ProcessEnv;
  /** Services that should run; broker and database perhaps elsewhere. */
  expected: readonly Service[];
  /** Of systemd, as far as they are installed; the target among them. */
  units: readonly Unit[];
  up: Up | null;
  /** Why another set than the shell's was chosen, in a line. */
  note: string | null;
}

/** Broker and database: an own one of each runs unless the environment names others. */
const STANDS_ON = ['nats-server', 'clickhouse_embedded'];
/** Variables of a unit that are about its processes, and not settings of ours. */
const OF_THE_PROCESS = /^(PATH|HOME|TMPDIR|NODE_\w+|UV_\w+|GOMEMLIMIT|LD_\w+)$/;
/** Paths that services were told of, relative to where they were started. */
const PATHS = ['MARKETPRISM_DATA_DIR', 'MARKETPRISM_ENDPOINTS'];

/**
 * The set that is meant: of systemd where its units are active, else what npm start runs, else of systemd where it is installed. Without
 * MARKETPRISM_MODE a demo that npm start runs is meant, too, when nothing live runs.
 * @param shell the environment of whoever asks
 * @throws UsageError for a wrong variable, OperatorError where the environment of the services is not for this user to read
 */
export async function findSet(shell: NodeJS.ProcessEnv, systemd: Systemd): Promise<ServiceSet> {
  const units = await systemd.units();
  const isInstalled = units.some(({ id }) => id === TARGET);
  const isActive = units.some(({ active }) => active !== 'inactive' && active !== 'failed');
  if (isInstalled && isActive) {
    const found = systemdSet(shell, units);
    if (found !== null) return found;
  }
  const up = await findUp(shell);
  if (up !== null) return upSet(shell, up, units);
  return (isInstalled ? systemdSet(shell, units) : null) ?? unsupervisedSet(shell, units);
}

/** @returns null where the shell names another mode or data directory than the units have */
function systemdSet(shell: NodeJS.ProcessEnv, units: readonly Unit[]): ServiceSet | null {
  const own = unitEnvironment(units);
  const differs = (name: string, usual: string) => shell[name] && shell[name] !== (own[name] || usual);
  if (differs('MARKETPRISM_MODE', 'live') || differs('MARKETPRISM_DATA_DIR', '')) return null;
  const env = { ...shell, ...own };
  const wanted = new Set(units.find(({ id }) => id === TARGET)?.wants);
  const config = loadConfig(env);
  const services = units.flatMap((unit) => (wanted.has(unit.id) && !unit.isUnneeded ? serviceOfUnit(unit) : []));
  // Where they are other machines' business they have no unit here, and are needed all the same.
  const elsewhere = STANDS_ON.filter((name) => !services.some((each) => each.name === name)).map(serviceOf);
  const expected = [...elsewhere, ...services];
  return { supervisor: 'systemd', config, env, expected, units, up: null, note: null };
}

/** What all of the units' services are told. One of several collectors or stores is told more, which is its own. */
function unitEnvironment(units: readonly Unit[]): Record<string, string> {
  const told: Record<string, string> = {};
  for (const unit of units) if (!unit.id.includes('@')) Object.assign(told, environmentOfUnit(unit));
  return Object.fromEntries(Object.entries(told).filter(([name]) => !OF_THE_PROCESS.test(name)));
}

/** Secrets first, then what stands in the unit, then its files: the last word counts, as for the service. */
function environmentOfUnit({ credentials, environment, environmentFiles }: Unit): Record<string, string> {
  const files = environmentFiles.map((path) => environmentFrom(textOf(path)));
  return Object.assign({}, ...credentials.map(secretsIn), environment, ...files);
}

function secretsIn(directory: string): Record<string, string> {
  const names = readable(() => readdirSync(directory)) ?? [];
  return Object.fromEntries(names.map((name) => [name, textOf(join(directory, name)).trim()]));
}

function textOf(path: string): string {
  return readable(() => readFileSync(path, 'utf8')) ?? '';
}

/** @returns null where there is nothing: a unit that needs it does not start, and systemd says so @throws OperatorError where it is root's */
function readable<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return null;
    if (code !== 'EACCES') throw error;
    throw new OperatorError(`the services' environment cannot be read (${message}): run this with sudo`, 3);
  }
}

/** One collector per exchange, or store per stream, is the same service, with ports of its own. */
function serviceOfUnit(unit: Unit): Service[] {
  const name = nameOf(unit.id);
  if (name === null) return [];
  const known = SERVICES.find((each) => each.name === name.replace(/@.*/, ''))!;
  if (known.name === name) return [known];
  const port = Number(environmentOfUnit(unit)[INSTANCED.get(known.name)!.portSetting]);
  return [{ ...known, name, port: port > 0 ? () => port : null }];
}

/** npm start of the shell's data directory; live before demo, unless the shell names one. */
async function findUp(shell: NodeJS.ProcessEnv): Promise<Up | null> {
  const data = resolve(shell.MARKETPRISM_DATA_DIR || 'data');
  const named = MODES.filter((mode) => mode === shell.MARKETPRISM_MODE);
  for (const mode of named.length > 0 ? named : MODES) {
    const pid = await holderPid(mode === 'demo' ? join(data, 'demo') : data, 'npm start');
    if (pid === null) continue;
    const argv = readProcesses().get(pid)?.argv ?? [];
    const flags = argv.slice(argv.findIndex((each) => /\bup\.ts$/.test(each)) + 1);
    const env = environmentIfThere(pid);
    if (env !== null) return { pid, mode, argv: flags, env };
  }
  return null;
}

/** Of a process of npm start, with whole paths. @returns null for one that has ended meanwhile */
function environmentIfThere(pid: number): Record<string, string> | null {
  try {
    const [env, directory] = [environmentOf(pid), directoryOf(pid)];
    for (const name of PATHS) if (env[name]) env[name] = resolve(directory, env[name]);
    env.MARKETPRISM_DATA_DIR ||= resolve(directory, 'data');
    return env;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    if (code !== 'EACCES') throw error;
    throw new OperatorError(`npm start (pid ${pid}) is another user's: run this as that user, or with sudo`, 3);
  }
}

function upSet(shell: NodeJS.ProcessEnv, up: Up, units: readonly Unit[]): ServiceSet {
  // A child knows of the ports that npm start chose by its flags.
  const [child] = [...childrenOf(up.pid)].flatMap(([name, { pid }]) => (name === 'nats-server' ? [] : pid));
  const told = child === undefined ? null : environmentIfThere(child);
  const env: NodeJS.ProcessEnv = { ...shell, ...up.env, MARKETPRISM_MODE: up.mode, ...told };
  // A demo that is only starting has not written yet where its exchanges are.
  if (up.mode === 'demo' && !existsSync(env.MARKETPRISM_ENDPOINTS ?? '')) delete env.MARKETPRISM_ENDPOINTS;
  const config = loadConfig(env);
  const isWanted = ({ role }: Service) => role === 'core' || role === 'demo' || !up.argv.includes('--core');
  const note =
    up.mode === 'demo' && !shell.MARKETPRISM_MODE
      ? 'this is the demo that npm start runs here (MARKETPRISM_MODE=live asks for the live set)'
      : null;
  const expected = servicesFor(config).filter(isWanted);
  return { supervisor: 'npm start', config, env, expected, units, up, note };
}

/** Without a supervisor nobody said what should run: what captures and stores is needed in any case. */
function unsupervisedSet(shell: NodeJS.ProcessEnv, units: readonly Unit[]): ServiceSet {
  const config = loadConfig(shell);
  const expected = servicesFor(config).filter(({ role }) => role === 'core');
  return { supervisor: 'none', config, env: { ...shell }, expected, units, up: null, note: null };
}

/** All that npm start would run with this configuration. */
function servicesFor(config: Config): Service[] {
  return SERVICES.filter(
    ({ role }) =>
      role === 'core' ||
      role === 'reader' ||
      (role === 'demo' && config.mode === 'demo') ||
      (role === 'keys' && config.okxKey !== undefined),
  );
}

/** The processes that npm start has started, by the names of their services. */
export function childrenOf(upPid: number, processes = readProcesses()): Map<string, ProcessNow> {
  const children = [...processes.values()].filter(({ parent }) => parent === upPid);
  return new Map(children.flatMap((child) => named(child)));
}

function named(child: ProcessNow): [string, ProcessNow][] {
  const scripts = child.argv.flatMap((each) => /scripts\/(\w+)\.ts$/.exec(each)?.[1] ?? []);
  const isBroker = /(^|\/)nats-server$/.test(child.argv[0] ?? '');
  // A child that is only being started is a copy of npm start still.
  const name = SERVICES.find((each) => (isBroker ? each.name === 'nats-server' : scripts.includes(each.name)))?.name;
  return name === undefined ? [] : [[name, child]];
}
