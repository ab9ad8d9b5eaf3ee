/**
 * Three places with networks of their own, joined only within this process's network, which has no way out: one bridge for clients, one for the
 * brokers among each other, so that each can be cut alone. Namespaces have no names: they end with the processes that hold them.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import { waitFor } from '../scripts/lib/processes.ts';
import { NODES, type NodeNumber, type Place } from './nats_cluster.ts';

/** Set in the process that has a network of its own. */
const INSIDE = 'MARKETPRISM_TEST_NETWORK';
const READY_MS = 10_000;
const TOOLS = ['ip', 'nsenter', 'unshare', 'setpriv'];
/** The two networks: 10.77.0.0/24 of clients, 10.77.1.0/24 of routes. */
const SIDES = ['client', 'route'] as const;
export type Side = (typeof SIDES)[number];

/** Why no networks can be made here; null: they can. */
export function networkTrouble(): string | null {
  if (process.getuid?.() !== 0) return 'only root makes network namespaces';
  const missing = TOOLS.filter((name) => spawnSync('sh', ['-c', `command -v ${name}`]).status !== 0);
  if (missing.length > 0) return `apt-get install iproute2 util-linux (missing: ${missing.join(', ')})`;
  const { status, stderr } = spawnSync('unshare', ['--net', 'true'], { encoding: 'utf8' });
  return status === 0 ? null : `this system makes no network namespaces: ${stderr.trim()}`;
}

export const isInside = process.env[INSIDE] === 'yes';

/** Runs a test file again in a network of its own. @returns its exit code */
export async function runInside(file: string): Promise<number | null> {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const args = ['--net', process.execPath, '--import', 'tsx', file];
  // It must not outlive us, nor its network.
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', 'unshare', ...args], {
    env: { ...env, [INSIDE]: 'yes' },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return new Promise((done) => child.once('close', done));
}

function ip(...args: string[]): void {
  must('ip', args);
}

function must(command: string, args: string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr.trim()}`);
}

/** The networks of three brokers. */
export class Networks {
  private readonly holders: ChildProcess[] = [];

  /** @throws Error outside of `runInside`: a machine's own network is left alone */
  static async make(): Promise<Networks> {
    const interfaces = readdirSync('/sys/class/net');
    if (!isInside) throw new Error(`not in a network of its own, but beside ${interfaces.join(', ')}`);
    const networks = new Networks();
    ip('link', 'set', 'lo', 'up');
    for (const side of SIDES) ip('link', 'add', `${side}s`, 'type', 'bridge');
    for (const side of SIDES) ip('link', 'set', `${side}s`, 'up');
    ip('addr', 'add', '10.77.0.1/24', 'dev', 'clients');
    for (const node of NODES) await networks.join(node);
    return networks;
  }

  get places(): Place[] {
    return NODES.map((node) => ({
      client: `10.77.0.${11 + node}:4222`,
      route: `10.77.1.${11 + node}:6222`,
      prefix: ['nsenter', '--net', '--target', String(this.holders[node]!.pid), '--'],
    }));
  }

  /** Cuts a node's link, or joins it again. What is on its way is dropped, and nobody is told. */
  set(node: NodeNumber, side: Side, isUp: boolean): void {
    ip('link', 'set', `${side}${node}`, isUp ? 'up' : 'down');
  }

  close(): void {
    for (const holder of this.holders) holder.kill('SIGKILL');
  }

  private async join(node: NodeNumber): Promise<void> {
    const holder = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', '--net', 'sleep', 'infinity']);
    this.holders.push(holder);
    const own = readlinkSync('/proc/self/ns/net');
    const pid = String(holder.pid);
    await waitFor('a namespace', READY_MS, async () => readlinkSync(`/proc/${pid}/ns/net`) !== own);
    const there = (...args: string[]) => must('nsenter', ['--net', '--target', pid, '--', 'ip', ...args]);
    there('link', 'set', 'lo', 'up');
    for (const [number, side] of SIDES.entries()) {
      ip('link', 'add', `${side}${node}`, 'type', 'veth', 'peer', 'name', side, 'netns', pid);
      ip('link', 'set', `${side}${node}`, 'master', `${side}s`, 'up');
      there('addr', 'add', `10.77.${number}.${11 + node}/24`, 'dev', side);
      there('link', 'set', side, 'up');
    }
  }
}
