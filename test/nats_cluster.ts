/** Three brokers in a cluster, each a real nats-server with a store directory of its own. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, type NatsConnection } from 'nats';
import { findNatsServer } from '../scripts/lib/broker.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { Child, waitFor } from '../scripts/lib/processes.ts';
import { steadyNow } from '../scripts/lib/steady.ts';
import type { StreamName } from '../scripts/lib/streams.ts';

export const NODES = [0, 1, 2] as const;
export type NodeNumber = (typeof NODES)[number];

/** Three servers share two cores with all that uses them. */
const READY_MS = 60_000;
const ASK_WITHIN_MS = 2000;
/** A node that comes back after a cut has to reach the others, and to read what it missed. */
const WHOLE_MS = 120_000;
const STAYS_WHOLE_MS = 5000;

/** Where a node listens, and how a program is run there. */
export interface Place {
  /** HOST:PORT, of clients and of the other nodes. */
  client: string;
  route: string;
  /** What stands before a command to run it at this place. */
  prefix: string[];
}

/** Three places on loopback. */
export async function loopbackPlaces(): Promise<Place[]> {
  const places: Place[] = [];
  for (const _ of NODES)
    places.push({ client: `127.0.0.1:${await freePort()}`, route: `127.0.0.1:${await freePort()}`, prefix: [] });
  return places;
}

export class NatsCluster {
  private readonly children = new Map<NodeNumber, Child>();

  constructor(
    private readonly directory: string,
    private readonly places: readonly Place[],
    private readonly logDir = join(directory, 'logs'),
  ) {}

  /** As MARKETPRISM_NATS_URL names it. */
  get url(): string {
    return this.places.map(({ client }) => `nats://${client}`).join(',');
  }

  urlOf(node: NodeNumber): string {
    return `nats://${this.places[node]!.client}`;
  }

  /** Starts all, and waits until they have a leader. */
  async start(): Promise<void> {
    for (const node of NODES) this.run(node);
    await this.ready();
  }

  /** Until a stream can be made. */
  async ready(): Promise<void> {
    await waitFor('the cluster', READY_MS, () =>
      this.asked(async (nats) => (await nats.jetstreamManager({ timeout: ASK_WITHIN_MS })) !== null, false),
    );
  }

  /** Ends a node as `kill -9` does. @param isWiped its streams are lost with it */
  async kill(node: NodeNumber, isWiped = false): Promise<void> {
    const child = this.children.get(node)!;
    this.children.delete(node);
    // Nobody asked for its end, and nobody starts it again.
    child.signal('SIGKILL');
    await waitFor(`the end of ${nameOf(node)}`, READY_MS, async () => !child.running);
    if (isWiped) rmSync(this.storeOf(node), { recursive: true, force: true });
  }

  run(node: NodeNumber): void {
    const { prefix } = this.places[node]!;
    const file = join(this.directory, `${nameOf(node)}.conf`);
    mkdirSync(this.directory, { recursive: true });
    writeFileSync(file, this.configOf(node));
    const [command, ...args] = [...prefix, findNatsServer()!, '-c', file];
    const { logDir } = this;
    const plan = {
      name: nameOf(node),
      command: command!,
      args,
      env: process.env,
      logDir,
      stopSignal: 'SIGINT' as const,
    };
    const child = new Child(plan, () => false);
    this.children.set(node, child);
    child.start();
  }

  signal(node: NodeNumber, name: NodeJS.Signals): void {
    this.children.get(node)!.signal(name);
  }

  /** The node that leads a stream, as the cluster says; null while nobody does. */
  leaderOf(stream: StreamName): Promise<NodeNumber | null> {
    return this.asked(async (nats) => {
      const manager = await nats.jetstreamManager({ checkAPI: false, timeout: ASK_WITHIN_MS });
      const { cluster } = await manager.streams.info(stream);
      return NODES.find((node) => nameOf(node) === cluster?.leader) ?? null;
    }, null);
  }

  /** Until each node has all of these streams, and has had for a while: one that comes back is called current before it has caught up. */
  async whole(streams: readonly StreamName[]): Promise<void> {
    let since = Number.POSITIVE_INFINITY;
    await waitFor('three current replicas', WHOLE_MS, async () => {
      if (!(await this.isWhole(streams))) since = Number.POSITIVE_INFINITY;
      else since = Math.min(since, steadyNow());
      return steadyNow() - since >= STAYS_WHOLE_MS;
    });
  }

  private isWhole(streams: readonly StreamName[]): Promise<boolean> {
    return this.asked(async (nats) => {
      const manager = await nats.jetstreamManager({ checkAPI: false, timeout: ASK_WITHIN_MS });
      const infos = await Promise.all(streams.map((name) => manager.streams.info(name)));
      return infos.every(({ cluster, config }) => {
        const others = cluster?.replicas ?? [];
        return others.length === config.num_replicas - 1 && others.every(({ current, offline }) => current && !offline);
      });
    }, false);
  }

  log(node: NodeNumber): string {
    return readFileSync(join(this.logDir, `${nameOf(node)}.log`), 'utf8');
  }

  async close(): Promise<void> {
    await Promise.all([...this.children.values()].map((child) => child.stop()));
    this.children.clear();
  }

  /** Asks whichever node answers. @param unknown the answer while none does */
  private async asked<T>(question: (nats: NatsConnection) => Promise<T>, unknown: T): Promise<T> {
    for (const { client } of this.places) {
      const nats = await connect({ servers: client, timeout: ASK_WITHIN_MS, reconnect: false }).catch(() => null);
      if (nats === null) continue;
      try {
        return await question(nats);
      } catch {
        // It is cut off, or nobody leads just now: another one may know.
      } finally {
        await nats.close();
      }
    }
    return unknown;
  }

  private storeOf(node: NodeNumber): string {
    return join(this.directory, nameOf(node));
  }

  private configOf(node: NodeNumber): string {
    const { client, route } = this.places[node]!;
    const routes = this.places.map((each) => JSON.stringify(`nats-route://${each.route}`)).join(', ');
    return [
      `server_name: ${nameOf(node)}`,
      `listen: ${JSON.stringify(client)}`,
      `jetstream { store_dir: ${JSON.stringify(this.storeOf(node))} }`,
      `cluster { name: marketprism, listen: ${JSON.stringify(route)}, routes: [${routes}] }`,
      '',
    ].join('\n');
  }
}

function nameOf(node: NodeNumber): string {
  return `nats${node + 1}`;
}
