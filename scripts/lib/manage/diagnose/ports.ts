/** Who listens where: a service of ours, or a stranger that keeps it from starting. */

import { MONITOR_OFFSET } from '../../broker.ts';
import { listenersOn, type ProcessNow, readProcesses, treeOf } from '../../procfs.ts';
import { INSTANCED } from '../../services.ts';
import type { ServiceSet } from '../set.ts';
import { type DiagnoseContext, type Finding, finding, ok, type Probe } from './finding.ts';

interface Port {
  port: number;
  service: string;
  /** What sets it. */
  setting: string;
}

const LOCAL = /^(127\.\d+\.\d+\.\d+|localhost|\[::1\]|::1)$/;

export const ports: Probe = {
  area: 'ports',
  async look(context) {
    const all = portsOf(context.set);
    const listeners = listenersOn(all.map(({ port }) => port));
    const processes = readProcesses();
    return all.map((each) => judgePort(each, listeners.get(each.port) ?? [], processes, context));
  },
};

/** The ports of a set on this machine; a broker or a database elsewhere has none here. */
function portsOf({ config, expected }: ServiceSet): Port[] {
  const nats = new URL(config.natsUrl.split(',')[0]!);
  const database = new URL(config.clickhouseUrl);
  const natsPort = Number(nats.port || 4222);
  const here = (url: URL, all: Port[]) => (LOCAL.test(url.hostname) ? all : []);
  return [
    ...here(nats, [
      { port: natsPort, service: 'nats-server', setting: 'MARKETPRISM_NATS_URL, or npm start -- --nats-port' },
      { port: natsPort + MONITOR_OFFSET, service: 'nats-server', setting: 'npm start -- --nats-port' },
    ]),
    ...here(database, [
      ...[{ port: Number(database.port || 80), service: 'clickhouse_embedded' }].map((each) => ({
        ...each,
        setting: 'CLICKHOUSE_URL, or npm start -- --clickhouse-port',
      })),
    ]),
    // One, or one for each exchange or stream.
    ...expected.flatMap(({ name, port }) => {
      const instanced = INSTANCED.get(name.replace(/@.*/, ''));
      if (port === null || instanced === undefined) return [];
      return { port: port(config), service: name, setting: instanced.portSetting };
    }),
    ...(expected.some(({ name }) => name === 'collector')
      ? [{ port: config.metricsPort, service: 'collector', setting: 'METRICS_PORT' }]
      : []),
    { port: config.replicatePort, service: 'replicate', setting: 'COLD_STORAGE_HTTP_PORT' },
    { port: config.monitorPort, service: 'monitor', setting: 'MONITOR_HTTP_PORT' },
    { port: config.webPort, service: 'web', setting: 'WEB_HTTP_PORT' },
  ];
}

function judgePort(
  { port, service, setting }: Port,
  pids: readonly (number | null)[],
  processes: ReadonlyMap<number, ProcessNow>,
  { services }: DiagnoseContext,
): Finding {
  const subject = `${port} ${service}`;
  const own = services.find(({ name }) => name === service);
  if (pids.length === 0) {
    if (own?.pid == null) return ok(subject, 'free');
    return finding(
      'error',
      subject,
      `nobody listens, while ${service} runs as pid ${own.pid}`,
      `npx tsx scripts/manage.ts logs ${service}`,
    );
  }
  const ours = new Set(own?.pid == null ? [] : treeOf(processes, own.pid).map(({ pid }) => pid));
  const strangers = pids.filter((pid) => pid !== null && !ours.has(pid));
  if (pids.includes(null) && strangers.length === 0)
    return finding(
      'unchecked',
      subject,
      'a process listens that this user may not see',
      `sudo ss -ltnp 'sport = :${port}'`,
    );
  if (strangers.length === 0) return ok(subject, `pid ${pids.join(', ')} (${service})`);
  const told = strangers.map((pid) => `pid ${pid} (${commandOf(processes.get(pid!))})`).join(', ');
  // What is started by hand and is no part of this set may be meant: it is told, and not called a stranger's.
  const isScript = strangers.every((pid) => processes.get(pid!)?.argv.some((word) => word.includes(`/${service}.ts`)));
  if (isScript && own?.pid == null) return finding('hint', subject, `${told}, started by hand`, null);
  return finding(
    'error',
    subject,
    `a stranger listens: ${told}`,
    `kill ${strangers.join(' ')}  # or set another port: ${setting}`,
  );
}

function commandOf(process: ProcessNow | undefined): string {
  const text = process?.argv.join(' ') ?? 'ended meanwhile';
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}
