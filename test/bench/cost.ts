/** What a row costs as there are more symbols, and as more is stored: both should be level. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClickHouseClient } from '@clickhouse/client';
import { insertBody, LineReader, lookupQuery, type StreamArrivals } from '../../scripts/lib/arrivals.ts';
import { insertLines, selectText } from '../../scripts/lib/clickhouse.ts';
import { encodeRow } from '../../scripts/lib/rows.ts';
import { ensureTier } from '../../scripts/lib/schema.ts';
import type { Stream } from '../../scripts/lib/streams.ts';
import { sampleTrade } from '../fixtures.ts';
import type { Pipeline } from '../pipeline.ts';
import { cpuSeconds, inFlow, watch, withDatabase } from './flow.ts';
import { median } from './measure.ts';
import { madeTrades, ROWS_PER_INSERT } from './replicate.ts';
import { atMost, type Figure, only, type Suite } from './suite.ts';

const RATE = 10_000;
const SYMBOLS = [10, 100, 500];
const WINDOW_MS = 20_000;
/** Stored rows at which a batch is looked up and inserted; `MARKETPRISM_BENCH_STORED=1000000000` goes on in powers of ten up to there. */
const STORED = [1_000_000, 10_000_000, 100_000_000];
const BATCHES = 40;
const BATCH_ROWS = 10_000;
const LIVE_SYMBOLS = 20;
/** After whatever was made. */
const LIVE_FROM_MS = 1_795_900_000_000;
/** A row may cost so much more at the far end than at the near one; what one machine does at two moments differs by as much. */
const LEVEL = 1.5;
const REQUEST_TIMEOUT_MS = 120_000;
const MERGES_LIMIT_MS = 1_800_000;
const QUIET_LOOKS = 5;

export const costSuite: Suite = {
  name: 'cost',
  async run(say) {
    const bySymbols = await costBySymbols(say);
    const byStored = await costByStored(say);
    const last = byStored.at(-1)!;
    return {
      figures: [
        ...bySymbols.map(({ symbols, micros }) => only(`micros_at_${symbols}_symbols`, micros)),
        atMost('symbols_ratio', bySymbols.at(-1)!.micros / bySymbols[0]!.micros, LEVEL),
        ...byStored.map(({ stored, micros }): Figure => only(`micros_at_${stored}_stored`, micros)),
        atMost('stored_ratio', last.micros / byStored[0]!.micros, LEVEL),
      ],
      information: [
        ...bySymbols.map(({ symbols, cost }) => `${symbols} symbols, ${RATE} rows/s: ${cost}`),
        ...byStored.map(
          ({ stored, lookMs, insertMs }) =>
            `${stored} trades stored: a batch of ${BATCH_ROWS} is looked up in ${lookMs.toFixed(1)} ms and inserted in ${insertMs.toFixed(1)} ms (medians of ${BATCHES})`,
        ),
      ],
    };
  },
};

async function costBySymbols(say: (line: string) => void) {
  const points = [];
  for (const symbols of SYMBOLS) {
    say(`cost: ${symbols} symbols, ${RATE} rows/s …`);
    const { microsPerRow, cost } = await inFlow({ offered: RATE, symbols }, (pipeline) => watch(pipeline, WINDOW_MS));
    points.push({ symbols, micros: microsPerRow, cost });
  }
  return points;
}

interface StoredPoint {
  stored: number;
  /** CPU of the engine for a look-up and an insert, µs a row. */
  micros: number;
  lookMs: number;
  insertMs: number;
}

async function costByStored(say: (line: string) => void): Promise<StoredPoint[]> {
  const most = Number(process.env.MARKETPRISM_BENCH_STORED ?? STORED.at(-1));
  const targets = STORED.filter((each) => each <= most);
  for (let next = STORED.at(-1)! * 10; next <= most; next *= 10) targets.push(next);
  return withDatabase(async (client, pipeline) => {
    await ensureTier(client, 'hot', 'marketprism_hot');
    const points: StoredPoint[] = [];
    const live = new LiveBatches();
    let made = 0;
    for (const stored of targets) {
      say(`cost: making trades up to ${stored} …`);
      for (; made < stored; made += ROWS_PER_INSERT) await client.command({ query: madeTrades(made) });
      await mergesSettled(client);
      points.push({ stored, ...(await measureBatches(pipeline, client, live)) });
    }
    return points;
  }, REQUEST_TIMEOUT_MS);
}

/** Merges of what was just made are the bench's own, and no cost of what comes then. @throws Error when they do not end */
async function mergesSettled(client: ClickHouseClient): Promise<void> {
  const deadline = performance.now() + MERGES_LIMIT_MS;
  for (let quiet = 0; quiet < QUIET_LOOKS; await sleep(1000)) {
    const [[running] = []] = await selectText(client, 'SELECT count() FROM system.merges');
    quiet = running === '0' ? quiet + 1 : 0;
    if (performance.now() > deadline) throw new Error(`${running} merges are still under way`);
  }
}

async function measureBatches(pipeline: Pipeline, client: ClickHouseClient, live: LiveBatches) {
  const looks: number[] = [];
  const inserts: number[] = [];
  const cpu = cpuSeconds(pipeline).get('clickhouse_embedded')!;
  for (let i = 0; i < BATCHES; i += 1) {
    const streams = live.next();
    const begun = performance.now();
    const found = await selectText(client, lookupQuery('trade', 'marketprism_hot', streams)!);
    if (found.length > 0) throw new Error(`${found.length} rows were found that nobody stored`);
    const looked = performance.now();
    const body = insertBody(streams.flatMap(({ rows }) => [...rows.values()]));
    await insertLines(client, 'marketprism_hot.trades', body, `bench:${live.seq}`);
    looks.push(looked - begun);
    inserts.push(performance.now() - looked);
  }
  const used = cpuSeconds(pipeline).get('clickhouse_embedded')! - cpu;
  return { micros: (used / (BATCHES * BATCH_ROWS)) * 1e6, lookMs: median(looks), insertMs: median(inserts) };
}

/** Batches as the store has them: half a second of 20 symbols each. */
class LiveBatches {
  seq = 1_000_000_000;
  private id = 2_000_000_000;
  private readonly readers = Array.from({ length: LIVE_SYMBOLS }, (_, i) => {
    const stream: Stream = { type: 'trade', exchange: 'binance_spot', market_type: 'spot', symbol: `S${i}-USDT` };
    return new LineReader(stream);
  });
  private time = LIVE_FROM_MS;

  next(): StreamArrivals[] {
    const perSymbol = BATCH_ROWS / LIVE_SYMBOLS;
    const arrivals = this.readers.map((reader) => {
      const lines = Array.from({ length: perSymbol }, (_, i) => {
        const { symbol } = reader.stream;
        this.id += 1;
        return encodeRow(
          'trade',
          sampleTrade(this.id, { symbol, instrument: symbol.replace('-', ''), timestamp: this.time + i }),
        );
      });
      this.seq += 1;
      const rows: StreamArrivals['rows'] = new Map();
      reader.read(Buffer.from(lines.join('\n')), 1, this.seq, rows);
      return { stream: reader.stream, rows };
    });
    this.time += perSymbol;
    return arrivals;
  }
}
