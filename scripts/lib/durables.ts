/** The durables from which the store reads: where each goes on, and how far it is. */
import {
  AckPolicy,
  type ConsumerInfo,
  DeliverPolicy,
  ErrorCode,
  type JetStreamManager,
  type NatsError,
  nanos,
} from 'nats';
import { isGuarded } from './crash_points.ts';
import { apiErrorCode, messageAt } from './jetstream.ts';
import { confirmed } from './quorum.ts';
import type { DataType } from './rows.ts';
import { durableName, type StreamDefinition, streamDefinitions } from './streams.ts';

const CONSUMER_NOT_FOUND = 10014;

/** A message that the store has acknowledged, with all before it of its type that are not delivered again. */
export interface Checkpoint {
  seq: number;
  /** When JetStream stored it, ns since the epoch, as text: another message under the same sequence has another time. */
  storedAt: string;
}

/**
 * Makes the store's durable of one type deliver, at once, whatever hot may lack; at a start of the store, and after the broker was away. What
 * such a broker says of a durable cannot be relied on: one that lost the end of a stream remembers what it had delivered, and never delivers
 * the messages that get these sequences anew (measured with 2.9.10). So the durable is made anew from what the store itself knows; what it
 * delivers twice, the look-up drops.
 * Where it cannot be asked, as nobody leads it just now, it is made anew, too: a cluster gives it a leader then. May be called again after an error.
 * @param checkpoint null: nothing is known, and everything in the stream is delivered again
 * @param floors by durable, up to where everything was acknowledged when that was known last; kept up to date here
 * @param isRetry one that is as wanted was made by the try before, of which no answer came
 * @returns whether the stream still has the message of the checkpoint; false: its numbering began anew
 */
export async function placeDurable(
  manager: JetStreamManager,
  definition: StreamDefinition,
  type: DataType,
  ackWaitSeconds: number,
  checkpoint: Checkpoint | null,
  floors: Map<string, number> = new Map(),
  isRetry = false,
): Promise<boolean> {
  const durable_name = durableName(type);
  const info = await consumerInfo(manager, definition.name, durable_name).catch((error: unknown) => {
    if (floors.has(durable_name)) return 'unknown' as const;
    throw error;
  });
  if (info !== null && !isGuarded('checkpoint')) return true;
  const isIntact = checkpoint === null || (await holdsCheckpoint(manager, definition.name, checkpoint));
  const floor = info === null || info === 'unknown' ? (floors.get(durable_name) ?? 0) : ackFloor(info);
  const start = checkpoint === null || !isIntact ? 1 : Math.min(floor, checkpoint.seq) + 1;
  floors.set(durable_name, start - 1);
  if (isRetry && info !== null && info !== 'unknown' && isUntouched(info, start)) return isIntact;
  if (info !== null) await deleteDurable(manager, definition.name, durable_name);
  // Dying here, the next start finds none, and reads everything.
  await manager.consumers.add(definition.name, {
    ...wantedDurable(definition, type, ackWaitSeconds),
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: start,
  });
  return isIntact;
}

/** Whether a durable begins there and has delivered nothing. */
function isUntouched({ config, delivered, num_ack_pending }: ConsumerInfo, start: number): boolean {
  return config.opt_start_seq === start && delivered.consumer_seq === 0 && num_ack_pending === 0;
}

async function deleteDurable(manager: JetStreamManager, stream: string, durable: string): Promise<void> {
  try {
    await manager.consumers.delete(stream, durable);
  } catch (error) {
    // Of one that nobody leads no answer comes; what remains of it, the next step meets.
    if (apiErrorCode(error) !== CONSUMER_NOT_FOUND && (error as NatsError).code !== ErrorCode.Timeout) throw error;
  }
}

/** What the store's durable of a type is, wherever it begins. */
export function wantedDurable(definition: StreamDefinition, type: DataType, ackWaitSeconds: number) {
  return {
    durable_name: durableName(type),
    filter_subject: `${type}.>`,
    ack_policy: AckPolicy.Explicit,
    ack_wait: nanos(ackWaitSeconds * 1000),
    max_ack_pending: definition.maxAckPending,
    max_deliver: -1,
  };
}

/** Up to here a durable of the store has acknowledged everything. Before its first acknowledgement nats-server tells 0 of one that began further on. */
export function ackFloor({ ack_floor, config }: ConsumerInfo): number {
  return Math.max(ack_floor.stream_seq, (config.opt_start_seq ?? 1) - 1);
}

/** A durable, or null when there is none. */
export async function consumerInfo(
  manager: JetStreamManager,
  stream: string,
  durable: string,
): Promise<ConsumerInfo | null> {
  try {
    return await manager.consumers.info(stream, durable);
  } catch (error) {
    if (apiErrorCode(error) !== CONSUMER_NOT_FOUND) throw error;
    return null;
  }
}

/** Whether a stream has the message, or has let it go because of its age. @throws Error while that is not known */
export async function holdsCheckpoint(
  manager: JetStreamManager,
  stream: string,
  { seq, storedAt }: Checkpoint,
): Promise<boolean> {
  const gone = await confirmed(manager, stream, async ({ state }) => {
    if (seq > state.last_seq) return 'it has not come so far';
    if (seq < state.first_seq) return null;
    const message = await messageAt(manager, stream, { seq });
    return message !== null && nanosOf(message.timestamp) === storedAt ? null : 'another message is there, or none';
  });
  return gone === null;
}

/** `2026-11-23T18:40:50.165162123Z` as ns since the epoch. @throws when it is no such time */
function nanosOf(time: string): string {
  const found = /^(.+?)(?:\.(\d{1,9}))?Z$/.exec(time);
  const seconds = Date.parse(`${found?.[1]}Z`) / 1000;
  if (!found || !Number.isInteger(seconds)) throw new Error(`JetStream tells the time as ${JSON.stringify(time)}`);
  return String(BigInt(seconds) * 1_000_000_000n + BigInt((found[2] ?? '').padEnd(9, '0')));
}

/** Messages that the store's durables have not acknowledged yet, delivered or not. One that is just being placed anew counts as one. */
export async function unacknowledged(manager: JetStreamManager): Promise<number> {
  let open = 0;
  for (const { name, types } of streamDefinitions()) {
    const awaited = new Set(types.map(durableName));
    // Others follow the streams, too, and may have gone away with messages left.
    for await (const info of manager.consumers.list(name)) {
      // One that is just being made anew is in the list as null (seen with 2.9.10).
      if (info !== null && awaited.delete(info.name)) open += info.num_pending + info.num_ack_pending;
    }
    open += awaited.size;
  }
  return open;
}
