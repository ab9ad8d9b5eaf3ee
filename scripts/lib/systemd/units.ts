/**
 * The units, made from the table of services: what runs, as whom, after what, within which limits, and shut in as far as a process with a
 * compiler in it can be. `systemd/` holds them as files (`manage.ts units --write`), a test holds the files against this.
 */
import { BROKER_MEMORY } from '../broker.ts';
import { CREDENTIAL_PREFIX } from '../config.ts';
import { DEFAULT_SESSIONS, engineEnvironment } from '../embedded/environment.ts';
import { INSTANCED, nodeFlags, SERVICES, type Service } from '../services.ts';

/** Where an installation is. Units hold these; an installation with others replaces them. */
export const PLACES = {
  /** The code: root's, nobody else may change it. */
  code: '/opt/marketprism',
  node: '/usr/bin/node',
  nats: '/usr/sbin/nats-server',
  config: '/etc/marketprism',
  data: '/var/lib/marketprism',
  logs: '/var/log/marketprism',
  cache: '/var/cache/marketprism',
  units: '/etc/systemd/system',
} as const;

export const USER = 'marketprism';
export const TARGET = 'marketprism.target';
export const FAILED = 'marketprism-failed@.service';

/** @param name of a service, as the table has it */
export function unitOf({ unit }: Pick<Service, 'unit'>): string {
  return `marketprism-${unit}.service`;
}

/** Without a sign of progress for so long it is ended and started again, s. */
const WATCHDOG_S = 60;
/** A first start reads 540 MB of engine from a cold disk. */
const START_LIMIT_S = 180;
/** Who asks for a stop waits ten seconds at most, s. Our services end themselves after that, with a failure; systemd's own limit is for one that does not even that. */
const STOP_LIMIT_S = 10;
const STOP_LIMIT_OF_SERVICES_S = 15;
/** They have no limit of their own. */
const WITHOUT_LIMIT = ['nats-server', 'clickhouse_embedded', 'exchange_sim'];
/** The original's pause between restarts, s. */
const RESTART_S = 5;
/** One that comes up and falls over again and again is left down, and somebody is told: so many starts in so many seconds. */
const STARTS = { most: 10, within: 300 };
/** The original restarted its collector above 90 % of a core; a quota takes nothing away. */
const COLLECTOR_CPU_PERCENT = 90;

/** [key, value]: a line each; a key may come several times. */
type Section = [key: string, value: string][];

/** What none of them needs is taken away. `systemd-analyze security` tells what is left. */
function sandbox({ name }: Pick<Service, 'name'>, isLocal: boolean): Section {
  const on = (...keys: string[]): Section => keys.map((key) => [key, 'yes']);
  return [
    ...on('NoNewPrivileges', 'PrivateTmp', 'PrivateDevices', 'PrivateUsers', 'ProtectHome', 'ProtectHostname'),
    ...on('ProtectClock', 'ProtectKernelTunables', 'ProtectKernelModules', 'ProtectKernelLogs', 'ProtectControlGroups'),
    ...on('RestrictNamespaces', 'RestrictRealtime', 'RestrictSUIDSGID', 'LockPersonality', 'RemoveIPC'),
    ['ProtectSystem', 'strict'],
    ['ProtectProc', 'invisible'],
    // The engine and the monitor look at the machine's memory and disks there, collector, store and replication at the number of its boot.
    [
      'ProcSubset',
      ['clickhouse_embedded', 'monitor', 'collector', 'store', 'replicate'].includes(name) ? 'all' : 'pid',
    ],
    ['CapabilityBoundingSet', ''],
    ['AmbientCapabilities', ''],
    ['DevicePolicy', 'closed'],
    ['KeyringMode', 'private'],
    ['UMask', '0027'],
    ['RestrictAddressFamilies', 'AF_UNIX AF_INET AF_INET6'],
    ...(isLocal
      ? ([
          ['IPAddressAllow', 'localhost'],
          ['IPAddressDeny', 'any'],
        ] satisfies Section)
      : []),
    // MemoryDenyWriteExecute is not for V8, which compiles while it runs; node writes the broker's configuration, too.
    ['SystemCallArchitectures', 'native'],
    ['SystemCallFilter', '@system-service'],
    ['SystemCallFilter', '~@privileged @resources'],
    ['SystemCallErrorNumber', 'EPERM'],
  ];
}

/** Who it is, and where it finds and keeps things. */
function surroundings(): Section {
  return [
    ['User', USER],
    ['Group', USER],
    ['WorkingDirectory', PLACES.code],
    // A folder that several units share.
    ['StateDirectory', 'marketprism'],
    ['StateDirectoryMode', '0750'],
    ['LogsDirectory', 'marketprism'],
    ['LogsDirectoryMode', '0750'],
    ['CacheDirectory', 'marketprism'],
    // The loader keeps what it has compiled there: all units share it, and none starts a compiler.
    ['Environment', `MARKETPRISM_DATA_DIR=${PLACES.data} NODE_ENV=production TMPDIR=${PLACES.cache}`],
    ['EnvironmentFile', `${PLACES.config}/marketprism.env`],
    ['LoadCredential', `${CREDENTIAL_PREFIX.slice(0, -1)}:${PLACES.config}/credentials`],
  ];
}

/** For a shell: `$$` is a `$` to systemd. */
const areUnset = (...names: string[]) => `/bin/sh -c '[ -z "${names.map((name) => `$$${name}`).join('')}" ]'`;

/** When it is not wanted, it is skipped, and that is no failure. */
const CONDITIONS: Record<string, string> = {
  'nats-server': areUnset('MARKETPRISM_NATS_URL', 'NATS_URL'),
  clickhouse_embedded: areUnset('CLICKHOUSE_URL'),
  exchange_sim: `/bin/sh -c '[ "$$MARKETPRISM_MODE" = demo ]'`,
  anchor_data_collector: `/bin/sh -c '[ -n "$$OKX_API_KEY" ] || [ -s "$$CREDENTIALS_DIRECTORY/${CREDENTIAL_PREFIX}OKX_API_KEY" ]'`,
};

/** What their program is called with, beyond the script's name. */
const ARGUMENTS: Record<string, string> = {
  // It writes where its exchanges are into the demo's folder, where the others look.
  exchange_sim: ` --endpoints ${PLACES.data}/demo/endpoints.json`,
};

/** Environment of single services. */
function ownEnvironment(name: string): Section {
  if (name === 'nats-server') return [['Environment', `GOMEMLIMIT=${BROKER_MEMORY}`]];
  if (name !== 'clickhouse_embedded') return [];
  return Object.entries(engineEnvironment(DEFAULT_SESSIONS)).map(([key, value]) => ['Environment', `${key}=${value}`]);
}

/** The command as it stands in the unit. */
function commandOf({ name }: Service): string {
  if (name === 'nats-server') return `${PLACES.nats} -c /run/marketprism-nats/nats.conf`;
  return script(name, nodeFlags(name), ARGUMENTS[name]);
}

/** @param flags of node */
function script(name: string, flags: string[], rest = ''): string {
  return [PLACES.node, ...flags, '--import', 'tsx', `scripts/${name}.ts`].join(' ') + rest;
}

function startSection(service: Service): Section {
  const { name } = service;
  const condition = CONDITIONS[name];
  const isBroker = name === 'nats-server';
  return [
    // The broker has no word for it; whoever stands on it waits for it by itself.
    ['Type', isBroker ? 'exec' : 'notify'],
    ...(isBroker
      ? ([
          // After SIGTERM it ends in order as well, and calls that a failure (seen with 2.9.10).
          ['KillSignal', 'SIGINT'],
          ['RuntimeDirectory', 'marketprism-nats'],
          ['ExecStartPre', script('manage', [], ' broker-config /run/marketprism-nats/nats.conf')],
        ] satisfies Section)
      : ([
          ['NotifyAccess', 'main'],
          ['WatchdogSec', String(WATCHDOG_S)],
        ] satisfies Section)),
    ...(condition === undefined ? [] : ([['ExecCondition', condition]] satisfies Section)),
    ['ExecStart', commandOf(service)],
    ['Restart', 'on-failure'],
    ['RestartSec', String(RESTART_S)],
    // One that is only just starting does not heed it yet, and to systemd that is a clean end.
    ['RestartForceExitStatus', 'SIGHUP'],
    // Wrong configuration does not mend itself.
    ['RestartPreventExitStatus', '64'],
    ['TimeoutStartSec', String(START_LIMIT_S)],
    ['TimeoutStopSec', String(WITHOUT_LIMIT.includes(name) ? STOP_LIMIT_S : STOP_LIMIT_OF_SERVICES_S)],
    ['KillMode', 'mixed'],
    ['SyslogIdentifier', `marketprism-${service.unit}`],
  ];
}

function limits({ name, role, memoryHighMb, memoryMaxMb }: Service): Section {
  return [
    ['MemoryHigh', `${memoryHighMb}M`],
    ['MemoryMax', `${memoryMaxMb}M`],
    ...(name === 'collector' ? ([['CPUQuota', `${COLLECTOR_CPU_PERCENT}%`]] satisfies Section) : []),
    // What captures and stores goes before what reads.
    ['CPUWeight', role === 'core' ? '300' : '50'],
    ['TasksMax', name === 'clickhouse_embedded' ? '1024' : '128'],
    ['LimitNOFILE', '65536'],
    ['LimitCORE', '0'],
  ];
}

const NOTE = [
  '# Made from scripts/lib/services.ts and scripts/lib/systemd/units.ts: `npm run units`. What one machine wants otherwise goes into a drop-in:',
  '# systemctl edit UNIT',
];

function fileOf(sections: Record<string, Section>): string {
  const text = Object.entries(sections).map(
    ([name, lines]) => `[${name}]\n${lines.map(([key, value]) => `${key}=${value}`).join('\n')}\n`,
  );
  return `${NOTE.join('\n')}\n\n${text.join('\n')}`;
}

const byName = new Map(SERVICES.map((each) => [each.name, each]));

function orderOf({ after }: Service): Section {
  const units = after.map((name) => unitOf(byName.get(name)!));
  if (units.length === 0) return [['After', 'network-online.target']];
  // Wanted, not required: each waits for what is away, and goes on when it comes back.
  return [
    ['After', ['network-online.target', ...units].join(' ')],
    ['Wants', ['network-online.target', ...units].join(' ')],
  ];
}

function serviceFile(service: Service): string {
  const isLocal = ['nats-server', 'clickhouse_embedded', 'exchange_sim'].includes(service.name);
  return fileOf({
    Unit: [
      ['Description', `MarketPrism: ${service.what}`],
      ['Documentation', `file:${PLACES.code}/README.md`],
      ...orderOf(service),
      ['PartOf', TARGET],
      ['StartLimitIntervalSec', String(STARTS.within)],
      ['StartLimitBurst', String(STARTS.most)],
      ['OnFailure', FAILED.replace('@', '@%p')],
    ],
    Service: [
      ...surroundings(),
      ...ownEnvironment(service.name),
      ...startSection(service),
      ...limits(service),
      ...sandbox(service, isLocal),
    ],
    Install: [['WantedBy', TARGET]],
  });
}

/** One part per process: instances are named after exchanges or streams, and take their ports from a file of the installation. */
function templateOf(name: string): string {
  const service = byName.get(name)!;
  return fileOf({
    Unit: [
      ['Description', `MarketPrism: ${service.what} (%i)`],
      ['Documentation', `file:${PLACES.code}/README.md`],
      ...orderOf(service),
      ['PartOf', TARGET],
      // Either one process for all, or one for each.
      ['Conflicts', unitOf(service)],
      ['StartLimitIntervalSec', String(STARTS.within)],
      ['StartLimitBurst', String(STARTS.most)],
      ['OnFailure', FAILED.replace('@', '@%p-%i')],
    ],
    Service: [
      ...surroundings(),
      // After the common one, so that it has the last word.
      ['EnvironmentFile', `${PLACES.config}/${name}-%i.env`],
      ...startSection({ ...service, unit: `${service.unit}-%i` }),
      ...limits(service),
      ...sandbox(service, false),
    ],
    Install: [['WantedBy', TARGET]],
  });
}

/** Tells people that a unit is down and stays down. It needs nothing of what may be down. */
function failedTemplate(): string {
  return fileOf({
    Unit: [['Description', 'MarketPrism: tells that %i failed']],
    Service: [
      ...surroundings(),
      ['Type', 'oneshot'],
      ['ExecStart', script('manage', [], ' unit-failed %i')],
      ['TimeoutStartSec', '60'],
      ['SyslogIdentifier', 'marketprism-failed'],
      ['MemoryMax', '256M'],
      ['TasksMax', '64'],
      ['LimitCORE', '0'],
      ...sandbox({ name: 'manage' }, false),
    ],
  });
}

function targetFile(): string {
  return fileOf({
    Unit: [
      ['Description', 'MarketPrism: capture, storage, signals, pages'],
      ['Documentation', `file:${PLACES.code}/README.md`],
      ['Wants', 'network-online.target'],
      ['After', 'network-online.target'],
    ],
    Install: [['WantedBy', 'multi-user.target']],
  });
}

/** Every file of `systemd/` that is made: name and text. */
export function unitFiles(): Map<string, string> {
  const files = new Map(SERVICES.map((service) => [unitOf(service), serviceFile(service)]));
  for (const name of INSTANCED.keys()) files.set(`marketprism-${byName.get(name)!.unit}@.service`, templateOf(name));
  files.set(FAILED, failedTemplate());
  files.set(TARGET, targetFile());
  return files;
}
