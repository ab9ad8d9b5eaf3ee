/** `manage.ts status` and `health`. */
import { hostname } from 'node:os';
import { duration, OperatorError, UsageError } from '../cli.ts';
import { pause } from '../pause.ts';
import { VERSION } from '../service.ts';
import { EXIT, textTable } from '../status.ts';
import { type Command, type ManageContext, onlyFlags } from './command.ts';
import { Screen } from './screen.ts';
import { worstOf } from './services_now.ts';
import { findSet, type ServiceSet } from './set.ts';
import { StatusLook, type SystemStatus } from './status_look.ts';
import { fitted, type Host, systemJson, systemText, systemVerdict } from './status_view.ts';
import { lookOnce } from './until_up.ts';

/** Counters are looked at twice with so much between: an earlier second look is told what the first one was, ms. */
const RATE_MS = 1600;
/** A look takes a second of one core: refreshed more often it would be what it shows. */
const LEAST_EVERY_MS = 1000;
/** A terminal that does not tell its size has this one. */
const [USUAL_COLUMNS, USUAL_ROWS] = [80, 24];
const EXIT_CODES = `
Exit code: 0 healthy; 1 degraded: an open gap, a stale stream (trades, books and updates of books after 60 s, liquidations never, all others after
8 h), no row at all, a service that says so of itself; 2 unhealthy: a service that should run does not, or says so; 3 something could not be asked,
and nothing worse was found; 64 wrong usage.
`;

const STATUS = {
  name: 'status',
  takes: '[--once] [--json] [--every TIME]',
  what: 'services, rates, backlog, gaps, lag, disk, and each stream; on a terminal refreshed in place until Ctrl-C',
  more: `
Flags:
  --once         show it once
  --json         once, as one JSON document
  --every TIME   refresh so often (default 2s); what counts rows of a day is asked each 30 s
${EXIT_CODES}`,
};
const HEALTH = {
  name: 'health',
  takes: '[--json]',
  what: 'a line per service: NAME STATUS REASON',
  more: `
Asked are /health of the services, the broker's streams, the database, and the state files of the scripts of signals.
${EXIT_CODES}`,
};

export const status: Command = {
  ...STATUS,
  async run(argv, context) {
    const options = onlyFlags(
      STATUS,
      {
        once: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        every: { type: 'string', default: '2s' },
      },
      argv,
    );
    const every = duration('--every', options.every);
    if (every < LEAST_EVERY_MS)
      throw new UsageError(`--every takes ${LEAST_EVERY_MS / 1000}s or more, not "${options.every}"`);
    const set = await findSet(context.env, context.systemd);
    if (options.once || options.json || !context.out.isTTY) return tellOnce(set, options.json, context);
    return refresh(set, every, context);
  },
};

export const health: Command = {
  ...HEALTH,
  async run(argv, { env, systemd, out, err }) {
    const { json } = onlyFlags(HEALTH, { json: { type: 'boolean', default: false } }, argv);
    const set = await findSet(env, systemd);
    const services = await lookOnce(set);
    const verdict = worstOf(services.map((each) => each.health));
    if (json) out.write(`${JSON.stringify({ status: verdict, exit_code: EXIT[verdict], services })}\n`);
    else {
      if (set.note !== null) err.write(`${set.note}\n`);
      const [, ...lines] = textTable(
        ['', '', ''],
        services.map(({ name, health: word, reason }) => [name, word, reason ?? '']),
        3,
      ).split('\n');
      out.write(`${lines.join('\n')}\n`);
    }
    return EXIT[verdict];
  },
};

function hostOf({ config, supervisor }: ServiceSet): Host {
  const by = supervisor === 'none' ? 'nobody' : supervisor;
  return { mode: config.mode, supervisor: by, host: hostname(), version: VERSION };
}

async function tellOnce(set: ServiceSet, asJson: boolean, { out, err, stop }: ManageContext): Promise<number> {
  const looking = new StatusLook(set.config);
  try {
    await looking.look(set);
    await pause(RATE_MS, stop).catch(() => undefined);
    const found = await looking.look(set);
    if (set.note !== null && !asJson) err.write(`${set.note}\n`);
    out.write(`${asJson ? systemJson(hostOf(set), found) : systemText(hostOf(set), found)}\n`);
    return EXIT[systemVerdict(found)];
  } finally {
    await looking.close();
  }
}

/** Until Ctrl-C. @returns the exit code of the last look */
async function refresh(first: ServiceSet, every: number, { env, systemd, out, stop }: ManageContext): Promise<number> {
  const screen = new Screen(out);
  let set = first;
  let looking = new StatusLook(set.config);
  let last: SystemStatus | null = null;
  try {
    while (!stop.aborted) {
      last = await looking.look(set);
      const text = `${set.note === null ? '' : `${set.note}\n`}${systemText(hostOf(set), last)}`;
      if (!stop.aborted) screen.show(fitted(text, out.columns || USUAL_COLUMNS, out.rows || USUAL_ROWS));
      await pause(every, stop).catch(() => undefined);
      const next = await findSet(env, systemd).catch((error: unknown) => {
        // Such as an npm start that is too busy to answer: it is shown, and asked again.
        if (error instanceof OperatorError) return { ...set, note: error.message };
        throw error;
      });
      // A set that was started anew may be another one, elsewhere.
      if (JSON.stringify(next.config) !== JSON.stringify(set.config)) {
        await looking.close();
        looking = new StatusLook(next.config);
      }
      set = next;
    }
  } finally {
    screen.leave();
    await looking.close();
  }
  return last === null ? EXIT.unchecked : EXIT[systemVerdict(last)];
}
