const USAGE = `
escape_signal_calc.ts: in how many minutes of the last 2 and 24 hours so many coins were topping that it is a signal to leave; from the SAR rows.

Usage:   npx tsx scripts/escape_signal_calc.ts [--once]
Example: tail -F data/escape_signal_jsonl/escape_signal_stats.jsonl
         npx tsx scripts/escape_signal_calc.ts --from 2026-11-20 --to 2026-11-21 > history.jsonl

Flags:
  --once             does what is due, and ends
  --from T --to T    writes the records of these minutes to standard output, from the stored SAR rows: byte for byte what was written live
  --stdin            reads SAR rows (one JSON object a line), writes the records of all minutes from the first to the last of them

Three records a minute, told apart by "rule": sar-breadth (what readers show unless told otherwise), range-position, range-position-legacy.
A minute is evaluated once its candles are over, five minutes later, and when sar_slope_collector.ts has written them.

Environment: MARKETPRISM_ESCAPE_THRESHOLD (8 coins), MARKETPRISM_SERIES_DAYS (30), MARKETPRISM_DATA_DIR, LOG_LEVEL.
`;

import { join } from 'node:path';
import { flags, moment, runAsScript, UsageError } from './lib/cli.ts';
import { loadConfig } from './lib/config.ts';
import { type EscapeInput, EscapeModel, type EscapeRow, MINUTE_MS, RANGE_LONG_MS } from './lib/desk/escape.ts';
import { CANDLE_MS } from './lib/desk/sar.ts';
import { SAR_FILE, STORED } from './lib/desk/sar_file.ts';
import { type DeskContext, type DeskWork, runDesk } from './lib/desk/service.ts';
import { transformStdin } from './lib/desk/stdin.ts';
import { readJson } from './lib/files.ts';
import { recordsOf, SERIES_STATE, Series } from './lib/series.ts';

const DAY_MS = 86_400_000;
/** Of minutes before the first that is asked for, the counts need a day, and the ranges seven. */
const MEMORY_MS = RANGE_LONG_MS;

/** What --stdin takes of a SAR row; without high and low no range is known. */
const INPUT = STORED.pick({
  symbol: true,
  timestamp: true,
  high: true,
  low: true,
  close: true,
  sar_position: true,
  sar_quadrant: true,
  slope_direction: true,
}).partial({ high: true, low: true, close: true });

export const ESCAPE_FILE = 'escape_signal_jsonl/escape_signal_stats.jsonl';

/** Evaluates minutes in their order, from rows that are read as they are needed. */
class Evaluation {
  private readonly model: EscapeModel;
  /** Rows that no minute has needed yet, by time. */
  private rows: EscapeInput[] = [];
  private next = 0;
  /** Open time of the newest candle that was read, ms. */
  private newest: number;

  /** @param from the first minute that will be evaluated, ms */
  constructor(
    private readonly file: string,
    threshold: number,
    from: number,
  ) {
    this.model = new EscapeModel(threshold);
    this.newest = from - MEMORY_MS;
  }

  /** Reads what was written since. @param last the newest candle that is written as a whole: of the next one only some coins may be there */
  async follow(last: number): Promise<this> {
    const more = await readRows(this.file, this.newest + 1, last);
    this.rows = [...this.rows.slice(this.next), ...more];
    this.next = 0;
    this.newest = more.at(-1)?.timestamp ?? this.newest;
    return this;
  }

  of(minute: number): EscapeRow[] {
    for (; this.next < this.rows.length && this.rows[this.next]!.timestamp < minute + MINUTE_MS; this.next += 1)
      this.model.add(this.rows[this.next]!);
    return this.model.evaluate(minute);
  }
}

/** SAR rows from one candle to another, by time; what was written later of the same coin and candle counts. */
async function readRows(file: string, from: number, to: number): Promise<EscapeInput[]> {
  const rows = new Map<string, EscapeInput>();
  for await (const record of recordsOf(file, from)) {
    if (record.slot > to) continue;
    const row = STORED.parse(record);
    const { symbol, timestamp, high, low, close, sar_position, sar_quadrant, slope_direction } = row;
    const slim = { symbol, timestamp, high, low, close, sar_position, sar_quadrant, slope_direction };
    rows.set(`${timestamp} ${symbol}`, slim);
  }
  return [...rows.values()].sort((one, other) => one.timestamp - other.timestamp);
}

/** The SAR rows as they are written: from where up to where, and how often one came late. */
interface SarProgress {
  first: number;
  last: number;
  corrections: number;
}

function sarProgress(dataDir: string): SarProgress | null {
  const { data } = SERIES_STATE.safeParse(readJson(join(dataDir, 'state', 'series-sar_slope.json')));
  if (data === undefined || data.first_slot === null || data.last_slot === null) return null;
  return { first: data.first_slot, last: data.last_slot, corrections: data.corrections };
}

export class EscapeCalculator implements DeskWork {
  private evaluation: Evaluation | null = null;
  /** Corrections of SAR rows that are in what was evaluated; null: not looked for yet. */
  private corrections: number | null = null;

  private constructor(
    private readonly context: DeskContext,
    private readonly series: Series,
  ) {}

  static async open(context: DeskContext): Promise<EscapeCalculator> {
    const { config, log, clock } = context;
    const { dataDir, seriesDays } = config;
    const plan = { name: 'escape_signal', file: ESCAPE_FILE, cadenceMs: MINUTE_MS, delayMs: CANDLE_MS };
    const catchUpSlots = (seriesDays * DAY_MS) / MINUTE_MS;
    return new EscapeCalculator(context, await Series.open(dataDir, { ...plan, catchUpSlots }, clock, log));
  }

  async turn(stop: AbortSignal): Promise<string[]> {
    const { dataDir } = this.context.config;
    const sar = sarProgress(dataDir);
    if (sar === null) {
      this.series.ran(false, 'no SAR rows yet: sar_slope_collector.ts writes them');
      return [];
    }
    const { last } = sar;
    this.series.beginAt(sar.first);
    await this.correct(sar);
    // Minutes up to the next candle, of which nothing is known before it is over.
    const until = last + 2 * CANDLE_MS - 1;
    const due = this.series.due(Math.min(until, this.context.clock()));
    if (due.length > 0) {
      // A slot that had been left out wants what was before it.
      if (this.evaluation === null || due[0]! <= (this.series.state.last_slot ?? 0))
        this.evaluation = new Evaluation(this.file, this.context.config.escapeThreshold, due[0]!);
      await this.evaluation.follow(last);
    }
    const { evaluation } = this;
    const failed = await this.series.turn(async (minute) => evaluation!.of(minute), stop, until);
    if (failed.length > 0) {
      this.evaluation = null;
      return [this.series.state.error ?? `${failed.length} minutes`];
    }
    const wanted = this.series.due(this.context.clock()).length;
    // The collector needs its time, too: what lacks a candle's length is late.
    if (wanted > (2 * CANDLE_MS) / MINUTE_MS) {
      // Not for want of trying: the next turn need not wait.
      this.series.ran(false, `${wanted} minutes wait for SAR rows, which end at ${new Date(last).toISOString()}`);
    }
    return [];
  }

  async close(): Promise<void> {
    await this.series.close();
  }

  private get file(): string {
    return join(this.context.config.dataDir, SAR_FILE);
  }

  /** Where SAR rows came late, the minutes that they change are told again. */
  private async correct({ last: newest, corrections }: SarProgress): Promise<void> {
    const { first_slot: first, last_slot: last } = this.series.state;
    if (corrections === this.corrections || first === null || last === null) {
      this.corrections ??= first === null ? corrections : null;
      return;
    }
    let from = Number.POSITIVE_INFINITY;
    const oldest = this.context.clock() - MEMORY_MS - DAY_MS;
    for await (const record of recordsOf(this.file, Math.max(oldest, first - DAY_MS)))
      if (record.correction === true) from = Math.max(first, Math.min(from, record.slot));
    this.corrections = corrections;
    if (from > last) return;
    this.evaluation = null;
    const told = new Map<string, string>();
    for await (const { correction, ...record } of recordsOf(join(this.context.config.dataDir, ESCAPE_FILE), from))
      told.set(`${record.slot} ${record.rule}`, JSON.stringify(record));
    const again = await new Evaluation(this.file, this.context.config.escapeThreshold, from).follow(newest);
    let changed = 0;
    for (let minute = from; minute <= last; minute += MINUTE_MS) {
      const records = again.of(minute);
      if (records.every((record) => told.get(`${minute} ${record.rule}`) === JSON.stringify(record))) continue;
      if (this.series.state.missing.includes(minute)) continue;
      this.series.correct(minute, records);
      changed += 1;
    }
    if (changed > 0)
      this.context.log.info({ event: 'corrected', minutes: changed, from: new Date(from).toISOString() });
  }
}

/** Writes the records of minutes from `from` to before `to` (ms) to standard output. */
async function printHistory(from: number, to: number): Promise<number> {
  const { dataDir, escapeThreshold } = loadConfig();
  const sar = sarProgress(dataDir);
  if (sar === null) throw new UsageError(`--from: no SAR rows in ${dataDir}: sar_slope_collector.ts writes them`);
  const first = Math.ceil(from / MINUTE_MS) * MINUTE_MS;
  const evaluation = await new Evaluation(join(dataDir, SAR_FILE), escapeThreshold, first).follow(sar.last);
  const end = Math.min(to, sar.last + CANDLE_MS);
  for (let minute = first; minute < end; minute += MINUTE_MS) {
    const lines = evaluation.of(minute).map((record) => `${JSON.stringify(record)}\n`);
    if (!process.stdout.write(lines.join(''))) await new Promise((done) => process.stdout.once('drain', done));
  }
  return 0;
}

/** Records of all minutes from the first row's to the last one's. Rows come by time. */
function convertStdin(): Promise<number> {
  const model = new EscapeModel(loadConfig().escapeThreshold);
  let minute: number | null = null;
  function* upTo(end: number): Generator<EscapeRow> {
    for (; minute !== null && minute < end; minute += MINUTE_MS) yield* model.evaluate(minute);
  }
  function* take(row: EscapeInput): Generator<EscapeRow> {
    const own = Math.floor(row.timestamp / MINUTE_MS) * MINUTE_MS;
    if (minute !== null && own < minute)
      throw new Error(`${row.symbol} ${row.timestamp}: rows come in the order of time`);
    minute ??= own;
    yield* upTo(own);
    model.add(row);
  }
  return transformStdin(INPUT, take, () => upTo((minute ?? 0) + MINUTE_MS));
}

async function main(): Promise<number> {
  const options = flags(USAGE, {
    once: { type: 'boolean', default: false },
    stdin: { type: 'boolean', default: false },
    from: { type: 'string' },
    to: { type: 'string' },
  });
  if (options.stdin) return convertStdin();
  if (options.from !== undefined || options.to !== undefined) {
    if (options.from === undefined || options.to === undefined) throw new UsageError('--from and --to come together');
    return printHistory(moment('--from', options.from), moment('--to', options.to));
  }
  return runDesk('escape_signal_calc', options.once, (context) => EscapeCalculator.open(context));
}

runAsScript(import.meta.url, main);
