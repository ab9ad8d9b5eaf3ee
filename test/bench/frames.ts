/** Trade frames → rows and → publishable bytes, against bare JSON.parse and against tardis-dev. */
import { normalizeTrades, type Trade } from 'tardis-dev';
import { Batcher } from '../../scripts/lib/batcher.ts';
import { BatcherOutput, createFeed, LastRow } from './feeds.ts';
import { madeTrades, RECEIVED_AT, RECEIVED_STEP, recordedSessions, type Session } from './market.ts';
import { type Contestant, race } from './measure.ts';
import { atLeast, atMost, type Suite } from './suite.ts';

/** As many a product as the recorded sessions hold. */
const MADE_TRADES = 12_000;
/** About 20 s: the median of fewer rounds still moves by some percent on a machine with other work. */
const PLAN = { warmUp: 8, rounds: 60 };
/** Frames between two flushes of the batcher: what 60,000 a second give in the 5 ms that the collector lets rows linger. */
const FRAMES_PER_FLUSH = 300;

export const framesSuite: Suite = {
  name: 'frames',
  run(say) {
    const recorded = recordedSessions();
    if (!recorded) say('recorded sessions are not there: trade frames of the same shape are made');
    const sessions = recorded ?? madeTrades(MADE_TRADES);
    const count = countTrades(sessions);
    say(`frames: ${count} trades, ${PLAN.rounds} rounds …`);
    const timing = race([parseOnly(sessions), toRows(sessions), toBytes(sessions), tardis(sessions)], PLAN);
    const rate = (name: string) => Math.round(count / timing.seconds[name]! / 1000);
    return {
      figures: [
        atMost('trade_time_vs_json_parse', timing.ratio('rows', 'parse'), 1.3),
        atMost('trade_bytes_time_vs_json_parse', timing.ratio('bytes', 'parse'), 1.8),
        atLeast('trade_rate_vs_tardis', timing.ratio('tardis', 'rows'), 1.3),
      ],
      information: [
        `${recorded ? 'recorded' : 'made'} trades, thousand/s: bare JSON.parse ${rate('parse')}, to rows ${rate('rows')}, ` +
          `to bytes ${rate('bytes')}, tardis-dev ${rate('tardis')}`,
      ],
    };
  },
};

function parseOnly(sessions: Session[]): Contestant {
  return {
    name: 'parse',
    prepare: () => () => {
      let last: unknown;
      for (const { trades } of sessions) for (const text of trades) last = JSON.parse(text);
      if (last === undefined) throw new Error('nothing was parsed');
    },
  };
}

function toRows(sessions: Session[]): Contestant {
  return {
    name: 'rows',
    prepare: () => {
      const feeds = sessions.map((session) => createFeed(session, 0));
      return () => {
        const out = new LastRow();
        let receivedAt = RECEIVED_AT;
        for (const [index, { trades }] of sessions.entries()) {
          const feed = feeds[index]!;
          for (const text of trades) feed.frame(text, (receivedAt += RECEIVED_STEP), out);
        }
        expectAll(out.count, sessions);
      };
    },
  };
}

function toBytes(sessions: Session[]): Contestant {
  return {
    name: 'bytes',
    prepare: () => {
      const feeds = sessions.map((session) => createFeed(session, 0));
      let rows = 0;
      const batcher = new Batcher((message) => {
        rows += message.rows;
      });
      const out = new BatcherOutput(batcher);
      return () => {
        let sinceFlush = 0;
        let receivedAt = RECEIVED_AT;
        for (const [index, { trades }] of sessions.entries()) {
          const feed = feeds[index]!;
          for (const text of trades) {
            feed.frame(text, (receivedAt += RECEIVED_STEP), out);
            if (++sinceFlush < FRAMES_PER_FLUSH) continue;
            batcher.flush();
            sinceFlush = 0;
          }
        }
        batcher.flush();
        expectAll(rows, sessions);
      };
    },
  };
}

/**
 * What tardis-dev does with a frame of its real-time feed: JSON.parse, a Date of the arrival, `canHandle`, and the generator
 * that `map` returns. Its asynchronous iterators and streams around that are left out, as our socket is: in its favour.
 */
function tardis(sessions: Session[]): Contestant {
  return {
    name: 'tardis',
    prepare: () => {
      const start = new Date(RECEIVED_AT / 1000);
      const mappers = sessions.map(({ product }) =>
        product === 'spot' ? normalizeTrades('binance', start) : normalizeTrades('binance-futures', start),
      );
      return () => {
        let last: Trade | undefined;
        let count = 0;
        let receivedAt = RECEIVED_AT;
        for (const [index, { trades }] of sessions.entries()) {
          const mapper = mappers[index]!;
          for (const text of trades) {
            const message: unknown = JSON.parse(text);
            const localTimestamp = new Date((receivedAt += RECEIVED_STEP) / 1000);
            if (!mapper.canHandle(message)) continue;
            for (const trade of mapper.map(message, localTimestamp) ?? []) {
              last = trade;
              count += 1;
            }
          }
        }
        if (last === undefined) throw new Error('tardis-dev gave no trade');
        expectAll(count, sessions);
      };
    },
  };
}

function countTrades(sessions: Session[]): number {
  return sessions.reduce((sum, { trades }) => sum + trades.length, 0);
}

function expectAll(count: number, sessions: Session[]): void {
  if (count !== countTrades(sessions)) throw new Error(`${count} rows of ${countTrades(sessions)} frames`);
}
