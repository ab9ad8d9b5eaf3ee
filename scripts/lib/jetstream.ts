/** NATS JetStream: connecting, bringing streams up to their definition, reading what is stored. */
import {
  connect,
  DiscardPolicy,
  Events,
  type JetStreamManager,
  type NatsConnection,
  NatsError,
  nanos,
  RetentionPolicy,
  StorageType,
  type StoredMsg,
  type StreamInfo,
} from 'nats';
import { OperatorError } from './cli.ts';
import { shownUrl } from './config.ts';
import type { Logger } from './log.ts';
import { pause } from './pause.ts';
import { leaveSilentServers, lookedFor } from './quorum.ts';
import { steadyNow } from './steady.ts';
import type { StreamDefinition } from './streams.ts';

/** JetStream's API error codes that this file tells apart. */
const STREAM_NOT_FOUND = 10059;
/** A server without a cluster, or a cluster with too few servers, is asked for more replicas than it has. */
const TOO_MANY_REPLICAS = [10074, 10005];

/** A broker that is away is told once in this time while a service waits for it. */
const WAITING_LOG_MS = 10_000;

const CONNECT_WITHIN_MS = 5000;
/** Where there is another server: one that is cut off does not refuse. */
const CONNECT_ONE_OF_MANY_WITHIN_MS = 2000;
/** Between attempts to reach a broker that was lost. */
const RECONNECT_WAIT_MS = 500;
const TIMER_SLACK_MS = 10;

/** Broker versions below this one are known to lose acknowledged data in rare crashes. */
const SAFE_VERSION = [2, 10, 23] as const;

/**
 * Connects, waiting as long as it takes (a service outlives its broker); says so while it waits. One that was there and is lost is found again
 * in any case.
 * @param first `tried`: a broker that is not there now is an error, for whoever may have to stop while it waits
 */
export async function connectNats(
  url: string,
  name: string,
  log: Logger,
  first: 'awaited' | 'tried' = 'awaited',
): Promise<NatsConnection> {
  const timer = setInterval(
    () => log.warn({ event: 'broker_away', url: shownUrl(url) }, 'waiting for the broker'),
    WAITING_LOG_MS,
  );
  const servers = url.split(',');
  try {
    const connection = await connect({
      servers,
      name,
      timeout: servers.length > 1 ? CONNECT_ONE_OF_MANY_WITHIN_MS : CONNECT_WITHIN_MS,
      maxReconnectAttempts: -1,
      waitOnFirstConnect: first === 'awaited',
      reconnectDelayHandler: reconnectDelays(),
      pingInterval: 15_000,
      maxPingOut: 2,
      noEcho: true,
    });
    warnOldVersion(connection, log);
    void followStatus(connection, log);
    void leaveSilentServers(connection, servers.length, log);
    return connection;
  } finally {
    clearInterval(timer);
  }
}

/** Connects at once or not at all, for whoever looks and goes. @throws Error saying that the broker cannot be reached */
export async function connectOnce(url: string, name: string): Promise<NatsConnection> {
  try {
    return await connect({ servers: url.split(','), name, timeout: CONNECT_WITHIN_MS, reconnect: false });
  } catch (error) {
    throw new Error(`the broker at ${shownUrl(url)} cannot be reached: ${(error as Error).message}`);
  }
}

/**
 * When the client may try again. It reckons by the wall clock, and would try nothing for minutes after that was set back: it is told to try
 * at once when it is time by the steady clock, otherwise to wait.
 */
function reconnectDelays(): () => number {
  let nextAt = 0;
  return () => {
    const now = steadyNow();
    // Timers may end a little early.
    if (now < nextAt - TIMER_SLACK_MS) return RECONNECT_WAIT_MS;
    nextAt = now + RECONNECT_WAIT_MS;
    return Number.NEGATIVE_INFINITY;
  };
}

/** Connects, and makes sure of the streams; both for as long as it takes. */
export async function connectWithStreams(
  url: string,
  name: string,
  definitions: StreamDefinition[],
  log: Logger,
): Promise<NatsConnection> {
  const connection = await connectNats(url, name, log);
  for (;;) {
    try {
      await ensureStreams(await connection.jetstreamManager(), definitions, log);
      return connection;
    } catch (error) {
      log.error({ event: 'streams_not_made', err: error, wait_ms: WAITING_LOG_MS });
      await pause(WAITING_LOG_MS);
    }
  }
}

/** Whether a connection stands at present, kept up to date from its own events. */
export class ConnectionWatch {
  connected = true;

  constructor(connection: NatsConnection) {
    void this.follow(connection);
  }

  private async follow(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === Events.Disconnect) this.connected = false;
      if (status.type === Events.Reconnect) this.connected = true;
    }
  }
}

function warnOldVersion(connection: NatsConnection, log: Logger): void {
  const version = connection.info?.version ?? '0.0.0';
  const warning = oldBrokerWarning(version);
  if (warning !== null) log.warn({ event: 'old_broker', version }, warning);
}

/** What is to be said of a broker of this version (`2.9.10`); null: nothing. */
export function oldBrokerWarning(version: string): string | null {
  const parts = version.split('.').map((part) => Number.parseInt(part, 10));
  const difference = SAFE_VERSION.map((wanted, i) => (parts[i] ?? 0) - wanted).find((each) => each !== 0) ?? 0;
  if (difference >= 0) return null;
  return `nats-server ${version} is older than ${SAFE_VERSION.join('.')}: it works, but has known data-loss bugs`;
}

async function followStatus(connection: NatsConnection, log: Logger): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === Events.Disconnect || status.type === Events.Reconnect || status.type === Events.Error) {
      log.warn({ event: `broker_${status.type}`, detail: String(status.data) });
    }
  }
}

/** Creates what is missing; a stream that differs is updated, or reported when the broker refuses. Never deletes. */
export async function ensureStreams(
  manager: JetStreamManager,
  definitions: StreamDefinition[],
  log: Logger,
): Promise<void> {
  for (const definition of definitions) {
    const wanted = wantedStream(definition);
    let info = await streamInfo(manager, definition.name);
    // A second one made beside one that is there would take its place.
    if (info === null && (definition.replicas ?? 1) > 1)
      info = await lookedFor(() => streamInfo(manager, definition.name));
    if (info === null) {
      try {
        await manager.streams.add({ name: definition.name, ...wanted });
      } catch (error) {
        throw tooManyReplicas(definition, error) ?? error;
      }
      log.info({ event: 'stream_created', stream: definition.name, max_bytes: definition.maxBytes });
      continue;
    }
    // A stream that has to keep unread messages longer than usual goes on doing so.
    if (info.config.max_age > wanted.max_age) wanted.max_age = info.config.max_age;
    const differing = differingMembers(wanted, info.config);
    if (differing.length === 0) continue;
    try {
      await manager.streams.update(definition.name, { ...info.config, ...wanted });
      log.warn({ event: 'stream_updated', stream: definition.name, differing });
    } catch (error) {
      const reason = (tooManyReplicas(definition, error) ?? (error as Error)).message;
      log.error({ event: 'stream_differs', stream: definition.name, differing, reason });
    }
  }
}

/** What to tell of a broker that has fewer servers than a stream is to have replicas; null: the error is another one. */
function tooManyReplicas({ name, replicas }: StreamDefinition, error: unknown): OperatorError | null {
  if (!TOO_MANY_REPLICAS.includes(apiErrorCode(error) ?? 0)) return null;
  return new OperatorError(
    `MARKETPRISM_STREAM_REPLICAS: the broker cannot keep ${name} on ${replicas} servers (${(error as Error).message}): start as many, or set fewer`,
  );
}

/** What the broker is to be told of a stream. */
export function wantedStream(definition: StreamDefinition) {
  return {
    subjects: definition.types.map((type) => `${type}.>`),
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    discard: DiscardPolicy.Old,
    max_bytes: definition.maxBytes,
    max_age: nanos(definition.maxAgeMs),
    duplicate_window: nanos(definition.duplicateWindowMs),
    ...(definition.replicas === undefined ? {} : { num_replicas: definition.replicas }),
  };
}

/** Members of what is wanted that are otherwise in what is there. */
export function differingMembers(wanted: object, live: object): string[] {
  const config = new Map(Object.entries(live));
  const isOther = ([member, value]: [string, unknown]) => JSON.stringify(value) !== JSON.stringify(config.get(member));
  return Object.entries(wanted)
    .filter(isOther)
    .map(([member]) => member);
}

/** A stream's state, or null when there is no such stream. */
export async function streamInfo(manager: JetStreamManager, name: string): Promise<StreamInfo | null> {
  try {
    return await manager.streams.info(name);
  } catch (error) {
    if (apiErrorCode(error) === STREAM_NOT_FOUND) return null;
    throw error;
  }
}

/** JetStream's own code of an error; undefined where it is none of JetStream's. */
export function apiErrorCode(error: unknown): number | undefined {
  return error instanceof NatsError ? error.api_error?.err_code : undefined;
}

/** Header names of our messages; the first one is the broker's, which takes a second message of the same id for a copy. */
export const ID_HEADER = 'Nats-Msg-Id';
export const MODE_HEADER = 'Mp-Mode';
export const ROWS_HEADER = 'Mp-Rows';
export const BOOT_HEADER = 'Mp-Boot';
/** When the process that published was started, ms. */
export const STARTED_HEADER = 'Mp-Started';

/** The Nats-Msg-Id of the message at a sequence; null when there is none. */
export async function messageId(manager: JetStreamManager, stream: string, seq: number): Promise<string | null> {
  return (await messageAt(manager, stream, { seq }))?.header.get(ID_HEADER) ?? null;
}

/** A stored message by its sequence, or the last one of a subject; null when it is not there. */
export async function storedMessage(
  manager: JetStreamManager,
  stream: string,
  which: number | string,
): Promise<{ subject: string; data: Uint8Array; startedAt: number | null } | null> {
  const found = await messageAt(manager, stream, typeof which === 'number' ? { seq: which } : { last_by_subj: which });
  if (found === null) return null;
  const startedAt = Number(found.header.get(STARTED_HEADER));
  return { subject: found.subject, data: found.data, startedAt: startedAt > 0 ? startedAt : null };
}

/** The message of a sequence, or the last one of a subject; null when it is not there. */
export async function messageAt(
  manager: JetStreamManager,
  stream: string,
  query: { seq: number } | { last_by_subj: string },
): Promise<StoredMsg | null> {
  try {
    return await manager.streams.getMessage(stream, query);
  } catch (error) {
    if (error instanceof NatsError && (error.api_error?.code === 404 || error.code === '404')) return null;
    throw error;
  }
}
