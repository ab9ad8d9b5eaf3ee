/**
 * Two collectors of the same exchanges, started one after the other, with batches cut differently and as on two machines; each is killed
 * once while the other goes on. At every moment one of them listens, so everything is stored, once, and nothing is missing.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { BOOT_HEADER, STARTED_HEADER } from '../scripts/lib/jetstream.ts';
import { messagesAfter } from '../scripts/lib/ledger.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { type DataType, EXCHANGES, TABLES } from '../scripts/lib/rows.ts';
import { parseSubject, streamDefinitions } from '../scripts/lib/streams.ts';
import { type CollectorName, type HealthDocument, Pipeline, READY_MS } from './pipeline.ts';

const ORDERBOOK_MS = 2000;
const MINUTE_MS = 60_000;
/** Of the venues' time, so that there are whole minutes of readings; both collectors read through it. */
const SKIPPED_SECONDS = 245;
const TRADES_PER_SECOND = 5;
/** Of Hyperliquid. */
const RAREST_BOOK_SECONDS = 5;
/** What every service promises. */
const STOP_MS = 10_000;

/** Longer than a message waits to be written, µs. */
const UNWRITTEN_US = 10_000_000;

type Row = Record<string, unknown> & {
  exchange: string;
  symbol: string;
  timestamp: number;
  received_at: number;
  data_source: string;
};

/** What a venue's messages are sampled for by the time that they tell, and the length of its slots. */
const SAMPLED: { type: DataType; exchanges: readonly string[]; everyMs: number; only?: (row: Row) => boolean }[] = [
  { type: 'orderbook', exchanges: EXCHANGES, everyMs: ORDERBOOK_MS },
  {
    type: 'funding_rate',
    exchanges: ['binance_derivatives', 'okx_derivatives', 'deribit_derivatives'],
    everyMs: MINUTE_MS,
  },
  { type: 'open_interest', exchanges: ['okx_derivatives', 'deribit_derivatives'], everyMs: MINUTE_MS },
  // Its candles are asked for, each under its own time.
  {
    type: 'volatility_index',
    exchanges: ['deribit_derivatives'],
    everyMs: MINUTE_MS,
    only: (row) => row.resolution === '1s',
  },
];

interface Stored {
  type: DataType;
  row: Row;
  /** Which run of a collector received it, and which one published it: what a killed run left on its disk, the next one publishes. */
  run: string;
  boot: string;
  /** The message that it came in. */
  message: string;
}

interface CollectorHealth extends HealthDocument {
  boot: string;
}

describe('two collectors side by side, each killed once', () => {
  const pipeline = new Pipeline({
    MARKETPRISM_EXCHANGES: EXCHANGES.join(','),
    MARKETPRISM_SYMBOLS: 'BTC-USDT',
    MARKETPRISM_ORDERBOOK_INTERVAL: `${ORDERBOOK_MS}ms`,
    MARKETPRISM_LIQUIDATION_DELAY: '5s',
    MARKETPRISM_GAP_AGE: '3s',
  });
  /** The last word of each collector. */
  const last = new Map<CollectorName, CollectorHealth>();
  const restarts = new Map<CollectorName, number>();
  /** Every row in JetStream, and whose it is. */
  let stored: Stored[] = [];

  const health = async (name: CollectorName) => (await pipeline.health(name)) as CollectorHealth | null;

  /** Waits for a run of this collector that has every stream. */
  async function complete(name: CollectorName, killed?: string): Promise<string> {
    let boot = '';
    await waitFor(`${name} with every stream`, READY_MS, async () => {
      const document = await health(name);
      if (document === null || document.boot === killed) return false;
      ({ boot } = document);
      const { broker, ...exchanges } = document.checks;
      return Object.values(exchanges).every(({ status }) => status === 'healthy') && broker?.status === 'healthy';
    });
    return boot;
  }

  /** Waits until this collector has read through the time that was skipped. */
  async function caughtUp(name: CollectorName): Promise<void> {
    const trades = SKIPPED_SECONDS * TRADES_PER_SECOND * 0.8;
    const books = (SKIPPED_SECONDS / RAREST_BOOK_SECONDS) * 0.8;
    await waitFor(`${name} to have read it all`, READY_MS, async () => {
      const told = (await health(name))?.received ?? [];
      const hasOf = (type: DataType, least: number) => {
        const rows = told.filter(({ data_type }) => data_type === type);
        return rows.length === EXCHANGES.length && rows.every(({ received }) => received > least);
      };
      // Trades and books of an exchange may come over sockets of their own.
      return hasOf('trade', trades) && hasOf('orderbook', books);
    });
  }

  async function moreTrades(): Promise<void> {
    const count = async () => Number((await pipeline.query('SELECT count() FROM marketprism_hot.trades'))[0]![0]);
    const before = await count();
    await waitFor('more trades', READY_MS, async () => (await count()) > before + 100);
  }

  /**
   * Waits until this one, just started, has had a book of Hyperliquid in its turn. Only from then on it can say of these books, which nothing
   * numbers, that it has missed none: if the other one is lost before, nobody knows what was missed, and that is told.
   */
  async function inTurn(name: CollectorName): Promise<void> {
    await waitFor(`${name} to have whole books`, READY_MS, async () => {
      const books = ((await health(name))?.received ?? []).find(
        ({ exchange, data_type }) => exchange === 'hyperliquid' && data_type === 'orderbook_update',
      );
      return (books?.received ?? 0) >= 2;
    });
  }

  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    const rates = [
      '--trades-per-second',
      String(TRADES_PER_SECOND),
      '--diffs-per-second',
      '2',
      '--liquidations-per-minute',
      '60',
    ];
    await pipeline.startSimulator(['--seed', '11', '--symbols', 'BTC-USDT', ...rates]);
    await pipeline.startStore();
    await pipeline.startCollector();
    const firstA = await complete('collector');
    await pipeline.startCollector({ MARKETPRISM_LINGER: '60ms' }, 'collector_b');
    const firstB = await complete('collector_b');
    for (const exchange of EXCHANGES) await pipeline.simulate({ action: 'skip', exchange, seconds: SKIPPED_SECONDS });
    await caughtUp('collector');
    await caughtUp('collector_b');
    await pipeline.kill('collector_b');
    await complete('collector_b', firstB);
    await inTurn('collector_b');
    await moreTrades();
    await pipeline.kill('collector');
    await complete('collector', firstA);
    await moreTrades();
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    // What came last is looked at for gaps once it is old enough.
    await new Promise((done) => setTimeout(done, 5000));
    // Each asks the venues for readings every minute, whether or not anything is sent.
    for (const name of ['collector', 'collector_b'] as const) {
      last.set(name, (await health(name))!);
      restarts.set(name, pipeline.children.get(name)!.restarts);
      const exit = await pipeline.stop(name);
      assert.deepEqual([exit?.code, exit?.signal], [0, null], `${name}: ${exit?.lastLine}`);
    }
    await pipeline.drained();
    stored = await everyRow();
  });
  after(() => pipeline.close());

  async function everyRow(): Promise<Stored[]> {
    const found: Omit<Stored, 'run'>[] = [];
    /** By boot: when that run was started, ms. */
    const starts = new Map<string, number>();
    const nats = await pipeline.nats();
    try {
      for (const { name } of streamDefinitions()) {
        for await (const message of messagesAfter(nats, name, 0, false)) {
          const { type } = parseSubject(message.subject)!;
          const boot = message.headers!.get(BOOT_HEADER);
          if (type !== 'gap') starts.set(boot, Number(message.headers!.get(STARTED_HEADER)));
          const place = `${name} ${message.seq}`;
          for (const line of message.string().split('\n'))
            found.push({ type, row: JSON.parse(line) as Row, boot, message: place });
        }
      }
    } finally {
      await nats.close();
    }
    const runs = new Map<string, { run: string; at: number }[]>();
    for (const name of ['collector', 'collector_b'] as const) {
      const boots = pipeline.events(name, 'started').map(({ boot }) => boot as string);
      const own = boots.map((boot) => ({ run: `${name} ${boot}`, at: starts.get(boot)! * 1000 }));
      for (const boot of boots) runs.set(boot, own);
    }
    return found.flatMap((each) => {
      const { row, boot } = each;
      const run = runs.get(boot)?.findLast(({ at }) => at <= row.received_at)?.run;
      return run === undefined ? [] : [{ ...each, run }];
    });
  }

  const isKilled = (run: string) => ![...last.values()].some(({ boot }) => run.endsWith(boot));

  /**
   * Slots that a killed run may have picked and lost: the broker answered that it had a message under this id, from the other collector, and the run died
   * before it had sent its own copy or written it to its disk. Such a message is lacking as a whole.
   */
  function neverSent(run: string, rows: Stored[], slotOf: (row: Stored) => number): Set<number> {
    const own = rows.filter((each) => each.run === run);
    const picked = new Set(own.map(slotOf));
    const had = new Set(rows.filter((each) => picked.has(slotOf(each))).map(({ message }) => message));
    const death = Math.max(...stored.filter((each) => each.run === run).map(({ row }) => row.received_at));
    // What it received well before was on its disk.
    const safe = Math.max(
      ...own.filter(({ row }) => death - row.received_at > UNWRITTEN_US).map(slotOf),
      Number.NEGATIVE_INFINITY,
    );
    return new Set(
      rows
        .filter(({ message }) => !had.has(message))
        .map(slotOf)
        .filter((slot) => slot > safe),
    );
  }

  /** What the last run of a collector received by its own count, and what JetStream has of it: exchange and type → distinct rows. */
  function lastRun(
    name: CollectorName,
    among: Stored[],
  ): { received: Map<string, number>; published: Map<string, number> } {
    const [directory, id] = name === 'collector' ? [pipeline.dir, 'test'] : [join(pipeline.dir, 'b'), 'test-b'];
    const report = JSON.parse(readFileSync(join(directory, 'state', `collector-${id}.json`), 'utf8'));
    const told = report.rows as { exchange: string; data_type: string; received: number }[];
    const received = new Map(told.map((each) => [`${each.exchange} ${each.data_type}`, each.received]));
    const keys = new Map<string, Set<string>>();
    for (const { type, row, boot } of among) {
      if (boot !== report.boot) continue;
      const kind = `${row.exchange} ${type}`;
      if (!keys.has(kind)) keys.set(kind, new Set());
      keys.get(kind)!.add([row.market_type, row.symbol, ...TABLES[type].key.map((member) => row[member])].join(' '));
    }
    return { received, published: new Map([...keys].map(([kind, { size }]) => [kind, size])) };
  }

  test('every table holds each published row once, and nothing else', async (context) => {
    const tables = await pipeline.compare();
    for (const type of ['trade', 'orderbook', 'orderbook_update', 'funding_rate', 'liquidation'] as const)
      assert.ok((tables.get(type)?.published ?? 0) > 10, `${type}: enough rows to tell`);
    for (const [type, { published, rows, distinct, missing }] of tables) {
      const copies = stored.filter((each) => each.type === type).length;
      context.diagnostic(`${type}: ${copies} rows in JetStream, ${published} distinct`);
      assert.deepEqual(missing, [], `${type}: published and not in hot`);
      assert.deepEqual([rows, distinct], [published, published], `${type}: rows in hot, distinct`);
    }
  });

  test('hot has every trade that was sent, and no other', async () => {
    const streams = (await pipeline.ledger()).streams.filter(({ data_type }) => data_type === 'trade');
    assert.deepEqual([...new Set(streams.map(({ exchange }) => exchange))].sort(), [...EXCHANGES].sort());
    for (const { exchange, symbol } of streams) {
      const query = new URLSearchParams({ exchange, symbol, data_type: 'trade' });
      const text = await (await fetch(`${pipeline.control}/ledger/keys?${query}`)).text();
      const id = exchange === 'deribit_derivatives' ? 'toString(sequence)' : 'trade_id';
      const hot = await pipeline.query(
        `SELECT ${id} FROM marketprism_hot.trades WHERE exchange = '${exchange}' AND symbol = '${symbol}'`,
      );
      assert.deepEqual(hot.map(([each]) => each!).sort(), text.trimEnd().split('\n').sort(), `${exchange} ${symbol}`);
    }
  });

  test('nothing is told as missing that one of the two had, and nothing had to be fetched back', async () => {
    const gaps = await pipeline.query(
      "SELECT exchange, symbol, data_type, from_id, to_id, cause, status FROM marketprism_hot.gaps_now WHERE data_type IN ('trade', 'orderbook', 'orderbook_update') ORDER BY ALL",
    );
    assert.deepEqual(gaps, []);
    const fetched = stored.filter(({ type, row }) => type === 'trade' && row.data_source !== 'live');
    assert.deepEqual(fetched, []);
  });

  test('both sample the same rows: whichever was there, a slot of the venue’s time has one', async (context) => {
    for (const { type, exchanges, everyMs, only = () => true } of SAMPLED) {
      for (const exchange of exchanges) {
        const rows = stored.filter((each) => each.type === type && each.row.exchange === exchange && only(each.row));
        const slotOf = ({ row }: Stored) => Math.floor(row.timestamp / everyMs);
        const idOf = ({ row }: Stored) => TABLES[type].key.map((member) => String(row[member])).join(' ');
        const what = `${exchange} ${type}`;
        /** A run's first row, wherever it stands in its slot: nothing of the slot before it is known to that run. */
        const firsts = new Set<string>();
        const picks = new Map<string, Map<number, string>>();
        for (const each of rows.sort((one, other) => one.row.timestamp - other.row.timestamp)) {
          const picked = picks.get(each.run) ?? new Map<number, string>();
          if (picked.size === 0) firsts.add(idOf(each));
          picks.set(each.run, picked);
          // Rows that a killed run left on its disk come again.
          const before = picked.get(slotOf(each)) ?? idOf(each);
          assert.equal(before, idOf(each), `${what}: two of one run in slot ${slotOf(each)}`);
          picked.set(slotOf(each), before);
        }
        assert.equal(picks.size, 4, `${what}: each run of both`);
        let both = 0;
        for (const [run, one] of picks) {
          for (const [otherRun, other] of picks) {
            if (run >= otherRun) continue;
            // Where both were there for the whole slot.
            const [own, others] = [[...one.keys()], [...other.keys()]];
            const from = Math.max(own[0]!, others[0]!);
            const to = Math.min(own.at(-1)!, others.at(-1)!);
            const inside = (slots: Map<number, string>) => [...slots].filter(([slot]) => slot > from && slot < to);
            const lost = (name: string) => (isKilled(name) ? neverSent(name, rows, slotOf) : null);
            const [lostOfOne, lostOfOther] = [lost(run), lost(otherRun)];
            const kept = (slots: Map<number, string>) =>
              inside(slots).filter(([slot]) => !lostOfOne?.has(slot) && !lostOfOther?.has(slot));
            assert.deepEqual(kept(one), kept(other), `${what}: runs ${run} and ${otherRun}`);
            both += inside(one).length;
          }
        }
        assert.ok(both > 0, `${what}: slots in which both were there`);
        const table = TABLES[type].name;
        const ids = TABLES[type].key.map((member) =>
          member === 'timestamp' ? 'toUnixTimestamp64Milli(timestamp)' : member,
        );
        const resolution = type === 'volatility_index' ? "AND resolution = '1s'" : '';
        const hot = await pipeline.query(
          `SELECT intDiv(toUnixTimestamp64Milli(timestamp), ${everyMs}), ${ids.join(', ')} FROM marketprism_hot.${table} WHERE exchange = '${exchange}' AND data_source = 'live' ${resolution}`,
        );
        const counts = new Map<string, number>();
        for (const [slot, ...id] of hot) {
          if (firsts.has(id.join(' '))) continue;
          counts.set(slot!, (counts.get(slot!) ?? 0) + 1);
        }
        assert.deepEqual(
          [...counts].filter(([, count]) => count > 1),
          [],
          `${what}: slots with more than one row in hot`,
        );
        context.diagnostic(`${what}: ${hot.length} rows, ${firsts.size} first ones, ${both} picked by both`);
      }
    }
  });

  test('one key says the same whoever had it: which of the two copies is stored does not matter', (context) => {
    const seen = new Map<string, { run: string; text: string }>();
    let both = 0;
    for (const { type, row, run } of stored) {
      // A gap's end is told by whoever tried to fill it, at the time of its own try.
      if (type === 'gap') continue;
      // The venue tells no time with them: each stands at the minute in which it came in, as the collector's clock has it.
      if (row.exchange === 'hyperliquid' && (type === 'funding_rate' || type === 'open_interest')) continue;
      const { received_at, ...told } = row;
      const members = ['exchange', 'market_type', 'symbol', ...TABLES[type].key];
      const key = [type, ...members.map((member) => row[member])].join(' ');
      const text = JSON.stringify(told);
      const before = seen.get(key);
      if (before === undefined) seen.set(key, { run, text });
      else {
        assert.equal(text, before.text, `${key}: ${run} and ${before.run}`);
        if (run !== before.run) both += 1;
      }
    }
    assert.ok(both > 1000, `${both} rows of two runs`);
    context.diagnostic(`${both} rows of two runs are alike`);
  });

  test('each of the two has published all that it received, although the other had published the same before', () => {
    for (const name of last.keys()) {
      const { received, published } = lastRun(name, stored);
      assert.ok(received.size > 20, `${received.size} kinds of rows`);
      // It has published what the killed run before it left, too.
      for (const [kind, count] of received) assert.ok((published.get(kind) ?? 0) >= count, `${name} ${kind}`);
    }
  });

  test('a killed collector is back with its next start: its lock has gone with it', () => {
    for (const [name, count] of restarts) {
      assert.equal(count, 1, `${name}: starts after the kill`);
      assert.doesNotMatch(pipeline.log(name), /already held/);
    }
  });

  test('what neither of the two had is a gap', async () => {
    const stream = { exchange: 'binance_spot', symbol: 'BTC-USDT', data_type: 'trade' };
    const subscribed = () =>
      (['collector', 'collector_b'] as const).flatMap((name) =>
        pipeline.events(name, 'socket_subscribed').filter(({ exchange }) => exchange === stream.exchange),
      ).length;
    const before = subscribed();
    await pipeline.simulate({ action: 'drop', ...stream, count: 1 });
    await pipeline.startCollector();
    await pipeline.startCollector({}, 'collector_b');
    await waitFor('both subscriptions', READY_MS, async () => subscribed() >= before + 2);
    await pipeline.simulate({ action: 'start' });
    const gaps = () =>
      pipeline.query(
        "SELECT exchange, symbol, rows, status FROM marketprism_hot.gaps_now WHERE data_type = 'trade' AND status != 'open'",
      );
    await waitFor('the gap', READY_MS, async () => (await gaps()).length > 0);
    assert.deepEqual(await gaps(), [['binance_spot', 'BTC-USDT', '1', 'filled']]);
  });

  test('both stop within 10 s in the middle of a flood, and JetStream has all that they received', async (context) => {
    for (const exchange of EXCHANGES) await pipeline.simulate({ action: 'skip', exchange, seconds: 300 });
    const begun = performance.now();
    const exits = await Promise.all([pipeline.stop('collector'), pipeline.stop('collector_b')]);
    assert.ok(performance.now() - begun < STOP_MS, `${performance.now() - begun} ms`);
    for (const exit of exits) assert.deepEqual([exit?.code, exit?.signal], [0, null], exit?.lastLine);
    const rows = await everyRow();
    for (const name of ['collector', 'collector_b'] as const) {
      const { received, published } = lastRun(name, rows);
      const counts = (of: Map<string, number>) => [...of].sort();
      // What was fetched to fill the gap is in both, too.
      assert.deepEqual(counts(published), counts(received), name);
      context.diagnostic(`${name}: ${[...received.values()].reduce((sum, each) => sum + each, 0)} rows`);
    }
    const [[copies] = []] = await pipeline.query(
      'SELECT count() - uniqExact(exchange, symbol, trade_id) FROM marketprism_hot.trades',
    );
    assert.equal(copies, '0');
  });
});
