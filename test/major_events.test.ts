/** Major events: the five rules and their near misses, a state that can be put away at any minute, inputs that come late, and people told once. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { loadConfig } from '../scripts/lib/config.ts';
import { beijingText } from '../scripts/lib/desk/beijing.ts';
import {
  FRESH_STATE,
  MAJOR_LIMITS,
  type MajorEvent,
  MINUTE_MS as MINUTE,
  READING,
  type Reading,
  RULE_STATE,
  type RuleState,
  step,
} from '../scripts/lib/desk/major_events.ts';
import type { InputName } from '../scripts/lib/desk/major_inputs.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { createLogger } from '../scripts/lib/log.ts';
import { Child, type ChildExit, scriptPlan, waitFor } from '../scripts/lib/processes.ts';
import { Series, type SeriesPlan } from '../scripts/lib/series.ts';
import { MajorEventsMonitor } from '../scripts/major_events_monitor.ts';

const HOUR = 60 * MINUTE;
const T0 = Date.UTC(2026, 10, 24);
const LIMITS = MAJOR_LIMITS.parse({});
const NEVER = new AbortController().signal;
const LOG = createLogger('test', 'silent');
const READY_MS = 60_000;
const ROOT = join(import.meta.dirname, '..');
const SCRIPT = join(ROOT, 'scripts', 'major_events_monitor.ts');
const root = mkdtempSync(join(tmpdir(), 'marketprism-events-'));
after(() => rmSync(root, { recursive: true, force: true }));

type Given = Partial<Omit<Reading, 'minute'>>;

/** Minutes one after the other from T0 on, or, with a number before, so many minutes after T0. */
function readings(...given: (Given | [at: number, Given])[]): Reading[] {
  let at = -1;
  return given.map((each) => {
    const [next, figures] = Array.isArray(each) ? each : [at + 1, each];
    at = next;
    return READING.parse({ minute: T0 + at * MINUTE, ...figures });
  });
}

function judge(all: readonly Reading[], limits = LIMITS, keep = (state: RuleState) => state): MajorEvent[] {
  let state = FRESH_STATE;
  return all.flatMap((reading) => {
    const judged = step(state, reading, limits);
    state = keep(judged.state);
    return judged.events;
  });
}

/** Events as `NAME@MINUTE`. */
const short = (events: readonly MajorEvent[]) =>
  events.map(({ event, minute }) => `${event}@${(minute - T0) / MINUTE}`).join(' ');
const told = (...given: Parameters<typeof readings>) => short(judge(readings(...given)));
const top = (signal_2h_count: number, total_change: number | null = 5): Given => ({ signal_2h_count, total_change });
const hit = (price: number | null, liquidation_1h: number | null = 12_000_000): Given => ({ price, liquidation_1h });
const shorts = (loss: number, gte_120: number): Given => ({ anchor: { loss, gte_120 } });

describe('the rules', () => {
  test('E1: a strong top that comes down while the coins are up is told once', () => {
    const events = judge(readings(top(11), top(12), top(14), top(13), top(9), top(8), top(7)));
    assert.equal(short(events), 'E1@4');
    const [event] = events as [MajorEvent];
    assert.deepEqual(event, {
      id: `E1-${T0 + 4 * MINUTE}`,
      event: 'E1',
      name: 'strong top',
      name_zh: '强势见顶',
      minute: T0 + 4 * MINUTE,
      time: '2026-11-24 08:04:00',
      action: 'open short',
      severity: 'high',
      values: {
        ...{ signal_2h_count: 9, total_change: 5, top_count: 14, top_minute: T0 + 3 * MINUTE },
        ...{ strong_top_count: 12, strong_low_count: 2 },
      },
      rule_version: 1,
      text: 'Strong top: 14 escape signals in 2 h (last at 11-24 08:03), now 9, while the coins are up 5 % in sum: open short.',
      text_zh: '强势见顶：2 小时逃顶信号曾达 14（最后于 11-24 08:03），现为 9，币种涨跌幅总和 +5%：开空。',
    });
  });

  test('E1 waits for the coins to be up, for ten hours from the last strong reading', () => {
    assert.equal(told(top(12), top(9, -1), top(8, 0), top(7, null), top(6, 0.1)), 'E1@4');
    assert.equal(told(top(12), top(1), top(0), [600, top(2)]), 'E1@600');
    assert.equal(told(top(12), top(1), [601, top(2)]), '');
    assert.equal(told(top(12), [300, top(12)], [900, top(2)]), 'E1@900');
  });

  test('E1 is none: below the strong count, below the low one, or still on top', () => {
    assert.equal(told(top(1), top(11), top(12), top(12)), '');
    assert.equal(told(top(12), top(1), top(1)), '');
    assert.equal(told(top(12), { total_change: 5 }, { signal_2h_count: 9 }), '');
    assert.equal(told(top(12), top(9), [62, top(8)], [124, top(7)]), 'E1@1', 'told already');
  });

  test('E2: a weak top and then a lower reading that is not 0', () => {
    const events = judge(readings(top(0), top(4), top(6), top(6), top(5)));
    assert.equal(short(events), 'E2@4');
    assert.deepEqual(events[0]!.values, {
      ...{ signal_2h_count: 5, top_count: 6, top_minute: T0 + 3 * MINUTE },
      ...{ weak_top_count: 4, strong_top_count: 12 },
    });
    assert.equal(told(top(4), top(0), top(0), [600, top(1)]), 'E2@600');
  });

  test('E2 is none: too low a top, a fall to 0, too late, or what became or came down from a strong top', () => {
    assert.equal(told(top(1), top(3), top(2)), '');
    assert.equal(told(top(5), top(0), top(0)), '');
    assert.equal(told(top(5), top(0), [601, top(3)]), '');
    assert.equal(told(top(5, 0), top(11, 0), top(12, 0), top(9, 0), top(8, 0), top(7, 0)), '');
  });

  test('E2 tells one top once: what goes on coming down is no further one, a rise is', () => {
    const down = [8, 7, 6, 5, 4].map((count, i): [number, Given] => [i * 61, top(count)]);
    assert.equal(told(...down), 'E2@61');
    assert.equal(told(...down, [300, top(6)], [301, top(5)]), 'E2@61 E2@301');
  });

  test('E3: ten minutes after liquidations the price is up by the limit, to the last digit that is told', () => {
    const events = judge(readings(hit(100, 9_999_999), hit(100), [5, hit(101)], [10, hit(101.6)], [11, hit(101.5)]));
    assert.equal(short(events), 'E3@11');
    assert.deepEqual(events[0]!.values, {
      ...{ liquidation_1h: 12_000_000, trigger_minute: T0 + MINUTE, trigger_price: 100, price: 101.5 },
      ...{ change_percent: 1.5, highest_percent: 1.6 },
      ...{ liquidation_usd: 10_000_000, liquidation_minutes: 10, price_rise_percent: 1.5 },
    });
    assert.equal(told(hit(100), [10, hit(101.49996)]), 'E3@10');
    assert.equal(told(hit(100), [10, hit(101.4999)]), 'E4@10');
  });

  test('E4: the price is not up by the limit, or was and fell back', () => {
    assert.equal(told(hit(100), [10, hit(101)]), 'E4@10');
    const [event] = judge(readings(hit(100), [5, hit(103)], [10, hit(99)])) as [MajorEvent];
    assert.deepEqual(
      [event.event, event.values.change_percent, event.values.highest_percent, event.severity],
      ['E4', -1, 3, 'medium'],
    );
  });

  test('E3 and E4 are none without enough liquidations, before their time, or without a price near it', () => {
    assert.equal(told(hit(100, 9_000_000), [10, hit(110, 9_000_000)]), '');
    assert.equal(told(hit(100), [9, hit(110)]), '');
    assert.equal(told(hit(100), [10, hit(null)], [19, hit(110)]), 'E3@19');
    assert.equal(told(hit(100), [10, hit(null)], [20, hit(110)]), '');
    assert.equal(told(hit(null), hit(100), [11, hit(110)]), 'E3@11');
  });

  test('E5: shorts in profit after shorts in loss, and back, are reversals; the first colour is none', () => {
    const events = judge(readings(shorts(3, 0), shorts(0, 0), shorts(2, 3), [200, shorts(5, 1)]));
    assert.equal(short(events), 'E5@2 E5@200');
    assert.deepEqual(events[0]!.values, { from: 'green', to: 'red', loss: 2, gte_120: 3, anchor_count: 3 });
    assert.equal(events[1]!.text, 'Anchor reversal, red to green: 5 shorts are in loss: review the shorts.');
  });

  test('E5 is none: too few shorts, both colours at once, the same colour again, or no account', () => {
    assert.equal(told(shorts(3, 0), shorts(2, 2), shorts(0, 2)), '');
    assert.equal(told(shorts(3, 0), shorts(3, 3), shorts(4, 0), { anchor: null }), '');
    assert.equal(told(shorts(0, 3), shorts(3, 3), { anchor: null }, shorts(0, 4)), '');
  });

  test('the last ten changes of colour are kept, told or not', () => {
    let state = FRESH_STATE;
    for (let at = 0; at < 15; at += 1) {
      const anchor = at % 2 === 0 ? { loss: 3, gte_120: 0 } : { loss: 0, gte_120: 3 };
      ({ state } = step(state, READING.parse({ minute: T0 + at * MINUTE, anchor }), LIMITS));
    }
    assert.deepEqual(
      state.marks.map(({ minute, colour }) => [(minute - T0) / MINUTE, colour]),
      [5, 6, 7, 8, 9, 10, 11, 12, 13, 14].map((at) => [at, at % 2 === 0 ? 'green' : 'red']),
    );
  });

  test('each event rests for an hour; what still holds then is told then, and others do not wait', () => {
    const again: Parameters<typeof readings> = [top(12), top(9), [20, top(12)], [30, top(9)]];
    assert.equal(told(...again, [60, top(3)], [61, top(3)]), 'E1@1 E1@61');
    assert.equal(told(...again, [60, top(3)], [61, top(3, -1)]), 'E1@1');
    assert.equal(told(top(12), top(9), [20, top(10)], [21, top(9)]), 'E1@1 E2@21');
    const flicker: Parameters<typeof readings> = [shorts(3, 0), shorts(0, 3), [11, shorts(3, 0)]];
    assert.equal(told(...flicker, [30, shorts(0, 3)], [61, shorts(0, 3)]), 'E5@1');
    assert.equal(told(...flicker, [60, shorts(3, 0)], [61, shorts(3, 0)]), 'E5@1 E5@61');
  });

  test('one liquidation has one outcome: E3 and E4 rest together', () => {
    const minutes = Array.from({ length: 82 }, (_, at): [number, Given] => [at, hit(at < 11 ? 100 : 110)]);
    assert.equal(told(...minutes), 'E4@10 E4@80');
  });

  test('limits are the operator’s to set', () => {
    const limits = MAJOR_LIMITS.parse({ strong_top_count: 6, cooldown_minutes: 0, price_rise_percent: 5 });
    assert.equal(short(judge(readings(top(6), top(5), top(6), top(5)), limits)), 'E1@1 E1@3');
    assert.equal(short(judge(readings(hit(100), [10, hit(104)]), limits)), 'E4@10');
  });

  test('a minute is judged once', () => {
    assert.throws(() => told(top(1), [0, top(1)]), /is not later than \d+, which is judged already/);
  });

  test('a state that is written and read back after each minute decides the same', () => {
    const all = drifting(4000);
    const whole = judge(all);
    const kept = judge(all, LIMITS, (state) => RULE_STATE.parse(JSON.parse(JSON.stringify(state))));
    assert.deepEqual(kept, whole);
    const counts = ['E1', 'E2', 'E3', 'E4', 'E5'].map((name) => whole.filter(({ event }) => event === name).length);
    assert.ok(
      counts.every((count) => count >= 3),
      counts.join(),
    );
  });
});

/** A walk of all figures in which each event happens now and then; the same each time. */
function drifting(minutes: number, seed = 7): Reading[] {
  let [state, count, price, loss, gte, amount] = [seed, 0, 80_000, 0, 3, 0];
  const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
  const walk = (value: number, to: number) => Math.min(Math.max(value + Math.floor(random() * 3) - 1, 0), to);
  return Array.from({ length: minutes }, (_, at) => {
    if (at % 5 === 0) {
      [count, loss, gte] = [walk(count, 16), walk(loss, 5), walk(gte, 5)];
      price *= 1 + (random() - 0.5) * 0.06;
      amount = random() < 0.1 ? 15_000_000 : 1000;
    }
    return READING.parse({
      minute: T0 + at * MINUTE,
      signal_2h_count: random() < 0.02 ? null : count,
      total_change: random() * 10 - 4,
      liquidation_1h: random() < 0.02 ? null : amount,
      price,
      anchor: random() < 0.1 ? null : { loss, gte_120: gte },
    });
  });
}

/** Runs the script to its end. */
function run(
  args: string[],
  env: NodeJS.ProcessEnv,
  stdin = '',
): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT, ...args], {
    cwd: ROOT,
    env: { PATH: process.env.PATH, ...env },
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (out += chunk));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk));
  child.stdin.end(stdin);
  return new Promise((done) => child.once('close', (code) => done({ code, out, err })));
}

describe('major_events_monitor.ts --stdin', () => {
  const dir = mkdtempSync(join(root, 'stdin'));
  const env = { MARKETPRISM_DATA_DIR: dir };
  const linesOf = (all: readonly object[]) => all.map((each) => `${JSON.stringify(each)}\n`).join('');

  test('gives what the rules give, each of the five, as the same bytes', async () => {
    const all = readings(
      ...[top(5), top(4), top(12), top(9)],
      ...([
        [100, shorts(3, 0)],
        [101, shorts(0, 3)],
      ] as [number, Given][]),
      ...([
        [200, hit(100)],
        [210, hit(102)],
        [400, hit(100)],
        [410, hit(100.5)],
      ] as [number, Given][]),
    );
    const { code, out, err } = await run(['--stdin'], env, linesOf(all));
    assert.deepEqual([code, err, out], [0, '', linesOf(judge(all))]);
    assert.equal(short(judge(all)), 'E2@1 E1@3 E5@101 E3@210 E4@410');
  });

  test('a line that is not sound is told with its number, and the others are judged', async () => {
    const good = linesOf(readings(top(12), top(9))).split('\n');
    const { code, out, err } = await run(['--stdin'], env, [good[0], '{"minute":1}', good[0], '{', good[1]].join('\n'));
    assert.equal(code, 1);
    assert.equal(out.match(/"id":"E1-/g)?.length, 1);
    assert.match(err, /^line 2: minute: is no whole minute\nline 3: minute \d+ is not later than .*\nline 4: .*JSON/);
  });

  test('wrong limits are one line and exit 64; right ones count', async () => {
    const path = join(dir, 'state', 'major_events_limits.json');
    mkdirSync(join(dir, 'state'));
    const given: [string, RegExp][] = [
      ['{"strong_top_count":25}', /major_events_limits\.json: strong_top_count: .*: mend or remove it\n$/],
      ['{"strong_top_count":4}', /: weak_top_count: takes less than strong_top_count: mend or remove it\n$/],
      ['{"strong_top":4}', /: Unrecognized key: "strong_top": mend or remove it\n$/],
      ['{', /major_events_limits\.json: .*JSON.*: mend or remove it\n$/],
    ];
    for (const [text, expected] of given) {
      writeFileSync(path, text);
      const { code, err } = await run(['--once'], env);
      assert.deepEqual([code, err.split('\n').length], [64, 2], err);
      assert.match(err, expected);
    }
    writeFileSync(path, '{"strong_top_count":6}');
    assert.match((await run(['--stdin'], env, linesOf(readings(top(6), top(5))))).out, /"event":"E1"/);
    rmSync(path);
    const help = await run(['--help'], env);
    assert.deepEqual([help.code, help.out.startsWith('major_events_monitor.ts: ')], [0, true]);
  });
});

/** The series of the colleagues, written by the same class, from the figures of readings. */
class Desk {
  private readonly series = new Map<InputName, Series>();
  private constructor(
    readonly dir: string,
    private readonly all: readonly Reading[],
    private readonly without: readonly InputName[],
  ) {}

  static readonly PLANS: Record<InputName, Omit<SeriesPlan, 'name' | 'catchUpSlots'>> = {
    escape_signal: { file: 'escape_signal_jsonl/escape_signal_stats.jsonl', cadenceMs: MINUTE },
    coin_prices: { file: 'coin_price_tracker/coin_prices_30min.jsonl', cadenceMs: 30 * MINUTE },
    liquidation_1h: { file: 'unified/liquidation_1h.jsonl', cadenceMs: 5 * MINUTE },
    sar_slope: { file: 'sar_slope_jsonl/sar_slope_data.jsonl', cadenceMs: 5 * MINUTE, delayMs: 5 * MINUTE },
    anchor: { file: 'anchor/anchor_profit_stats.jsonl', cadenceMs: 5 * MINUTE },
  };

  static async open(dir: string, all: readonly Reading[], ...without: InputName[]): Promise<Desk> {
    const desk = new Desk(dir, all, without);
    for (const name of Object.keys(Desk.PLANS) as InputName[]) {
      if (without.includes(name)) continue;
      desk.series.set(name, await Series.open(dir, { name, catchUpSlots: 8000, ...Desk.PLANS[name] }, () => T0, LOG));
    }
    return desk;
  }

  /** Writes what can be known at the end of `minute` (after the first one), of all series or of these. */
  write(minute: number, ...names: InputName[]): void {
    const asked = names.length > 0 ? names : (Object.keys(Desk.PLANS) as InputName[]);
    for (const name of asked)
      if (!this.without.includes(name)) this.writeOne(name, this.at(0).minute + minute * MINUTE);
  }

  private writeOne(name: InputName, until: number): void {
    const series = this.series.get(name)!;
    const { cadenceMs, delayMs = 0 } = Desk.PLANS[name];
    const first = this.at(0).minute - (name === 'sar_slope' ? cadenceMs : 0);
    const slots: [number, object[]][] = [];
    for (
      let slot = (series.state.last_slot ?? first - cadenceMs) + cadenceMs;
      slot + delayMs <= until;
      slot += cadenceMs
    )
      slots.push([slot, this.records(name, slot)]);
    series.writeAll(slots);
  }

  private records(name: InputName, slot: number): object[] {
    const { signal_2h_count, total_change, liquidation_1h, anchor } = this.at(slot);
    switch (name) {
      case 'escape_signal':
        return [
          { rule: 'sar-breadth', signal_2h_count, breadth: 3 },
          { rule: 'range-position', signal_2h_count: 24, breadth: 3 },
        ];
      case 'coin_prices':
        return [{ total_change }];
      case 'liquidation_1h':
        return [{ amount: liquidation_1h }];
      case 'sar_slope':
        return [
          { symbol: 'BTC', close: this.at(slot + 5 * MINUTE).price },
          { symbol: 'ETH', close: 1 },
        ];
      case 'anchor':
        return anchor === null ? [{ stats: { short: { loss: 0, gte_120: 0 } } }] : [{ stats: { short: anchor } }];
    }
  }

  /** By its number, or its time. */
  private at(minute: number): Reading {
    const first = this.all[0]!.minute;
    return this.all[Math.min(minute < first ? minute : (minute - first) / MINUTE, this.all.length - 1)]!;
  }

  async close(): Promise<void> {
    for (const each of this.series.values()) await each.close();
  }
}

/** As readings are when each figure is the newest that its series has. */
function asSeriesTell(all: readonly Reading[], lack: readonly (keyof Reading)[] = []): Reading[] {
  return all.map((reading, at) => {
    const [five, thirty] = [all[at - (at % 5)]!, all[at - (at % 30)]!];
    const { liquidation_1h, price, anchor } = five;
    const known = { ...reading, total_change: thirty.total_change, liquidation_1h, price };
    const empty = Object.fromEntries(lack.map((each) => [each, null]));
    return { ...known, anchor: anchor ?? { loss: 0, gte_120: 0 }, ...empty };
  });
}

describe('the monitor of major events', () => {
  const ALL = drifting(1500, 59);
  let dir: string;
  let now: number;
  let desk: Desk | null = null;
  beforeEach(() => {
    dir = mkdtempSync(join(root, 'm'));
  });
  afterEach(async () => {
    await desk?.close();
    desk = null;
  });

  const open = (env: NodeJS.ProcessEnv = {}, log = LOG) =>
    MajorEventsMonitor.open({
      config: loadConfig({ MARKETPRISM_DATA_DIR: dir, ...env }),
      log,
      clock: () => now,
    });
  const eventsFile = () => join(dir, 'major_events', 'major_events.jsonl');
  const stateFile = () => join(dir, 'state', 'major_events.json');
  const written = (): MajorEvent[] =>
    existsSync(eventsFile()) && readFileSync(eventsFile(), 'utf8') !== ''
      ? readFileSync(eventsFile(), 'utf8')
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line))
      : [];
  const stored = () => JSON.parse(readFileSync(stateFile(), 'utf8'));
  /** One life of the script: it does what is due, and ends. */
  async function life(minute: number, env: NodeJS.ProcessEnv = {}): Promise<string[]> {
    now = T0 + minute * MINUTE;
    const monitor = await open(env);
    const faults = await monitor.turn(NEVER);
    await monitor.close();
    return faults;
  }

  test('judges the files minute by minute as the rules judge the readings, whether it lives or is started anew', async () => {
    desk = await Desk.open(dir, ALL);
    now = T0;
    desk.write(0);
    await life(0);
    for (const minute of [1, 2, 3, 64, 65, 66, 300, 301, 700, 701, 702, 1200, 1499]) {
      desk.write(minute);
      assert.deepEqual(await life(minute), []);
    }
    const expected = judge(asSeriesTell(ALL));
    assert.deepEqual(written(), expected);
    assert.deepEqual(new Set(expected.map(({ event }) => event)), new Set(['E1', 'E2', 'E3', 'E4', 'E5']));
    const { data_time, last_run, last_success, blind, error } = stored();
    const last = T0 + 1499 * MINUTE;
    assert.deepEqual([data_time, last_run, last_success, error], [last, last, last, null]);
    assert.deepEqual(blind, []);
  });

  test('an event whose line is there and whose state is not is not written again', async () => {
    desk = await Desk.open(dir, ALL);
    desk.write(0);
    await life(0);
    cpSync(stateFile(), join(dir, 'before.json'));
    desk.write(1499);
    await life(1499);
    const whole = written();
    assert.ok(whole.length > 10);
    cpSync(join(dir, 'before.json'), stateFile());
    await life(1499);
    assert.deepEqual(written(), whole);
    // They may not have been told, and are told once.
    assert.deepEqual(
      stored()
        .untold.map(({ id }: MajorEvent) => id)
        .sort(),
      whole
        .filter(({ minute }) => now - minute <= 24 * HOUR)
        .map(({ id }) => id)
        .sort(),
    );
  });

  test('an event whose state is there and whose line is not is written, once', async () => {
    desk = await Desk.open(dir, ALL);
    desk.write(0);
    await life(0);
    // As many minutes as are judged at once: later there is nothing else to do.
    desk.write(200);
    rmSync(eventsFile());
    mkdirSync(eventsFile());
    now = T0 + 200 * MINUTE;
    await assert.rejects(open(), /EISDIR/);
    rmdirSync(eventsFile());
    const monitor = await open();
    rmSync(eventsFile());
    mkdirSync(eventsFile());
    assert.match((await monitor.turn(NEVER)).join(), /EISDIR/);
    await monitor.close();
    const { unwritten, untold, error, last_success, data_time } = stored();
    assert.ok(unwritten.length > 0);
    assert.deepEqual(untold, unwritten);
    assert.match(error, /EISDIR/);
    assert.deepEqual([last_success, data_time], [T0, now]);
    rmdirSync(eventsFile());
    await life(200);
    assert.deepEqual(written(), judge(asSeriesTell(ALL).slice(0, 201)));
    assert.deepEqual([stored().unwritten, stored().last_success], [[], now]);
  });

  test('an event is in the state before its line is written', async () => {
    desk = await Desk.open(dir, ALL);
    desk.write(0);
    await life(0);
    desk.write(200);
    now = T0 + 200 * MINUTE;
    const seen: boolean[] = [];
    const warn = ({ event, id }: { event: string; id: string }) => {
      if (event === 'major_event') seen.push(stored().unwritten.some((each: MajorEvent) => each.id === id));
    };
    const monitor = await open({}, Object.assign(createLogger('test', 'silent'), { warn }));
    await monitor.turn(NEVER);
    await monitor.close();
    assert.deepEqual(seen, Array(written().length).fill(true));
    assert.ok(seen.length > 0);
  });

  test('killed at any moment it has each event once, in order', async () => {
    const all = drifting(8000, 3);
    mkdirSync(join(dir, 'state'), { recursive: true });
    const limits = { cooldown_minutes: 5, liquidation_minutes: 3 };
    writeFileSync(join(dir, 'state', 'major_events_limits.json'), JSON.stringify(limits));
    desk = await Desk.open(dir, all);
    desk.write(0);
    await life(0);
    desk.write(7999);
    await desk.close();
    desk = null;
    const expected = judge(asSeriesTell(all), MAJOR_LIMITS.parse(limits));
    assert.ok(expected.length > 200, `${expected.length}`);
    // At its first event, and a little later each time; the last one lives.
    const delays = [0, 3, 10, 30, 100, 300, null];
    const ends: (NodeJS.Signals | null)[] = [];
    for (const delay of delays) {
      const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT, '--once'], {
        cwd: ROOT,
        env: { PATH: process.env.PATH, MARKETPRISM_DATA_DIR: dir },
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let timer: NodeJS.Timeout | undefined;
      child.stdout.on('data', (chunk: Buffer) => {
        if (delay !== null && chunk.includes('"major_event"')) timer ??= setTimeout(() => child.kill('SIGKILL'), delay);
      });
      ends.push(await new Promise((done) => child.once('close', (_, signal) => done(signal))));
      clearTimeout(timer);
    }
    assert.deepEqual(ends, [...Array(6).fill('SIGKILL'), null]);
    assert.equal(short(written()), short(expected));
    assert.equal(JSON.stringify(written()), JSON.stringify(expected));
  });

  test('a series that stays behind is waited for, and then blinds the rules that need it, and no others', async () => {
    desk = await Desk.open(dir, ALL);
    desk.write(0);
    await life(0);
    const others: InputName[] = ['escape_signal', 'liquidation_1h', 'sar_slope', 'anchor'];
    // Of the coins there is the first slot alone, so minute 30 needs what does not come.
    desk.write(60, ...others);
    await life(60);
    assert.equal(stored().data_time, T0 + 29 * MINUTE);
    desk.write(61, ...others);
    await life(61);
    assert.equal(stored().data_time, T0 + 29 * MINUTE, 'late, and not for long enough');
    await life(66);
    assert.equal(stored().data_time, T0 + 61 * MINUTE);
    assert.deepEqual(stored().blind, [{ input: 'coin_prices', events: ['E1'], since: T0 + 36 * MINUTE, why: 'late' }]);
    desk.write(1499, ...others);
    await life(1499);
    assert.equal(stored().data_time, T0 + 1499 * MINUTE, 'one that is known to be late is not waited for again');
    const lacking = asSeriesTell(ALL).map((reading, at) => (at > 35 ? { ...reading, total_change: null } : reading));
    assert.deepEqual(written(), judge(lacking));
    assert.ok(!written().some(({ event, minute }) => event === 'E1' && minute > T0 + 35 * MINUTE));
    assert.ok(written().some(({ event }) => event === 'E2') && written().some(({ event }) => event === 'E4'));
  });

  test('after an outage of all, the one that catches up last is not taken for late', async () => {
    desk = await Desk.open(dir, ALL);
    desk.write(10);
    await life(10);
    desk.write(400, 'sar_slope');
    await life(400);
    desk.write(400, 'liquidation_1h', 'anchor', 'coin_prices');
    await life(401);
    assert.equal(stored().data_time, T0 + 10 * MINUTE);
    desk.write(400);
    await life(402);
    assert.equal(stored().data_time, T0 + 400 * MINUTE);
    assert.deepEqual(written(), judge(asSeriesTell(ALL).slice(10, 401)));
  });

  test('without an account nothing waits for it, and E5 alone is not judged', async () => {
    desk = await Desk.open(dir, ALL, 'anchor');
    desk.write(0);
    await life(0);
    desk.write(1499);
    await life(1499);
    assert.equal(stored().data_time, T0 + 1499 * MINUTE);
    assert.deepEqual(stored().blind, [{ input: 'anchor', events: ['E5'], since: T0, why: 'no records' }]);
    assert.deepEqual(written(), judge(asSeriesTell(ALL, ['anchor'])));
  });

  test('a required series that never began is given up, too', async () => {
    desk = await Desk.open(dir, ALL, 'liquidation_1h');
    desk.write(0);
    await life(0);
    desk.write(40);
    await life(40);
    assert.equal(stored().data_time, null);
    await life(46);
    assert.equal(stored().data_time, T0 + 40 * MINUTE);
    assert.deepEqual(stored().blind, [{ input: 'liquidation_1h', events: ['E3', 'E4'], since: T0, why: 'no records' }]);
  });

  test('a corrected record counts, one that is not sound is left out', async () => {
    desk = await Desk.open(dir, readings(top(12), top(9), top(8)), 'anchor');
    desk.write(2);
    await desk.close();
    const lines = readFileSync(join(dir, Desk.PLANS.escape_signal.file), 'utf8');
    const record = (minute: number, signals: unknown) =>
      `${JSON.stringify({ slot: T0 + minute * MINUTE, correction: true, rule: 'sar-breadth', signal_2h_count: signals })}\n`;
    writeFileSync(join(dir, Desk.PLANS.escape_signal.file), `${lines}${record(1, 12)}${record(2, 'many')}`);
    rmSync(stateFile(), { force: true });
    mkdirSync(join(dir, 'state'), { recursive: true });
    now = T0 + 2 * MINUTE;
    const monitor = await open();
    monitor.state.begun = T0;
    await monitor.turn(NEVER);
    await monitor.close();
    assert.deepEqual(
      written().map(({ event, values }) => [event, values.top_minute, values.signal_2h_count]),
      [['E1', T0 + MINUTE, 8]],
    );
  });

  test('a state that cannot be read is one line, and there is one writer', async () => {
    now = T0;
    const first = await open();
    await assert.rejects(open(), /major events in .* is already held/);
    await first.close();
    mkdirSync(join(dir, 'state'), { recursive: true });
    writeFileSync(stateFile(), '{"rules":');
    await assert.rejects(open(), /major_events\.json: .*JSON.*: mend or remove it/);
    writeFileSync(stateFile(), '{}');
    await assert.rejects(open(), /major_events\.json: data_time: .*: mend or remove it/);
  });
});

interface Message {
  title: string;
  text: string;
  severity: string;
  events: object[];
}

describe('people are told by monitor.ts', () => {
  const TOKEN = 'a-token-of-the-test';
  const dir = mkdtempSync(join(root, 'told'));
  const logDir = join(dir, 'logs');
  const messages: Message[] = [];
  let refuses = false;
  /** While it is closed, a message is under way for as long. */
  let gate: Promise<void> = Promise.resolve();
  const receiver = createServer((incoming, response) => {
    let text = '';
    incoming.on('data', (chunk: Buffer) => (text += chunk));
    incoming.on('end', async () => {
      if (!refuses) messages.push(JSON.parse(text));
      await gate;
      response.writeHead(refuses ? 404 : 200);
      response.end('ok');
    });
  });
  /** Before the monitor: while it is to lose answers, the monitor has them, and who asked has not. */
  let loses = false;
  let lost = 0;
  const proxy = createServer((incoming, outgoing) => {
    const onward = request(
      { host: '127.0.0.1', port: monitorPort, method: incoming.method, path: incoming.url, headers: incoming.headers },
      (answer) => {
        if (loses) {
          answer.resume();
          answer.on('end', () => {
            lost += 1;
            incoming.socket.destroy();
          });
          return;
        }
        outgoing.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(outgoing);
      },
    );
    onward.on('error', () => incoming.socket.destroy());
    incoming.pipe(onward);
  });
  const ended: ChildExit[] = [];
  let monitorPort = 0;
  let proxyPort = 0;
  let monitor: Child;
  let base = '';
  let env: NodeJS.ProcessEnv;

  before(async () => {
    await new Promise<void>((done) => receiver.listen(0, '127.0.0.1', done));
    await new Promise<void>((done) => proxy.listen(0, '127.0.0.1', done));
    proxyPort = (proxy.address() as AddressInfo).port;
    monitorPort = await freePort();
    base = `http://127.0.0.1:${monitorPort}`;
    env = {
      PATH: process.env.PATH,
      MARKETPRISM_DATA_DIR: dir,
      MARKETPRISM_API_TOKEN: TOKEN,
      MARKETPRISM_WEBHOOK_URL: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`,
      MARKETPRISM_LANG: 'zh',
      // No round in this test.
      HEALTH_GRACE_SECONDS: '86400',
    };
    await start();
  });
  after(async () => {
    await monitor.stop();
    for (const server of [receiver, proxy]) {
      server.close();
      server.closeAllConnections();
    }
  });

  async function start(): Promise<void> {
    monitor = new Child(
      scriptPlan('monitor', [], { ...env, MONITOR_HTTP_PORT: String(monitorPort) }, logDir),
      (exit) => {
        ended.push(exit);
        return false;
      },
    );
    monitor.start();
    await waitFor('the monitor', READY_MS, async () => (await fetch(`${base}/ping`).catch(() => null))?.ok === true);
  }
  async function killMonitor(): Promise<void> {
    const gone = ended.length;
    process.kill(monitor.pid!, 'SIGKILL');
    await waitFor('its death', READY_MS, async () => ended.length > gone);
  }
  async function post(body: object, token: string | null = TOKEN) {
    const answer = await fetch(`${base}/api/monitoring/events`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      },
      body: JSON.stringify(body),
    });
    return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
  }
  const EVENT = { id: 'test/1', title: 'a title', text: 'a text', severity: 'high' };
  const lines = (name: string) =>
    readFileSync(join(dir, 'alerts', name), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));

  test('an event that is posted is told once, also after a kill, and stands in alerts.jsonl', async () => {
    const first = await post(EVENT);
    assert.deepEqual(first, {
      status: 200,
      body: { id: 'test/1', told: true, duplicate: false, delivered: ['webhook'], failed: [] },
    });
    const again = { status: 200, body: { id: 'test/1', told: true, duplicate: true, delivered: [], failed: [] } };
    assert.deepEqual(await post(EVENT), again);
    await killMonitor();
    await start();
    assert.deepEqual(await post(EVENT), again);
    const [message, ...more] = messages.splice(0);
    assert.deepEqual(more, []);
    assert.match(message!.title, /^MarketPrism \S+: a title$/);
    assert.deepEqual([message!.text, message!.severity], ['a text', 'high']);
    assert.deepEqual(message!.events, [{ event: 'posted', id: 'test/1', title: 'a title', severity: 'high' }]);
    const [line, ...others] = lines('alerts.jsonl');
    assert.deepEqual(others, []);
    assert.deepEqual({ ...line, time: null }, { time: null, event: 'posted', notified: ['webhook'], ...EVENT });
  });

  test('posted twice at once it is told once', async () => {
    let release = () => {};
    gate = new Promise((done) => (release = done));
    const metrics = async () => await (await fetch(`${base}/metrics`)).text();
    const first = post({ ...EVENT, id: 'test/2' });
    let second: typeof first;
    try {
      await waitFor('the message', READY_MS, async () => messages.length === 1);
      second = post({ ...EVENT, id: 'test/2' });
      await waitFor('the second', READY_MS, async () =>
        (await metrics()).includes('events_total{result="duplicate"} 2'),
      );
    } finally {
      release();
    }
    assert.deepEqual([(await first).body.duplicate, (await second).body.duplicate], [false, true]);
    assert.deepEqual((await second).body.delivered, ['webhook']);
    assert.equal(messages.splice(0).length, 1);
    assert.match(await metrics(), /^marketprism_monitor_events_total\{result="told"\} 1$/m);
  });

  test('what reaches nobody is not told, is in undelivered.jsonl once, and is told when somebody can be reached', async () => {
    refuses = true;
    const event = { ...EVENT, id: 'test/3' };
    const failed = [{ name: 'webhook', reason: 'HTTP 404' }];
    for (let time = 0; time < 2; time += 1)
      assert.deepEqual((await post(event)).body, {
        id: 'test/3',
        told: false,
        duplicate: false,
        delivered: [],
        failed,
      });
    assert.equal(lines('undelivered.jsonl').length, 1);
    refuses = false;
    assert.deepEqual((await post(event)).body.delivered, ['webhook']);
    assert.equal(messages.splice(0).length, 1);
  });

  test('the token is asked for, and a wrong body is 400 with the member that is wrong', async () => {
    const asked = [await post(EVENT, null), await post(EVENT, 'another-token-of-16')];
    assert.deepEqual(
      asked.map(({ status, body }) => [status, body.field]),
      [
        [401, 'authorization'],
        [401, 'authorization'],
      ],
    );
    const wrong: [object, string][] = [
      [{ ...EVENT, id: 'a b' }, 'id'],
      [{ ...EVENT, title: '' }, 'title'],
      [{ ...EVENT, severity: 'loud' }, 'severity'],
      [{ ...EVENT, to: 'x' }, 'to'],
      [{ id: 'x', title: 'x', severity: 'low' }, 'text'],
    ];
    for (const [body, field] of wrong) {
      const answer = await post(body);
      assert.deepEqual([answer.status, answer.body.field], [400, field]);
    }
    assert.deepEqual(messages, []);
  });

  describe('by major_events_monitor.ts', () => {
    const first = Math.floor((Date.now() - 3 * HOUR) / (30 * MINUTE)) * 30 * MINUTE;
    const all = readings(top(5), top(4), top(12), top(9)).map((each) => ({
      ...each,
      minute: each.minute - T0 + first,
    }));
    let own: string;
    let desk: Desk;
    beforeEach(async () => {
      own = mkdtempSync(join(root, 'own'));
      desk = await Desk.open(own, all, 'anchor');
      desk.write(0);
      await once({ MARKETPRISM_API_TOKEN: '' });
      desk.write(3);
    });
    afterEach(() => desk.close());
    const once = (more: NodeJS.ProcessEnv = {}) =>
      run(['--once'], { ...env, MARKETPRISM_DATA_DIR: own, MONITOR_HTTP_PORT: String(proxyPort), ...more });
    const untold = () =>
      JSON.parse(readFileSync(join(own, 'state', 'major_events.json'), 'utf8')).untold.map(
        ({ event }: MajorEvent) => event,
      );
    const titles = () => messages.splice(0).map(({ title }) => title.replace(/^MarketPrism \S+: /, ''));

    test('both events reach the receiver, in order, in the reader’s language, once, although the first answers are lost', async () => {
      loses = true;
      const failed = await once();
      assert.equal(failed.code, 1);
      assert.match(failed.out, /2 not told: the monitor does not answer: /);
      assert.deepEqual([lost, untold()], [1, ['E2', 'E1']]);
      loses = false;
      assert.equal((await once()).code, 0);
      assert.deepEqual(untold(), []);
      const [weak, strong, ...more] = messages;
      assert.deepEqual(more, []);
      assert.match(weak!.text, new RegExp(`^弱势见顶：.*\n${beijingText(first + MINUTE)} 北京时间$`));
      assert.deepEqual([strong!.severity, weak!.severity], ['high', 'medium']);
      assert.deepEqual(titles(), ['E2 弱势见顶', 'E1 强势见顶']);
      assert.equal((await once()).code, 0);
      assert.deepEqual(messages, []);
    });

    test('while the monitor is down, or takes another token, they wait, and are told by the next who asks', async () => {
      // Its ids are those that were told in the test before: this is another monitor’s memory.
      rmSync(join(dir, 'state', 'told_events.json'));
      await killMonitor();
      const down = await once();
      assert.equal(down.code, 1);
      assert.match(down.out, /2 not told: the monitor does not answer: /);
      await start();
      const wrong = await once({ MARKETPRISM_API_TOKEN: 'another-token-of-16' });
      assert.match(wrong.out, /2 not told: the monitor answers HTTP 401/);
      refuses = true;
      assert.match((await once()).out, /2 not told: the monitor reaches nobody: webhook: HTTP 404/);
      refuses = false;
      assert.deepEqual([untold(), messages], [['E2', 'E1'], []]);
      assert.equal((await once({ MARKETPRISM_LANG: 'en' })).code, 0);
      assert.match(messages[0]!.text, /^Weak top: .* Beijing time$/s);
      assert.deepEqual(titles(), ['E2 weak top', 'E1 strong top']);
    });

    test('without a token that is said once, and events are written all the same', async () => {
      const child = new Child(
        scriptPlan('major_events_monitor', [], { ...env, MARKETPRISM_DATA_DIR: own, MARKETPRISM_API_TOKEN: '' }, own),
        () => false,
      );
      child.start();
      await waitFor(
        'its events',
        READY_MS,
        async () => existsSync(join(own, 'state', 'major_events.json')) && untold().length === 2,
      );
      const state = () => JSON.parse(readFileSync(join(own, 'state', 'major_events.json'), 'utf8'));
      assert.ok(state().last_success !== null);
      // Two more turns, by the clock of the loop.
      desk.write(4);
      await waitFor('another minute', READY_MS, async () => state().data_time === first + 4 * MINUTE);
      assert.equal((await child.stop())?.code, 0);
      const log = readFileSync(join(own, 'major_events_monitor.log'), 'utf8');
      assert.equal(log.match(/"event":"no_token"/g)?.length, 1);
      assert.equal(log.match(/"event":"major_event"/g)?.length, 2);
      assert.ok(!log.includes('not_done'));
      assert.deepEqual([untold(), messages], [['E2', 'E1'], []]);
    });

    test('what nobody could be told for a day is given up, and said to be', async () => {
      await once({ MARKETPRISM_API_TOKEN: '' });
      assert.deepEqual(untold(), ['E2', 'E1']);
      const logged: string[] = [];
      const log = Object.assign(createLogger('test', 'silent'), {
        error: (what: { event: string; id: string }) => logged.push(`${what.event} ${what.id.slice(0, 2)}`),
      });
      const config = loadConfig({ ...env, MARKETPRISM_DATA_DIR: own, MONITOR_HTTP_PORT: String(proxyPort) });
      const later = await MajorEventsMonitor.open({ config, log, clock: () => first + 24 * HOUR + 3 * MINUTE });
      rmSync(join(dir, 'state', 'told_events.json'), { force: true });
      await later.turn(NEVER);
      await later.close();
      assert.deepEqual([logged, untold()], [['never_told E2'], []]);
    });
  });
});
