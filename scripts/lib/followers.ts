/**
 * Collectors ask each other who followed a stream that nothing numbers, when one has lost it: where another one goes on, nothing is missed.
 * Asked over the broker, and answered at once from memory or not at all; who is not reached is taken for not there.
 */
import { ErrorCode, type NatsConnection, type NatsError, RequestStrategy, type Subscription } from 'nats';
import { z } from 'zod';
import type { Instrument, UnnumberedType } from './exchange.ts';
import { EXCHANGES, MARKET_TYPES } from './rows.ts';

/** Not among the streams' subjects: nothing is kept of it. */
const SUBJECT = 'marketprism.followers';
/** Answers come within milliseconds; a collector that is stopped gives none. */
const ANSWER_WITHIN_MS = 1000;

const QUESTION = z.object({
  type: z.enum(['trade', 'orderbook_update'] satisfies UnnumberedType[]),
  instrument: z.object({
    exchange: z.enum(EXCHANGES),
    market_type: z.enum(MARKET_TYPES),
    symbol: z.string(),
    instrument: z.string(),
  }),
});
const ANSWER = z.object({ since: z.number().nullable() });

/** Answers the others' questions until the connection is closed. @param unbrokenSince venue time, ms; null: not followed, or interrupted */
export function answerOthers(
  nats: NatsConnection,
  unbrokenSince: (type: UnnumberedType, instrument: Instrument) => number | null,
): Subscription {
  return nats.subscribe(SUBJECT, {
    callback: (error, message) => {
      if (error !== null) return;
      const question = QUESTION.safeParse(parsed(message.string()));
      if (!question.success) return;
      const { type, instrument } = question.data;
      message.respond(JSON.stringify({ since: unbrokenSince(type, instrument) } satisfies z.infer<typeof ANSWER>));
    },
  });
}

/**
 * Whether another collector has missed nothing of a stream from `time` on (venue time, ms).
 * @throws NatsError when the broker cannot be asked
 */
export async function isFollowed(
  nats: NatsConnection,
  type: UnnumberedType,
  instrument: Instrument,
  time: number,
): Promise<boolean> {
  const question: z.infer<typeof QUESTION> = { type, instrument };
  const answers = await nats.requestMany(SUBJECT, JSON.stringify(question), {
    strategy: RequestStrategy.Timer,
    maxWait: ANSWER_WITHIN_MS,
  });
  try {
    for await (const message of answers) {
      const answer = ANSWER.safeParse(parsed(message.string()));
      if (answer.success && answer.data.since !== null && answer.data.since <= time) return true;
    }
  } catch (error) {
    if ((error as NatsError).code !== ErrorCode.NoResponders) throw error;
  }
  return false;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not a question or answer of ours: the schema says so.
    return null;
  }
}
