/**
 * Streams that several servers keep. A server that is cut off from the others keeps its clients, and answers their pings; what its streams say
 * may be old, and what is published to them is never acknowledged.
 */
import { Socket } from 'node:net';
import { Events, type JetStreamManager, type NatsConnection, NatsError, type StreamInfo } from 'nats';
import { isGuarded } from './crash_points.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import { steadyNow } from './steady.ts';
import type { StreamName } from './streams.ts';

/** Asked for its state: any stream of ours tells whether the server that we are at still has the others. */
const ASKED: StreamName = 'MARKET_DATA';
const ASK_EVERY_MS = 1000;
const ANSWER_WITHIN_MS = 1000;
/** Beyond most elections of a leader, and well within the time in which one that was cut off goes on as if nothing was (10 to 20 s). */
const SILENT_MS = 6000;
/** A process that was itself held up finds its first question unanswered. */
const LEAST_FAILURES = 2;
/** Followers answer their leader each second. */
const IN_TOUCH_MS = 3000;
/** So long a leader has to stand by it that something is gone: one that was just elected may still be reading what it has. */
const BELIEVED_MS = 10_000;
const ASK_AGAIN_MS = 500;
const NANOS_PER_MS = 1_000_000;

/** How long ago a stream's leader last heard of a majority of those that keep it, ms; 0 where it alone keeps it, Infinity: nobody leads. */
export function quorumAgeMs({ config, cluster }: Pick<StreamInfo, 'config' | 'cluster'>): number {
  // It counts itself.
  const others = Math.floor(config.num_replicas / 2);
  if (others === 0) return 0;
  if (!cluster?.leader) return Infinity;
  const ages = (cluster.replicas ?? []).map(({ active, offline }) => (offline ? Infinity : active / NANOS_PER_MS));
  return ages.sort((one, other) => one - other)[others - 1] ?? Infinity;
}

/**
 * What is to be said against a stream, such as that a message is gone. Of one with replicas it is believed only when a leader in touch with a
 * majority says so for ten seconds.
 * @param look what speaks against the stream as it is told; null: nothing
 * @throws Error while no leader can be believed: ask again later
 */
export async function confirmed<T>(
  manager: JetStreamManager,
  stream: string,
  look: (info: StreamInfo) => Promise<T | null>,
  believedMs = BELIEVED_MS,
): Promise<T | null> {
  const begun = steadyNow();
  let leader: string | undefined;
  for (;;) {
    const info = await manager.streams.info(stream);
    const found = await look(info);
    if (found === null || info.config.num_replicas === 1) return found;
    leader ??= info.cluster?.leader;
    if (leader !== info.cluster?.leader || quorumAgeMs(info) > IN_TOUCH_MS)
      throw new Error(`the leader of ${stream} changes, or is cut off from the others: what it says may be old`);
    if (steadyNow() - begun >= believedMs) return found;
    await pause(ASK_AGAIN_MS);
  }
}

/** What a cluster says that it has not: asked for ten seconds, as a leader that was just elected may still be reading what there is. */
export async function lookedFor<T>(ask: () => Promise<T | null>): Promise<T | null> {
  const begun = steadyNow();
  for (;;) {
    const found = await ask();
    if (found !== null || steadyNow() - begun >= BELIEVED_MS) return found;
    await pause(ASK_AGAIN_MS);
  }
}

/**
 * Leaves the server of a connection for another one while no stream can be used there, until the connection is closed. Whoever uses the
 * connection sees it go and come back, as when a server dies. Where only one server is known, nothing is asked.
 * @param configured servers that the configuration names; the servers themselves may tell of more
 */
export async function leaveSilentServers(connection: NatsConnection, configured: number, log: Logger): Promise<void> {
  if (!isGuarded('switch')) return;
  const visit = { servedAt: steadyNow(), failures: 0, isConnected: true, left: '' };
  const closed = new AbortController();
  void connection.closed().then(() => closed.abort(new Error('closed')));
  void followVisits(connection, visit);
  const manager = await connection.jetstreamManager({ checkAPI: false, timeout: ANSWER_WITHIN_MS });
  for (;;) {
    await pause(ASK_EVERY_MS, closed.signal).catch(() => undefined);
    if (closed.signal.aborted) return;
    const known = Math.max(configured, connection.info?.connect_urls?.length ?? 0);
    if (known < 2 || !visit.isConnected) continue;
    try {
      const age = await servedAgeMs(manager);
      visit.servedAt = Math.max(visit.servedAt, steadyNow() - age);
      visit.failures = age > IN_TOUCH_MS ? visit.failures + 1 : 0;
    } catch (error) {
      // Unanswered, or answered that nobody leads.
      visit.failures += 1;
      log.debug({ event: 'streams_unanswered', reason: (error as Error).message });
    }
    const silentMs = steadyNow() - visit.servedAt;
    if (silentMs < SILENT_MS || visit.failures < LEAST_FAILURES || !visit.isConnected) continue;
    visit.left = connection.getServer();
    log.warn({ event: 'broker_left', server: visit.left, silent_ms: Math.round(silentMs) }, 'another server is tried');
    await connectAnew(connection);
  }
}

/** How long ago a stream could be used, as far as this server knows, ms. @throws Error when it does not know */
async function servedAgeMs(manager: JetStreamManager): Promise<number> {
  try {
    return quorumAgeMs(await manager.streams.info(ASKED));
  } catch (error) {
    // That there is no such stream is an answer, too.
    if (error instanceof NatsError && error.api_error?.code === 404) return 0;
    throw error;
  }
}

/** Ends a connection, so that the client makes a new one, to the next server if there are several. */
export async function connectAnew(connection: NatsConnection): Promise<void> {
  // One that is being closed is to send what it has.
  if (connection.isClosed() || connection.isDraining()) return;
  await connection.reconnect();
  // The client first waits until all is written, which over a dead link never is, and has no other way (seen with nats 2.29.3).
  const { protocol } = connection as { protocol?: { transport?: { socket?: unknown } } };
  const socket = protocol?.transport?.socket;
  if (socket instanceof Socket) socket.destroy();
}

interface Visit {
  /** When the server last could use its streams, steady clock, ms. */
  servedAt: number;
  failures: number;
  isConnected: boolean;
  /** The server that was just left; empty: none was. */
  left: string;
}

async function followVisits(connection: NatsConnection, visit: Visit): Promise<void> {
  for await (const { type } of connection.status()) {
    if (type === Events.Disconnect) visit.isConnected = false;
    if (type !== Events.Reconnect) continue;
    Object.assign(visit, { servedAt: steadyNow(), failures: 0, isConnected: true });
    const { left } = visit;
    visit.left = '';
    // The client's first way back leads to where it came from.
    if (left === connection.getServer()) await connectAnew(connection);
  }
}
