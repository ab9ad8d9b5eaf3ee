/**
 * `manage.ts install` and `uninstall` (npm run install:systemd, uninstall:systemd): user, directories, configuration, code, units and rotation. A second
 * run changes only what differs; data and configuration are never touched once they are there.
 */
import { randomBytes } from 'node:crypto';
import { accessSync, constants, existsSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { findNatsServer } from '../broker.ts';
import { OperatorError, UsageError } from '../cli.ts';
import { logrotateConfig } from '../logrotate.ts';
import { type Command, type ManageContext, onlyFlags } from '../manage/command.ts';
import { EXCHANGES } from '../rows.ts';
import { SERVICES } from '../services.ts';
import { STREAM_NAMES } from '../streams.ts';
import { streamBudget } from '../system.ts';
import { codeStep } from './code.ts';
import {
  asked,
  carryOut,
  directoryStep,
  fileStep,
  firstFileStep,
  type Owner,
  run,
  type Step,
  writeWhole,
} from './steps.ts';
import { PLACES, TARGET, USER, unitFiles } from './units.ts';

const ROOT = resolve(import.meta.dirname, '..', '..', '..');
const ROTATION = '/etc/logrotate.d/marketprism';
/** Debian's package starts a server of its own, on the same port and without JetStream. */
const DEBIAN_BROKER = 'nats-server.service';
const TOKEN_BYTES = 24;
/** The first of a pair of ports for each exchange that has a process of its own: health, and metrics a hundred above. */
const FIRST_COLLECTOR_PORT = 8101;
/** The first of a port for each stream that has a store of its own. */
const FIRST_STORE_PORT = 8121;

const HELP = {
  name: 'install',
  takes: '[--demo | --live] [--dry-run]',
  what: 'as root: installs user, directories, configuration, code, units and log rotation; starts nothing',
  more: `
Flags:
  --demo     simulated exchanges, data and databases of their own (MARKETPRISM_MODE in /etc/marketprism/marketprism.env)
  --live     the real exchanges; without either a first installation is live, and a later one stays as it is
  --dry-run  tells what it would do, and does nothing; needs no root

Code goes to ${PLACES.code}, which only root can change; data to ${PLACES.data}; settings to ${PLACES.config}, where they are yours. Again after an upgrade:
only what differs is replaced, and services that run keep their old code until systemctl restart ${TARGET}.
`,
};

const UNINSTALL_HELP = {
  name: 'uninstall',
  takes: '[--dry-run]',
  what: 'as root: stops the services, removes units, rotation and code; data, settings and user stay',
};

function owner(): Owner | null {
  const uid = asked('id', ['-u', USER]);
  const gid = asked('id', ['-g', USER]);
  return uid === null || gid === null ? null : { uid: Number(uid), gid: Number(gid) };
}

/** Root reads and writes, the services read. */
function readers(): Owner | null {
  const services = owner();
  return services === null ? null : { uid: 0, gid: services.gid };
}

function userStep(): Step {
  return {
    what: `user ${USER}`,
    lacks: () => (owner() === null ? 'made, without a login' : null),
    apply() {
      const flags = ['--system', '--user-group', '--home-dir', PLACES.data, '--no-create-home'];
      run('useradd', [...flags, '--shell', '/usr/sbin/nologin', USER]);
    },
  };
}

/** @param mode null: it stays as it is */
function modeStep(path: string, mode: string | null): Step {
  const line = /^MARKETPRISM_MODE=.*$/m;
  const wanted = `MARKETPRISM_MODE=${mode}`;
  return {
    what: `mode in ${path}`,
    lacks: () =>
      mode === null || (existsSync(path) && line.exec(readFileSync(path, 'utf8'))?.[0] === wanted) ? null : wanted,
    apply() {
      const text = readFileSync(path, 'utf8');
      writeWhole(path, line.test(text) ? text.replace(line, wanted) : `${wanted}\n${text}`, 0o640);
      const group = readers();
      if (group !== null) run('chown', [`${group.uid}:${group.gid}`, path]);
    },
  };
}

/** For `marketprism-SERVICE@PART.service`: one process for this part, with ports of its own. */
function instanceSettings(): Step[] {
  const collectors = EXCHANGES.map((exchange, place) => {
    const port = FIRST_COLLECTOR_PORT + place;
    const settings = {
      ...{ MARKETPRISM_EXCHANGES: exchange, MARKETPRISM_COLLECTOR_ID: exchange },
      ...{ HEALTH_CHECK_PORT: port, METRICS_PORT: port + 100 },
    };
    return instanceStep('collector', exchange, settings);
  });
  const stores = STREAM_NAMES.map((stream, place) =>
    instanceStep('store', stream, {
      MARKETPRISM_STORE_STREAMS: stream,
      HOT_STORAGE_HTTP_PORT: FIRST_STORE_PORT + place,
    }),
  );
  return [...collectors, ...stores];
}

function instanceStep(service: string, part: string, settings: Record<string, string | number>): Step {
  const lines = Object.entries(settings).map(([name, value]) => `${name}=${value}\n`);
  const text = `# marketprism-${service}@${part}.service\n${lines.join('')}`;
  return firstFileStep(join(PLACES.config, `${service}-${part}.env`), () => text, 0o640, readers);
}

/** Units of an earlier version that are none any more. */
function oldUnits(): string[] {
  const wanted = unitFiles();
  const present = existsSync(PLACES.units) ? readdirSync(PLACES.units) : [];
  return present.filter((name) => /^marketprism[-.@\w]*\.(service|target)$/.test(name) && !wanted.has(name));
}

function unitSteps(node: string): Step[] {
  const files = [...unitFiles()].map(([name, text]) => {
    const own = text
      .replaceAll(`=${PLACES.node} `, `=${node} `)
      .replaceAll(`=${PLACES.nats} `, `=${findNatsServer() ?? PLACES.nats} `);
    return fileStep(join(PLACES.units, name), own);
  });
  const old = oldUnits();
  const wanted = [...SERVICES.map(({ unit }) => `marketprism-${unit}.service`), TARGET];
  const enabled = () => wanted.filter((unit) => asked('systemctl', ['is-enabled', unit]) !== 'enabled');
  return [
    {
      what: 'units of an earlier version',
      lacks: () => (old.length === 0 ? null : `removed: ${old.join(', ')}`),
      apply() {
        run('systemctl', ['disable', '--now', ...old]);
        for (const name of old) rmSync(join(PLACES.units, name));
      },
    },
    ...files,
    {
      what: 'units known to systemd, and started at boot',
      lacks: () => (enabled().length === 0 && !needsReload() ? null : 'systemctl daemon-reload, enable'),
      apply() {
        run('systemctl', ['daemon-reload']);
        run('systemctl', ['enable', ...wanted]);
      },
    },
  ];
}

function needsReload(): boolean {
  const told = asked('systemctl', ['show', '--property=NeedDaemonReload', TARGET, 'marketprism-*.service']) ?? '';
  return told.includes('yes');
}

/** The loader compiles each script once; who starts first would do it, with a process more that stays. */
function warmStep(node: string): Step {
  const stamp = join(PLACES.cache, '.warm');
  const version = () => readFileSync(join(PLACES.code, '.installed'), 'utf8');
  const isWarm = () =>
    existsSync(stamp) && existsSync(join(PLACES.code, '.installed')) && readFileSync(stamp, 'utf8') === version();
  return {
    what: `scripts compiled in ${PLACES.cache}`,
    lacks: () => (isWarm() ? null : 'once for this version'),
    apply() {
      const env = { PATH: process.env.PATH, TMPDIR: PLACES.cache, NODE_ENV: 'production' };
      // From the same folder as the services: what is kept is kept for that.
      const command = ['env', `--chdir=${PLACES.code}`, node, '--import', 'tsx', 'scripts/lib/systemd/warm.ts'];
      run('setpriv', ['--reuid', USER, '--regid', USER, '--clear-groups', '--', ...command], env);
      if (existsSync(join(PLACES.code, '.installed'))) writeWhole(stamp, version(), 0o644);
    },
  };
}

/** On a small disk the streams' bound is told to all services at once, or each would take the default for its own. */
function firstSettings(): string {
  const text = readFileSync(join(ROOT, 'systemd', 'marketprism.env'), 'utf8');
  const bound = streamBudget(PLACES.data);
  if (bound === undefined) return text;
  return `${text}\n# Half of what was free on the disk at the installation, for both streams together\nMARKETPRISM_STREAM_MAX_BYTES=${bound}\n`;
}

function installSteps(mode: string | null, node: string): Step[] {
  const environment = join(PLACES.config, 'marketprism.env');
  const isBrokerOn = () =>
    ['enabled', 'enabled-runtime'].includes(asked('systemctl', ['is-enabled', DEBIAN_BROKER]) ?? '');
  return [
    {
      what: `${DEBIAN_BROKER} of Debian`,
      lacks: () => (isBrokerOn() ? 'disabled: it takes the port of our own broker, and has no JetStream' : null),
      apply: () => void run('systemctl', ['disable', '--now', DEBIAN_BROKER]),
    },
    userStep(),
    directoryStep(PLACES.config, 0o755, () => null),
    directoryStep(join(PLACES.config, 'credentials'), 0o700, () => null),
    directoryStep(PLACES.data, 0o750, owner),
    directoryStep(PLACES.logs, 0o750, owner),
    directoryStep(PLACES.cache, 0o755, owner),
    firstFileStep(environment, firstSettings, 0o640, readers),
    modeStep(environment, mode),
    ...instanceSettings(),
    firstFileStep(
      join(PLACES.config, 'credentials', 'MARKETPRISM_API_TOKEN'),
      () => `${randomBytes(TOKEN_BYTES).toString('hex')}\n`,
      0o600,
      () => null,
    ),
    codeStep(ROOT, PLACES.code),
    ...unitSteps(node),
    fileStep(ROTATION, logrotateConfig()),
    warmStep(node),
  ];
}

/** What must be so before anything is changed, each as one clear line. */
function checkMachine(isDry: boolean): string {
  const node = realpathSync(process.execPath);
  if (/^\/(root|home|run\/user)\//.test(node))
    throw new OperatorError(
      `${node} lies where services must not look: install Node 20 for all users (such as into /usr/bin), and run this again`,
    );
  if (isDry) return node;
  if (process.getuid?.() !== 0) throw new OperatorError('install needs root: sudo npm run install:systemd');
  if (!existsSync('/run/systemd/system'))
    throw new OperatorError('systemd does not run here: npm start runs everything without it');
  if (findNatsServer() === null) throw new OperatorError('nats-server is not installed: apt-get install nats-server');
  try {
    accessSync('/usr/sbin/logrotate', constants.X_OK);
  } catch {
    throw new OperatorError('logrotate is not installed: apt-get install logrotate');
  }
  return node;
}

export const installCommand: Command = {
  ...HELP,
  async run(argv, { out }: ManageContext) {
    const given = onlyFlags(
      HELP,
      {
        demo: { type: 'boolean', default: false },
        live: { type: 'boolean', default: false },
        'dry-run': { type: 'boolean', default: false },
      },
      argv,
    );
    if (given.demo && given.live) throw new UsageError('--live and --demo exclude each other');
    const isDry = given['dry-run'];
    const node = checkMachine(isDry);
    const say = (line: string) => out.write(`${line}\n`);
    const isChanged = carryOut(installSteps(given.demo ? 'demo' : given.live ? 'live' : null, node), isDry, say);
    if (isDry) return 0;
    const isRunning = asked('systemctl', ['is-active', TARGET]) === 'active';
    say(
      !isRunning
        ? `installed. Settings: ${PLACES.config}/marketprism.env. Then: systemctl start ${TARGET}`
        : isChanged
          ? `upgraded. Services that run take it with: systemctl restart ${TARGET}`
          : 'nothing has changed',
    );
    return 0;
  },
};

function uninstallSteps(): Step[] {
  const present = existsSync(PLACES.units)
    ? readdirSync(PLACES.units).filter((name) => /^marketprism[-.@\w]*\.(service|target)$/.test(name))
    : [];
  const plain = present.filter((name) => !name.includes('@'));
  const removal = (path: string): Step => ({
    what: path,
    lacks: () => (existsSync(path) ? 'removed' : null),
    apply: () => rmSync(path, { recursive: true }),
  });
  return [
    {
      what: 'services',
      lacks: () => (present.length === 0 ? null : 'stopped, and not started at boot any more'),
      apply() {
        run('systemctl', ['stop', TARGET, 'marketprism-*.service']);
        run('systemctl', ['disable', ...plain]);
      },
    },
    ...present.map((name) => removal(join(PLACES.units, name))),
    // Where a collector per exchange or a store per stream was enabled.
    removal(join(PLACES.units, `${TARGET}.wants`)),
    {
      what: 'units known to systemd',
      lacks: () => (present.length === 0 ? null : 'systemctl daemon-reload'),
      apply() {
        run('systemctl', ['daemon-reload']);
        run('systemctl', ['reset-failed']);
      },
    },
    removal(ROTATION),
    // Whoever installed in place keeps the checkout.
    ...(existsSync(PLACES.code) && realpathSync(PLACES.code) === realpathSync(ROOT) ? [] : [removal(PLACES.code)]),
    removal(PLACES.cache),
  ];
}

export const uninstallCommand: Command = {
  ...UNINSTALL_HELP,
  async run(argv, { out }) {
    const { 'dry-run': isDry } = onlyFlags(UNINSTALL_HELP, { 'dry-run': { type: 'boolean', default: false } }, argv);
    if (!isDry && process.getuid?.() !== 0)
      throw new OperatorError('uninstall needs root: sudo npm run uninstall:systemd');
    carryOut(uninstallSteps(), isDry, (line) => out.write(`${line}\n`));
    if (!isDry) out.write(`data stay in ${PLACES.data}, settings in ${PLACES.config}, logs in ${PLACES.logs}\n`);
    return 0;
  },
};
