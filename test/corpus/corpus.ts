const USAGE = `
corpus.ts: seeds one defect after the other into a pipeline that goes on, asks integrity.ts for one quick round, mends it, and counts what was found.

Usage:   npm run test:corpus -- [--only NAME,…] [--clean 30m] [--report FILE]
Example: npm run test:corpus -- --only duplicates,zero_price --clean 1m

Flags:
  --only NAME,…   these defects only
  --clean TIME    afterwards, monitor.ts runs this long over clean data, and must tell nobody anything (default 30m; 0: not at all)
  --report FILE   the figures as JSON

Of each defect it is written down which checks must find it, as what, and how bad that is. A finding that is written down is right, any other one is wrong
(precision), and one that is written down and not found is missed (recall). Afterwards the defect is repaired, and a round must find nothing.
Exit code: 0 when nothing was missed, nothing was wrong, all was mended, and the clean time was quiet; else 1.
`;

import { spawn } from 'node:child_process';
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Finding, severityOfCompleteness } from '../../scripts/lib/checks/check.ts';
import type { Kind } from '../../scripts/lib/checks/kinds.ts';
import { duration, flags, runAsScript, UsageError } from '../../scripts/lib/cli.ts';
import { freePort } from '../../scripts/lib/free_port.ts';
import { createLogger } from '../../scripts/lib/log.ts';
import type { ShownRound } from '../../scripts/lib/monitor.ts';
import { pause } from '../../scripts/lib/pause.ts';
import { Child, scriptPlan, waitFor } from '../../scripts/lib/processes.ts';
import { EXCHANGES } from '../../scripts/lib/rows.ts';
import { Series, type SeriesPlan } from '../../scripts/lib/series.ts';
import { textTable } from '../../scripts/lib/status.ts';
import { Pipeline, READY_MS } from '../pipeline.ts';

const MINUTE_MS = 60_000;
/** A stream is silent after five minutes; the round that looks for it takes its time. */
const SILENT_MS = 7 * MINUTE_MS;
const SILENT_ENOUGH_MS = 1.5 * MINUTE_MS;
/** A repair through the broker, and rows that are fetched anew, take their time. */
const MENDED_MS = 3 * MINUTE_MS;
const BTC = "exchange = 'binance_spot' AND symbol = 'BTC-USDT'";
const SERIES: SeriesPlan = { name: 'corpus', file: 'corpus/corpus.jsonl', cadenceMs: MINUTE_MS, catchUpSlots: 60 };
const HOT = 'marketprism_hot';
const COLD = 'marketprism_cold';

interface Expected {
  check: string;
  kind: Kind;
  subject: RegExp;
  /** Absent: as the completeness that the finding tells has it. */
  severity?: Finding['severity'];
  /** It may be found, too, as it follows from the defect; whether it does depends on what else is there. */
  isOptional?: boolean;
}

interface Defect {
  name: string;
  what: string;
  seed(stage: Stage): Promise<unknown>;
  expected: Expected[];
  repair(stage: Stage): Promise<unknown>;
}

interface Told {
  check: string;
  kind: string;
  subject: string;
  severity: Finding['severity'];
  what: string;
}

interface Figures {
  defect: string;
  found: number;
  wrong: Told[];
  missed: string[];
  /** s, of the round that looked for it. */
  seconds: number;
  mended: boolean;
}

class Stage {
  readonly pipeline = new Pipeline({ MARKETPRISM_EXCHANGES: EXCHANGES.join(','), MARKETPRISM_GAP_AGE: '10s' });

  async start(): Promise<void> {
    const { pipeline } = this;
    await pipeline.startAll();
    await waitFor('two thousand trades of a stream in cold', 10 * MINUTE_MS, async () => {
      const query = `SELECT count() FROM ${COLD}.trades WHERE ${BTC}`;
      return Number((await pipeline.query(query))[0]![0]) > 2000;
    });
  }

  run = (query: string) => this.pipeline.client().command({ query });

  /** One row under a name of its own. */
  strange = (table: string, replaced: string) =>
    this.run(
      `INSERT INTO ${table} SELECT * REPLACE(${replaced}) FROM (SELECT * FROM ${table} WHERE ${BTC} ORDER BY timestamp DESC LIMIT 1)`,
    );

  /** Ids of trades that are old enough to be judged, the oldest first. */
  async oldTrades(count: number): Promise<string> {
    const query = `SELECT trade_id FROM ${HOT}.trades WHERE ${BTC} AND created_at < now64(3) - INTERVAL 70 SECOND ORDER BY toUInt64OrZero(trade_id) LIMIT ${count} OFFSET 100`;
    const ids = (await this.pipeline.query(query)).map(([id]) => `'${id}'`);
    if (ids.length < count) throw new Error(`only ${ids.length} trades are old enough`);
    return ids.join(', ');
  }

  /** Of rows that are replicated, whenever it is called within one defect. */
  shiftUnit(database: string) {
    // To the minute, so that hot and cold are changed alike.
    const until = (Math.floor(Date.now() / MINUTE_MS) - 2) * 60;
    return this.run(
      `ALTER TABLE ${database}.trades UPDATE quantity = quantity * 10 WHERE exchange = 'okx_derivatives' AND symbol = 'ETH-USDT' AND timestamp < toDateTime64(${until}, 3, 'UTC') SETTINGS mutations_sync = 2`,
    );
  }

  async repair(...args: string[]): Promise<void> {
    const { code, output } = await this.script('repair', ['--apply', ...args]);
    if (code !== 0) throw new Error(`repair.ts ${args.join(' ')} exited with ${code}: ${output}`);
  }

  /** What a quick round tells, hints apart. */
  async findings(): Promise<Told[]> {
    const { output } = await this.script('integrity', ['--quick', '--json']);
    const lines = output.trim().split('\n').slice(0, -1);
    return lines
      .map((line) => JSON.parse(line) as { name: string; verdict: string; figure: string; findings: Finding[] })
      .flatMap(({ name, verdict, figure, findings }): Told[] => {
        if (verdict === 'unchecked')
          return [{ check: name, kind: 'unchecked', subject: name, severity: 'high', what: figure }];
        return findings
          .filter(({ severity }) => severity !== 'hint')
          .map(({ kind, subject, severity, what }) => ({ check: name, kind, subject, severity, what }));
      });
  }

  private async script(name: string, args: string[]): Promise<{ code: number | null; output: string }> {
    const path = join(import.meta.dirname, '..', '..', 'scripts', `${name}.ts`);
    const child = spawn(process.execPath, ['--import', 'tsx', path, ...args], { env: this.pipeline.operatorEnv });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk));
    const code = await new Promise<number | null>((done) => child.once('close', done));
    return { code, output };
  }

  get seriesFile(): string {
    return join(this.pipeline.dir, SERIES.file);
  }

  /** Writes the last ten minutes of a series, as far as they are not there, as its script would at its turn. */
  async writeSeries(): Promise<void> {
    const series = await Series.open(this.pipeline.dir, SERIES, Date.now, createLogger('corpus', 'silent'));
    const { state } = series;
    const now = Math.floor(Date.now() / MINUTE_MS) * MINUTE_MS;
    for (let slot = now - 10 * MINUTE_MS; slot <= now; slot += MINUTE_MS) {
      const isThere = state.last_slot !== null && slot <= state.last_slot && !state.missing.includes(slot);
      if (!isThere) series.write(slot, [{ value: slot / MINUTE_MS }]);
    }
    await series.close();
  }

  /** It would be silent from now on. */
  forgetSeries(): void {
    rmSync(join(this.pipeline.dir, 'corpus'), { recursive: true, force: true });
    rmSync(join(this.pipeline.dir, 'state', `series-${SERIES.name}.json`), { force: true });
  }
}

const missingInCold = (subject: RegExp): Expected => ({
  ...{ check: 'hot against cold', kind: 'missing_in_cold', subject },
});

/** As much as half of it off is another unit, or as bad. */
const otherVolume = (subject: RegExp): Expected => ({ check: 'candles', kind: 'other_volume', subject });

export const DEFECTS: Defect[] = [
  {
    name: 'deleted_hot',
    what: '500 trades deleted from hot',
    seed: async (stage) =>
      stage.run(`DELETE FROM ${HOT}.trades WHERE ${BTC} AND trade_id IN (${await stage.oldTrades(500)})`),
    expected: [
      { check: 'continuity', kind: 'undeclared', subject: /^trade binance_spot spot BTC-USDT$/ },
      {
        check: 'hot against cold',
        kind: 'missing_in_hot',
        subject: /^trade binance_spot spot BTC-USDT$/,
      },
      {
        check: 'completeness',
        kind: 'incomplete',
        subject: /^trade binance_spot spot$/,
        isOptional: true,
      },
      { ...otherVolume(/^trade binance_spot spot BTC-USDT$/), isOptional: true },
    ],
    repair: (stage) => stage.repair('--only', 'missing-in-hot'),
  },
  {
    name: 'deleted_cold',
    what: 'a window of time deleted from cold',
    seed: async (stage) =>
      stage.run(`DELETE FROM ${COLD}.trades WHERE ${BTC} AND trade_id IN (${await stage.oldTrades(400)})`),
    expected: [missingInCold(/^trade binance_spot spot BTC-USDT$/)],
    repair: (stage) => stage.repair('--only', 'missing-in-cold'),
  },
  {
    name: 'duplicates',
    what: 'seven trades twice in hot',
    seed: async (stage) =>
      stage.run(
        `INSERT INTO ${HOT}.trades SELECT * FROM ${HOT}.trades WHERE ${BTC} AND trade_id IN (${await stage.oldTrades(7)})`,
      ),
    expected: [
      {
        check: 'duplicates',
        kind: 'doubled_in_hot',
        subject: /^trade binance_spot spot BTC-USDT$/,
        severity: 'high',
      },
      missingInCold(/^trade binance_spot spot BTC-USDT$/),
    ],
    repair: (stage) => stage.repair('--only', 'duplicates'),
  },
  {
    name: 'crossed_book',
    what: 'a book whose best bid is above its best ask',
    seed: (stage) =>
      stage.strange(
        `${HOT}.orderbooks`,
        'best_ask_price AS best_bid_price, best_bid_price AS best_ask_price, 7 AS last_update_id',
      ),
    expected: [
      { check: 'values', kind: 'crossed_book', subject: /^orderbook binance_spot spot BTC-USDT$/, severity: 'high' },
      { ...missingInCold(/^orderbook binance_spot spot BTC-USDT$/), isOptional: true },
    ],
    repair: (stage) => stage.repair('--only', 'impossible'),
  },
  {
    name: 'zero_price',
    what: 'a trade at a price of zero',
    seed: (stage) => stage.strange(`${HOT}.trades`, "0 AS price, 'zero' AS trade_id"),
    expected: [
      { check: 'values', kind: 'zero_price', subject: /^trade binance_spot spot BTC-USDT$/, severity: 'high' },
      { check: 'values', kind: 'far_price', subject: /^trade binance_spot spot BTC-USDT$/, severity: 'medium' },
      { ...missingInCold(/^trade binance_spot spot BTC-USDT$/), isOptional: true },
    ],
    repair: (stage) => stage.repair('--only', 'impossible'),
  },
  {
    name: 'future_time',
    what: 'a trade whose time is two hours ahead',
    seed: (stage) => stage.strange(`${HOT}.trades`, "timestamp + INTERVAL 2 HOUR AS timestamp, 'future' AS trade_id"),
    expected: [
      { check: 'values', kind: 'future_time', subject: /^trade binance_spot spot BTC-USDT$/, severity: 'high' },
    ],
    repair: (stage) =>
      stage.repair(
        '--only',
        'impossible',
        '--to',
        new Date(Date.now() + 4 * 3_600_000).toISOString(),
        '--from',
        new Date(Date.now() - 3_600_000).toISOString(),
      ),
  },
  {
    name: 'zero_column',
    what: 'a column of ratios set to zero',
    seed: (stage) =>
      stage.run(
        `ALTER TABLE ${HOT}.lsr_all_accounts UPDATE long_short_ratio = 0 WHERE symbol = 'BTC-USDT' SETTINGS mutations_sync = 2`,
      ),
    expected: [
      { check: 'values', kind: 'zero_column', subject: /^lsr_all_account \w+ perpetual BTC-USDT$/, severity: 'high' },
      {
        check: 'hot against cold',
        kind: 'other_values',
        subject: /^lsr_all_account \w+ perpetual BTC-USDT$/,
        severity: 'high',
      },
    ],
    repair: (stage) => stage.repair('--only', 'different'),
  },
  {
    name: 'unit_shift',
    what: 'quantities in contracts instead of coins (ctVal 0.1) in hot',
    seed: (stage) => stage.shiftUnit(HOT),
    expected: [
      {
        ...{ check: 'hot against cold', kind: 'other_values' },
        ...{ subject: /^trade okx_derivatives perpetual ETH-USDT$/, severity: 'high' },
      },
      otherVolume(/^trade okx_derivatives perpetual ETH-USDT$/),
    ],
    repair: (stage) => stage.repair('--only', 'different', '--trust', 'cold'),
  },
  {
    name: 'unit_shift_both',
    what: 'the same in hot and in cold',
    seed: async (stage) => {
      await stage.shiftUnit(HOT);
      await stage.shiftUnit(COLD);
    },
    expected: [otherVolume(/^trade okx_derivatives perpetual ETH-USDT$/)],
    repair: (stage) =>
      stage.repair('--only', 'refetch', '--exchange', 'okx_derivatives', '--symbol', 'ETH-USDT', '--wait', '120s'),
  },
  {
    name: 'stopped_replicate',
    what: 'replicate.ts stopped',
    seed: (stage) => stage.pipeline.stop('replicate'),
    expected: [{ check: 'services', kind: 'down', subject: /^replicate$/, severity: 'critical' }],
    repair: (stage) => stage.pipeline.startReplicate(),
  },
  {
    name: 'bad_letter',
    what: 'a deadletter file with a torn line',
    seed: async ({ pipeline }) => {
      const directory = join(pipeline.dir, 'deadletter', 'trade');
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, '2026-01-01.ndjson'), '{"at":"2026-01-01T00:00:00.000Z","reas\n');
    },
    expected: [{ check: 'dead letters', kind: 'bad_lines', subject: /2026-01-01\.ndjson$/, severity: 'high' }],
    repair: (stage) => stage.repair('--only', 'dead-letters'),
  },
  {
    name: 'torn_line',
    what: 'a series whose last line has no end',
    seed: async (stage) => {
      await stage.writeSeries();
      appendFileSync(stage.seriesFile, '{"slot":17');
    },
    expected: [
      { check: 'series', kind: 'torn', subject: /^corpus$/, severity: 'medium' },
      { check: 'series', kind: 'bad_lines', subject: /^corpus$/, severity: 'medium' },
    ],
    // Its writer puts it aside at its start.
    repair: (stage) => stage.writeSeries(),
  },
  {
    name: 'dropped_slot',
    what: 'a series that lacks a slot',
    seed: async (stage) => {
      await stage.writeSeries();
      const lines = readFileSync(stage.seriesFile, 'utf8').trimEnd().split('\n');
      lines.splice(-4, 1);
      writeFileSync(stage.seriesFile, `${lines.join('\n')}\n`);
    },
    expected: [{ check: 'series', kind: 'missing_slots', subject: /^corpus$/, severity: 'medium' }],
    // Its writer computes it at its next turn.
    repair: (stage) => stage.writeSeries(),
  },
  {
    name: 'silent_exchange',
    what: 'Binance spot sends nothing any more',
    seed: async ({ pipeline }) => {
      for (const symbol of ['BTC-USDT', 'ETH-USDT'])
        for (const data_type of ['trade', 'orderbook_update'])
          await pipeline.simulate({
            action: 'silence',
            exchange: 'binance_spot',
            symbol,
            data_type,
            seconds: SILENT_MS / 1000,
          });
      // It is still silent while the round looks.
      await pause(SILENT_MS - SILENT_ENOUGH_MS);
    },
    expected: [
      { check: 'freshness', kind: 'silent', subject: /^trade binance_spot spot (BTC|ETH)-USDT$/, severity: 'high' },
      {
        check: 'freshness',
        kind: 'silent',
        subject: /^orderbook binance_spot spot (BTC|ETH)-USDT$/,
        severity: 'high',
      },
      {
        check: 'freshness',
        kind: 'silent',
        subject: /^orderbook_update binance_spot spot (BTC|ETH)-USDT$/,
        severity: 'high',
      },
      // It trades on, and its candles say so.
      otherVolume(/^trade binance_spot spot (BTC|ETH)-USDT$/),
      { check: 'services', kind: 'unwell', subject: /^collector$/, severity: 'high' },
    ],
    // The venue speaks again by itself, and what it traded meanwhile is fetched from its history.
    repair: () => pause(SILENT_ENOUGH_MS),
  },
];

/** Waits until a round finds nothing. */
async function isClean(stage: Stage): Promise<boolean> {
  const deadline = Date.now() + MENDED_MS;
  for (;;) {
    const found = await stage.findings();
    if (found.length === 0) return true;
    if (Date.now() > deadline) {
      for (const each of found) process.stdout.write(`  left: ${line(each)}\n`);
      return false;
    }
    await pause(5000);
  }
}

const line = ({ check, severity, kind, subject, what }: Told) => `${check} ${severity} ${kind} ${subject}: ${what}`;

/** How bad a finding is by the figures that it tells; null where it tells none. */
function severityTold(what: string): Finding['severity'] | null {
  const lacking = /lacks (\d+) of (\d+) rows/.exec(what);
  if (lacking) return severityOfCompleteness(100 - (100 * Number(lacking[1])) / Number(lacking[2]));
  const percent = /^(\d+\.\d) %:/.exec(what);
  if (percent) return severityOfCompleteness(Number(percent[1]));
  const volumes = /^(\S+) traded by our rows, (\S+) by the venue/.exec(what);
  if (volumes) return Math.abs(Number(volumes[1]) / Number(volumes[2]) - 1) > 0.5 ? 'high' : 'medium';
  return null;
}

/** @param found all of the same round: a hole does not tell how much there is beside it, what cold has more of the same stream does */
export function fits(told: Told, { check, kind, subject, severity }: Expected, found: readonly Told[]): boolean {
  if (told.check !== check || told.kind !== kind || !subject.test(told.subject)) return false;
  const beside = found.find((each) => each.kind === 'missing_in_hot' && each.subject === told.subject);
  const figures = kind === 'undeclared' ? (beside?.what ?? '') : told.what;
  return told.severity === (severity ?? severityTold(figures));
}

async function judge(stage: Stage, defect: Defect): Promise<Figures> {
  await defect.seed(stage);
  const begun = performance.now();
  const found = await stage.findings();
  const seconds = (performance.now() - begun) / 1000;
  const wrong = found.filter((told) => !defect.expected.some((each) => fits(told, each, found)));
  const missed = defect.expected.filter((each) => !each.isOptional && !found.some((told) => fits(told, each, found)));
  for (const told of found) process.stdout.write(`  ${wrong.includes(told) ? 'WRONG ' : ''}${line(told)}\n`);
  for (const { check, kind, subject } of missed) process.stdout.write(`  MISSED ${check} ${kind} ${subject}\n`);
  await defect.repair(stage);
  const mended = await isClean(stage);
  stage.forgetSeries();
  return {
    ...{ defect: defect.name, found: found.length - wrong.length, wrong, seconds, mended },
    missed: missed.map(({ check, kind }) => `${check} ${kind}`),
  };
}

/** What a monitor tells people within this time. */
async function quietFor(stage: Stage, ms: number): Promise<{ rounds: number; alerts: string[] }> {
  const { pipeline } = stage;
  const port = await freePort();
  const env = {
    ...pipeline.operatorEnv,
    MONITOR_HTTP_PORT: String(port),
    HEALTH_GRACE_SECONDS: '0',
    MARKETPRISM_API_TOKEN: 'a-token-of-corpus',
  };
  const monitor = new Child(scriptPlan('monitor', [], env, pipeline.logDir), () => false);
  monitor.start();
  const base = `http://127.0.0.1:${port}/api/monitoring`;
  await waitFor('the monitor', READY_MS, async () => (await fetch(`${base}/health`).catch(() => null))?.ok === true);
  const until = Date.now() + ms;
  const authorization = 'Bearer a-token-of-corpus';
  let rounds = 0;
  while (Date.now() < until) {
    const answer = await fetch(`${base}/data-consistency/check`, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json' },
      body: JSON.stringify({ type: rounds % 4 === 3 ? 'full' : 'quick' }),
    });
    const round = (await answer.json()) as ShownRound;
    rounds += 1;
    process.stdout.write(
      `  ${round.began} ${round.type}: ${round.status}, ${round.news.length} news, completeness ${round.completeness}\n`,
    );
    await pause(Math.min(60_000, Math.max(until - Date.now(), 0)));
  }
  const alerts = readFileSync(join(pipeline.dir, 'alerts', 'alerts.jsonl'), 'utf8')
    .split('\n')
    .filter((each) => each !== '');
  await monitor.stop();
  return { rounds, alerts };
}

async function main(): Promise<number> {
  const given = flags(USAGE, {
    only: { type: 'string' },
    clean: { type: 'string', default: '30m' },
    report: { type: 'string' },
  });
  const names = given.only?.split(',') ?? DEFECTS.map(({ name }) => name);
  const unknown = names.find((name) => !DEFECTS.some((each) => each.name === name));
  if (unknown !== undefined)
    throw new UsageError(`--only: no defect ${unknown}; there are ${DEFECTS.map(({ name }) => name).join(', ')}`);
  const cleanMs = duration('--clean', given.clean);
  const stage = new Stage();
  const figures: Figures[] = [];
  let quiet: Awaited<ReturnType<typeof quietFor>> | null = null;
  try {
    await stage.start();
    process.stdout.write('before any defect\n');
    if (!(await isClean(stage))) throw new Error('the data is not clean before any defect');
    for (const defect of DEFECTS.filter(({ name }) => names.includes(name))) {
      process.stdout.write(`${defect.name}: ${defect.what}\n`);
      figures.push(await judge(stage, defect));
    }
    if (cleanMs > 0) {
      process.stdout.write(`clean data for ${given.clean}\n`);
      quiet = await quietFor(stage, cleanMs);
    }
  } finally {
    await stage.pipeline.close();
  }
  const percent = (part: number, whole: number) => (whole === 0 ? '-' : `${Math.round((100 * part) / whole)} %`);
  const rows = figures.map(({ defect, found, wrong, missed, seconds, mended }) => [
    ...[defect, String(found), percent(found, found + wrong.length), percent(found, found + missed.length)],
    ...[`${seconds.toFixed(1)} s`, mended ? 'yes' : 'NO'],
  ]);
  process.stdout.write(`\n${textTable(['defect', 'found', 'precision', 'recall', 'round', 'mended'], rows, 1)}\n`);
  if (quiet !== null) process.stdout.write(`\nclean data: ${quiet.rounds} rounds, ${quiet.alerts.length} alerts\n`);
  if (given.report !== undefined) writeFileSync(given.report, JSON.stringify({ figures, quiet }, null, 1));
  const isGood = figures.every(({ wrong, missed, mended }) => wrong.length + missed.length === 0 && mended);
  return isGood && (quiet === null || quiet.alerts.length === 0) ? 0 : 1;
}

runAsScript(import.meta.url, main);
