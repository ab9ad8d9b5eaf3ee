/** Depth diffs → verified book, against tardis-dev's normaliser plus its OrderBook and against bare JSON.parse. */
import { type BookChange, normalizeBookChanges, OrderBook } from 'tardis-dev';
import type { FeedOutput } from '../../scripts/lib/exchange.ts';
import type { OrderbookRow } from '../../scripts/lib/rows.ts';
import { createFeed, LastRow } from './feeds.ts';
import { madeDiffs, RECEIVED_AT, recordedSessions, type Session } from './market.ts';
import { type Contestant, race, type Timing } from './measure.ts';
import { atLeast, only, type Suite } from './suite.ts';

const MADE_DIFFS = 6000;
/** About 25 s in all. */
const PLAN = { warmUp: 6, rounds: 40 };
/** The collector's default. */
const ORDERBOOK_INTERVAL_MS = 10_000;
/** Levels a side that are compared with tardis-dev's book before anything is timed. */
const COMPARED_LEVELS = 50;

export const bookSuite: Suite = {
  name: 'book',
  run(say) {
    const made = [madeDiffs(MADE_DIFFS)];
    say(`book: ${MADE_DIFFS} diffs of 20 changed levels, ${PLAN.rounds} rounds …`);
    const timing = compare(made);
    return {
      figures: [
        atLeast('rate_vs_tardis', timing.ratio('tardis', 'feed'), 3),
        only('time_vs_json_parse', timing.ratio('feed', 'parse')),
      ],
      information: [...rates(timing, made, 'made diffs'), ...recordedLines(say)],
    };
  },
};

/** The recorded sessions as a second line: their diffs are of all sizes, mostly smaller than 20 levels. */
function recordedLines(say: (line: string) => void): string[] {
  const sessions = recordedSessions();
  if (!sessions) return ['recorded sessions are not there: made diffs only'];
  say(`book: ${countDiffs(sessions)} recorded diffs, ${PLAN.rounds} rounds …`);
  const timing = compare(sessions);
  const rate = timing.ratio('tardis', 'feed').toFixed(2);
  const time = timing.ratio('feed', 'parse').toFixed(2);
  return [
    `recorded diffs: ${rate} × the rate of tardis-dev, ${time} × the time of JSON.parse`,
    ...rates(timing, sessions, 'recorded diffs'),
  ];
}

function compare(sessions: Session[]): Timing {
  for (const session of sessions) checkSameBook(session);
  return race([parseOnly(sessions), ours(sessions), tardis(sessions)], PLAN);
}

function rates(timing: Timing, sessions: Session[], what: string): string[] {
  const rate = (name: string) => Math.round(countDiffs(sessions) / timing.seconds[name]! / 1000);
  return [
    `${what}, thousand/s: bare JSON.parse ${rate('parse')}, our feed ${rate('feed')}, tardis-dev ${rate('tardis')}`,
  ];
}

function countDiffs(sessions: Session[]): number {
  return sessions.reduce((sum, { diffs }) => sum + diffs.filter((each) => each !== null).length, 0);
}

function parseOnly(sessions: Session[]): Contestant {
  return {
    name: 'parse',
    prepare: () => () => {
      let last: unknown;
      for (const { diffs } of sessions) {
        for (const text of diffs) if (text !== null) last = JSON.parse(text);
      }
      if (last === undefined) throw new Error('nothing was parsed');
    },
  };
}

function ours(sessions: Session[]): Contestant {
  return {
    name: 'feed',
    prepare: () => {
      const runs = sessions.map((session) => feedRun(session, ORDERBOOK_INTERVAL_MS));
      return () => {
        for (const run of runs) {
          const out = new LastRow();
          run(out);
          if (out.count === 0) throw new Error('no row came of the diffs');
        }
      };
    },
  };
}

/** A whole session through a feed: diffs parsed, checked by the venue's sequence rule, applied; rows as in the collector. */
function feedRun(session: Session, intervalMs: number): (out: FeedOutput) => void {
  const feed = createFeed(session, intervalMs);
  const path = `${session.product === 'spot' ? '/api/v3' : '/fapi/v1'}/depth?symbol=${session.instrument}&limit=1000`;
  const snapshot: unknown = JSON.parse(session.snapshot);
  return (out) => {
    for (const text of session.diffs) {
      if (text === null) feed.rest(path, snapshot, RECEIVED_AT, out);
      else feed.frame(text, RECEIVED_AT, out);
    }
  };
}

function tardis(sessions: Session[]): Contestant {
  return {
    name: 'tardis',
    prepare: () => {
      const runs = sessions.map(tardisRun);
      return () => {
        for (const run of runs) {
          if (run().bestBid() === undefined) throw new Error('tardis-dev built no book');
        }
      };
    },
  };
}

/** The same session as tardis-dev takes it. Its mapper checks the first diff's id only, and drops old ones. */
function tardisRun(session: Session): () => OrderBook {
  const start = new Date(RECEIVED_AT / 1000);
  const mapper =
    session.product === 'spot'
      ? normalizeBookChanges('binance', start)
      : normalizeBookChanges('binance-futures', start);
  const stream = `${session.instrument.toLowerCase()}@depthSnapshot`;
  const snapshot = { stream, generated: true, data: JSON.parse(session.snapshot) as unknown };
  return () => {
    const book = new OrderBook();
    for (const text of session.diffs) {
      const message: unknown = text === null ? snapshot : JSON.parse(text);
      const localTimestamp = new Date(RECEIVED_AT / 1000);
      if (!mapper.canHandle(message)) continue;
      for (const change of mapper.map(message, localTimestamp) ?? []) book.update(change as BookChange);
    }
    return book;
  };
}

/** Both must end at the same book, or the comparison means nothing. */
function checkSameBook(session: Session): void {
  const out = new LastRow();
  feedRun(session, 0)(out);
  const mine = out.last as OrderbookRow;
  const theirs = tardisRun(session)();
  for (const side of ['bids', 'asks'] as const) {
    const levels = theirs[side]();
    for (const [price, quantity] of mine[side].slice(0, COMPARED_LEVELS)) {
      const level = levels.next().value;
      if (level?.price !== Number(price) || level.amount !== Number(quantity)) {
        throw new Error(
          `${session.instrument} ${side}: ${price} ${quantity} here, ${JSON.stringify(level)} in tardis-dev`,
        );
      }
    }
  }
}
