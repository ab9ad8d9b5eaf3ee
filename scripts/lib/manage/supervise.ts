/** `manage.ts start`, `stop` and `restart`: through systemd where its units are meant, else by npm start in the background. */
import { OperatorError, UsageError } from '../cli.ts';
import { TARGET } from '../systemd/units.ts';
import { type Command, commandFlags, type ManageContext } from './command.ts';
import { lastWord } from './log_files.ts';
import { namesFor } from './names.ts';
import { restartChild, spawnUp, stopUp, upLog } from './npm_start.ts';
import type { ServiceNow } from './services_now.ts';
import { findSet, type ServiceSet } from './set.ts';
import { type Unit, unitOf } from './systemd.ts';
import { lookOnce, untilUp } from './until_up.ts';
import { Waiting } from './waiting.ts';

const START = {
  name: 'start',
  takes: '[NAME…] [-- FLAGS]',
  what: 'starts all services, or with systemd those named, and waits until each answers',
  more: `
With systemd: systemctl start marketprism.target. Without: npm start in the background, its output in DATA/logs/up.log; FLAGS are
those of npm start (npm start -- --help), such as --demo or --core. What runs already is left as it is.

Example: npx tsx scripts/manage.ts start -- --demo
Exit code: 0 all services are up; 1 one is not: which, and the last line of its log, is told; 64 wrong usage.
`,
};
const STOP = {
  name: 'stop',
  takes: '[NAME…]',
  what: 'stops all services in order, or with systemd those named, and waits until they are gone',
  more: `
Exit code: 0 nothing runs any more; 1 something still does; 64 wrong usage.
`,
};
const RESTART = {
  name: 'restart',
  takes: '[NAME…] [-- FLAGS]',
  what: 'stops and starts all services, with the flags they had, or those named',
  more: `
Without systemd a service that is named is told to stop, and npm start starts it again.

Example: npx tsx scripts/manage.ts restart collector
Exit code: 0 all are up; 1 one is not: which, and the last line of its log, is told; 64 wrong usage.
`,
};

export const start: Command = {
  ...START,
  async run(argv, context) {
    const { names, flags } = asked(START, argv);
    const set = await findSet(context.env, context.systemd);
    if (set.supervisor === 'systemd') return startUnits(unitsFor(names, flags, set), 'start', set, context);
    if (names.length > 0) throw withoutSystemd('start', names);
    if (set.up === null) return startUp(flags, context.env, context);
    context.out.write(`npm start runs already: pid ${set.up.pid}, ${set.up.mode} (manage.ts status tells how it is)\n`);
    return 0;
  },
};

export const stop: Command = {
  ...STOP,
  async run(argv, context) {
    const { names, flags } = asked(STOP, argv);
    const set = await findSet(context.env, context.systemd);
    if (set.supervisor === 'systemd') return stopUnits(unitsFor(names, flags, set), set, context);
    if (names.length > 0 || flags.length > 0) throw withoutSystemd('stop', [...names, ...flags]);
    if (set.up === null) return tellByHand(set, context);
    await stopWaiting(set, context);
    context.out.write('stopped\n');
    return 0;
  },
};

export const restart: Command = {
  ...RESTART,
  async run(argv, context) {
    const { names, flags } = asked(RESTART, argv);
    const set = await findSet(context.env, context.systemd);
    if (set.supervisor === 'systemd') return startUnits(unitsFor(names, flags, set), 'restart', set, context);
    if (names.length > 0 && flags.length > 0) throw new UsageError('FLAGS are for all services: leave the names out');
    const { up } = set;
    if (names.length > 0) return restartNamed(names, set, context);
    if (up === null) return startUp(flags, context.env, context);
    await stopWaiting(set, context);
    // As it was started, in its own environment: another one would be another set.
    return startUp(flags.length > 0 ? flags : up.argv, { ...context.env, ...up.env }, context);
  },
};

/** Names, and after `--` flags of npm start. */
function asked(command: typeof START, argv: string[]): { names: string[]; flags: string[] } {
  const end = argv.indexOf('--');
  const names = commandFlags(command, {}, end < 0 ? argv : argv.slice(0, end)).positionals;
  return { names, flags: end < 0 ? [] : argv.slice(end + 1) };
}

function withoutSystemd(verb: string, words: readonly string[]): UsageError {
  return new UsageError(
    `${verb} takes no "${words.join(' ')}" here: without systemd npm start keeps all services running, and one of them can only be restarted (manage.ts restart NAME)`,
  );
}

/** The units that are named; the target stands for all. */
function unitsFor(names: readonly string[], flags: readonly string[], { units, expected }: ServiceSet): string[] {
  if (flags.length > 0)
    throw new UsageError(
      `systemd runs the services: "${flags.join(' ')}" is for npm start; settings stand in the units' environment`,
    );
  const isInstalled = (name: string) => units.some(({ id }) => id === unitOf(name));
  const known = expected.map(({ name }) => name).filter(isInstalled);
  return names.length === 0 ? [TARGET] : namesFor(names, known).map(unitOf);
}

async function startUnits(ids: string[], verb: 'start' | 'restart', set: ServiceSet, context: ManageContext) {
  const own = unitsOf(ids, set);
  if (verb === 'start' && own.length > 0 && own.every(({ active }) => active === 'active')) {
    context.out.write(`${ids.join(', ')}: active already (manage.ts status tells how it is)\n`);
    return 0;
  }
  await context.systemd.order(verb, ids);
  const wanted = set.expected.filter(({ name }) => ids.includes(TARGET) || ids.includes(unitOf(name)));
  return untilUp(
    wanted.map(({ name }) => name),
    context,
    new Waiting(context.err),
  );
}

async function stopUnits(ids: string[], set: ServiceSet, context: ManageContext): Promise<number> {
  const isStill = ({ active }: Unit) => active !== 'inactive' && active !== 'failed';
  if (!unitsOf(ids, set).some(isStill)) {
    context.out.write(`${ids.join(', ')}: not active\n`);
    return 0;
  }
  await context.systemd.order('stop', ids);
  const left = unitsOf(ids, { ...set, units: await context.systemd.units() }).filter(isStill);
  if (left.length === 0) {
    context.out.write('stopped\n');
    return 0;
  }
  const told = left.map(({ id, active }) => `${id} (${active})`).join(', ');
  context.err.write(`still there: ${told}; systemctl status ${left[0]!.id} tells why\n`);
  return 1;
}

/** The units that an order is about: with the target all of ours. */
function unitsOf(ids: readonly string[], { units, expected }: Pick<ServiceSet, 'units' | 'expected'>): Unit[] {
  const all = new Set([TARGET, ...expected.map(({ name }) => unitOf(name))]);
  return units.filter(({ id }) => (ids.includes(TARGET) ? all.has(id) : ids.includes(id)));
}

async function startUp(flags: readonly string[], env: NodeJS.ProcessEnv, context: ManageContext): Promise<number> {
  const child = spawnUp(flags, env);
  const log = upLog(env);
  context.out.write(`npm start is pid ${child.pid}, its log ${log}\n`);
  const failed = () => {
    if (child.exitCode === null && child.signalCode === null) return null;
    return new OperatorError(
      `npm start ended (${child.exitCode ?? child.signalCode}): ${lastWord(log) ?? `see ${log}`}`,
    );
  };
  return untilUp(null, { ...context, env }, new Waiting(context.err), failed);
}

async function stopWaiting({ up }: ServiceSet, { err, stop: signal }: ManageContext): Promise<void> {
  const waiting = new Waiting(err);
  try {
    await stopUp(up!, waiting, signal);
  } finally {
    waiting.clear();
  }
}

async function restartNamed(names: readonly string[], set: ServiceSet, context: ManageContext): Promise<number> {
  if (set.up === null)
    throw new UsageError(`nothing runs here that would start ${names.join(', ')} again: manage.ts start starts all`);
  const waiting = new Waiting(context.err);
  const wanted = namesFor(
    names,
    set.expected.map(({ name }) => name),
  );
  for (const name of wanted) await restartChild(name, set.up, waiting, context.stop);
  return untilUp(wanted, context, waiting);
}

/** What was started by hand is stopped by hand. */
async function tellByHand(set: ServiceSet, { out, err }: ManageContext): Promise<number> {
  const running = (await lookOnce(set)).filter((each): each is ServiceNow & { pid: number } => each.pid !== null);
  if (running.length === 0) {
    out.write('nothing runs here\n');
    return 0;
  }
  const told = running.map(({ name, pid }) => `${name} (pid ${pid})`).join(', ');
  err.write(
    `started by hand, and left alone: ${told}; kill -TERM ${running.map(({ pid }) => pid).join(' ')} stops them\n`,
  );
  return 1;
}
