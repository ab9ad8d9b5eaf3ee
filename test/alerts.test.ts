/** What rounds make of findings: each told once, counted, worse, over; muted by what is down, and damped when it comes and goes. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Cron } from 'croner';
import { messageOf } from '../scripts/lib/alert_text.ts';
import { ALERT, Alerts, fingerprintOf, type Judged, type News } from '../scripts/lib/alerts.ts';
import type { CheckVerdict, Finding } from '../scripts/lib/checks/check.ts';
import { CHECKS } from '../scripts/lib/checks/index.ts';
import { LIMITS, type Limits } from '../scripts/lib/checks/limits.ts';
import type { Depth } from '../scripts/lib/checks/round.ts';
import { catchUp, SCHEDULE } from '../scripts/lib/monitor_schedule.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** 2026-11-24 12:00 UTC. */
const NOON = Date.UTC(2026, 10, 24, 12);
const limits: Limits = LIMITS.parse({});

const finding = (kind: Finding['kind'], subject: string, severity: Finding['severity'], what = '7 rows'): Finding => ({
  ...{ kind, subject, severity, what },
  evidence: 'SELECT 1',
});

/** A round in which all checks were asked, and these found something or could not be asked. */
function roundOf(found: Record<string, Finding[] | 'unchecked'>, depth: Depth = 'quick'): Judged[] {
  return CHECKS.map((check) => {
    const given = found[check.name] ?? [];
    const verdict: CheckVerdict = given === 'unchecked' ? 'unchecked' : given.length > 0 ? 'degraded' : 'healthy';
    const findings = given === 'unchecked' ? [] : given;
    return { outcome: { check, limit: '', verdict, figure: 'refused', findings, ms: 1 }, depth };
  });
}

const told = (news: News[]) =>
  news.map(({ event, alert, isQuiet }) => `${isQuiet ? '(' : ''}${event} ${alert.subject}`);
const doubled = finding('doubled_in_hot', 'trade okx_spot spot BTC-USDT', 'high');

describe('alerts', () => {
  test('the first finding is told at once, the same again is counted, its end is told', () => {
    const alerts = new Alerts();
    assert.deepEqual(told(alerts.take(roundOf({ duplicates: [doubled] }), limits, NOON)), [
      `raised ${doubled.subject}`,
    ]);
    const more = { ...doubled, what: '9 rows' };
    assert.deepEqual(alerts.take(roundOf({ duplicates: [more] }), limits, NOON + 15 * MINUTE), []);
    const [standing] = alerts.standing;
    assert.deepEqual([standing!.times, standing!.what, standing!.since], [2, '9 rows', NOON]);
    const end = alerts.take(roundOf({}), limits, NOON + 30 * MINUTE);
    assert.deepEqual(told(end), [`recovered ${doubled.subject}`]);
    assert.deepEqual(alerts.standing, []);
    assert.deepEqual(alerts.take(roundOf({}), limits, NOON + 45 * MINUTE), []);
  });

  test('a fingerprint depends on check, kind and subject, and on nothing else', () => {
    const one = fingerprintOf('duplicates', doubled);
    assert.equal(fingerprintOf('duplicates', { ...doubled, what: 'x', severity: 'low' } as Finding), one);
    const others = [
      fingerprintOf('values', doubled),
      fingerprintOf('duplicates', { ...doubled, kind: 'doubled_in_cold' }),
      fingerprintOf('duplicates', { ...doubled, subject: 'trade okx_spot spot ETH-USDT' }),
    ];
    assert.equal(new Set([one, ...others]).size, 4);
    assert.match(one, /^[0-9a-f]{16}$/);
  });

  test('what gets worse is told again, what gets better is not; what is high and stands is told once a day', () => {
    const alerts = new Alerts();
    const as = (severity: Finding['severity']) => roundOf({ duplicates: [{ ...doubled, severity }] });
    const events = (['low', 'medium', 'low', 'medium', 'high', 'high'] as const).map((severity, i) =>
      told(alerts.take(as(severity), limits, NOON + i * MINUTE)).map((each) => each.split(' ')[0]),
    );
    assert.deepEqual(events, [['raised'], ['escalated'], [], [], ['escalated'], []]);
    assert.deepEqual(told(alerts.take(as('high'), limits, NOON + 24 * HOUR)), []);
    assert.deepEqual(told(alerts.take(as('high'), limits, NOON + 4 * MINUTE + 24 * HOUR)), [
      `reminder ${doubled.subject}`,
    ]);
    const never = { ...limits, reminder_hours: 0 };
    assert.deepEqual(alerts.take(as('high'), never, NOON + 96 * HOUR), []);
  });

  test('a hint is no alert; what is below the threshold is recorded, and nobody is told', () => {
    const alerts = new Alerts();
    const quiet = { ...limits, notify_from: 'high' as const };
    const found = { gaps: [finding('unfillable', 'a', 'hint'), finding('open', 'b', 'medium')] };
    assert.deepEqual(told(alerts.take(roundOf(found), quiet, NOON)), ['(raised b']);
    assert.deepEqual(told(alerts.take(roundOf({}), quiet, NOON + MINUTE)), ['(recovered b']);
  });

  test('what follows from a part that is down is muted, and told when it stands after that part is up', () => {
    const alerts = new Alerts();
    const down = finding('down', 'nats', 'critical', 'does not answer: ECONNREFUSED');
    const unwell = finding('unwell', 'collector', 'high');
    const silent = finding('silent', 'trade okx_spot spot BTC-USDT', 'high');
    const away = roundOf({
      services: [down, unwell],
      freshness: [silent],
      streams: 'unchecked',
      disk: [finding('full', 'data', 'low')],
    });
    const news = alerts.take(away, limits, NOON);
    assert.deepEqual(
      told(news).sort(),
      ['(muted collector', '(muted streams', `(muted ${silent.subject}`, 'raised data', 'raised nats'].sort(),
    );
    assert.deepEqual(alerts.take(away, limits, NOON + MINUTE).length, 0);
    // What stands on nothing that is down is told all the same, and what was muted and ended was never news.
    const up = alerts.take(
      roundOf({ freshness: [silent], disk: [finding('full', 'data', 'low')] }),
      limits,
      NOON + 2 * MINUTE,
    );
    assert.deepEqual(told(up).sort(), [`raised ${silent.subject}`, 'recovered nats'].sort());
  });

  test('what could not be asked ends nothing, and is an alert itself until it is answered', () => {
    const alerts = new Alerts();
    alerts.take(roundOf({ duplicates: [doubled] }), limits, NOON);
    assert.deepEqual(told(alerts.take(roundOf({ duplicates: 'unchecked' }), limits, NOON + MINUTE)), [
      'raised duplicates',
    ]);
    assert.deepEqual(alerts.standing.map(({ kind }) => kind).sort(), ['doubled_in_hot', 'unchecked']);
    assert.deepEqual(told(alerts.take(roundOf({ duplicates: [doubled] }), limits, NOON + 2 * MINUTE)), [
      'recovered duplicates',
    ]);
    assert.deepEqual(
      alerts.standing.map(({ kind }) => kind),
      ['doubled_in_hot'],
    );
  });

  test('what a long round found is not over because a shorter one does not see so far', () => {
    const alerts = new Alerts();
    alerts.take(roundOf({ duplicates: [doubled] }, 'full'), limits, NOON);
    assert.deepEqual(alerts.take(roundOf({}), limits, NOON + 15 * MINUTE), []);
    assert.equal(alerts.depthOf('duplicates'), 'full');
    assert.equal(alerts.depthOf('values'), 'quick');
    assert.deepEqual(told(alerts.take(roundOf({}, 'full'), limits, NOON + HOUR)), [`recovered ${doubled.subject}`]);
    // What a check finds of the present, any round ends.
    alerts.take(roundOf({ disk: [finding('full', 'data', 'low')] }, 'deep'), limits, NOON);
    assert.deepEqual(told(alerts.take(roundOf({}), limits, NOON + 15 * MINUTE)), ['recovered data']);
  });

  test('one that comes and goes is told as that, and then no more until it rests', () => {
    const alerts = new Alerts();
    const events: string[][] = [];
    let at = NOON;
    const take = (isThere: boolean) => {
      at += 15 * MINUTE;
      events.push(
        told(alerts.take(roundOf(isThere ? { duplicates: [doubled] } : {}), limits, at)).map(
          (each) => each.split(' ')[0]!,
        ),
      );
    };
    for (let i = 0; i < 10; i += 1) take(i % 2 === 0);
    assert.deepEqual(events, [['raised'], ['recovered'], ['raised'], ['recovered'], ['flapping'], [], [], [], [], []]);
    // It was told as there; after the last raise it rests for six hours.
    at += 6 * HOUR;
    take(false);
    assert.deepEqual(events.at(-1), ['recovered']);
    take(true);
    assert.deepEqual(events.at(-1), ['raised']);
  });

  test('one that somebody acknowledged is told no more as it is, and told anew when it gets worse', () => {
    const alerts = new Alerts();
    const as = (severity: Finding['severity']) => roundOf({ duplicates: [{ ...doubled, severity }] });
    const fingerprint = fingerprintOf('duplicates', doubled);
    assert.equal(alerts.acknowledge(fingerprint, {}, NOON), null, 'there is none yet');
    alerts.take(as('high'), limits, NOON);
    const known = alerts.acknowledge(fingerprint, { by: 'Li', note: 'the venue is asked' }, NOON + MINUTE);
    const acknowledged = { at: NOON + MINUTE, severity: 'high', by: 'Li', note: 'the venue is asked' };
    assert.deepEqual(known?.acknowledged, acknowledged);
    // Neither reminded of, nor told when it comes back to what was acknowledged.
    for (const [severity, hours] of [
      ['high', 25],
      ['low', 26],
      ['high', 27],
      ['high', 60],
    ] as const)
      assert.deepEqual(alerts.take(as(severity), limits, NOON + hours * HOUR), [], `${severity} after ${hours} h`);
    assert.deepEqual(alerts.standing[0]!.acknowledged, acknowledged);
    assert.deepEqual(told(alerts.take(as('critical'), limits, NOON + 61 * HOUR)), [`escalated ${doubled.subject}`]);
    assert.equal(alerts.standing[0]!.acknowledged, null);
    assert.deepEqual(told(alerts.take(as('critical'), limits, NOON + 85 * HOUR)), [`reminder ${doubled.subject}`]);
    // What had become better when it was acknowledged is worse again.
    alerts.take(as('low'), limits, NOON + 86 * HOUR);
    alerts.acknowledge(fingerprint, {}, NOON + 86 * HOUR);
    assert.deepEqual(told(alerts.take(as('medium'), limits, NOON + 87 * HOUR)), [`escalated ${doubled.subject}`]);
  });

  test('one that was acknowledged, ended and came again is told anew; what is over cannot be acknowledged', () => {
    const one = new Alerts();
    const fingerprint = fingerprintOf('duplicates', doubled);
    one.take(roundOf({ duplicates: [doubled] }), limits, NOON);
    one.acknowledge(fingerprint, { by: 'Li' }, NOON);
    // Another process goes on with it.
    const alerts = new Alerts(JSON.parse(JSON.stringify(one.list)).map((each: unknown) => ALERT.parse(each)));
    assert.deepEqual(alerts.take(roundOf({ duplicates: [doubled] }), limits, NOON + 25 * HOUR), []);
    assert.deepEqual(told(alerts.take(roundOf({}), limits, NOON + 26 * HOUR)), [`recovered ${doubled.subject}`]);
    assert.equal(alerts.list[0]!.acknowledged?.by, 'Li', 'who knew of it stays known');
    assert.equal(alerts.acknowledge(fingerprint, {}, NOON + 26 * HOUR), null);
    assert.deepEqual(told(alerts.take(roundOf({ duplicates: [doubled] }), limits, NOON + 27 * HOUR)), [
      `raised ${doubled.subject}`,
    ]);
    assert.equal(alerts.standing[0]!.acknowledged, null);
  });

  test('one that was acknowledged before anybody could be reached needs no message any more', () => {
    const alerts = new Alerts();
    const news = alerts.take(roundOf({ duplicates: [doubled] }), limits, NOON);
    alerts.untell(news);
    alerts.acknowledge(fingerprintOf('duplicates', doubled), {}, NOON + MINUTE);
    assert.deepEqual(alerts.take(roundOf({ duplicates: [doubled] }), limits, NOON + 15 * MINUTE), []);
  });

  test('state that an older version kept, without acknowledgements, is read', () => {
    const alerts = new Alerts();
    alerts.take(roundOf({ duplicates: [doubled] }), limits, NOON);
    const { acknowledged: _, ...older } = alerts.list[0]!;
    assert.equal(ALERT.parse(older).acknowledged, null);
  });

  test('two findings of one kind and subject are one alert, with the worse of them', () => {
    const alerts = new Alerts();
    const holes = [finding('undeclared', 'x', 'low', '3 rows'), finding('undeclared', 'x', 'high', '90 rows')];
    const [news, ...others] = alerts.take(roundOf({ continuity: holes }), limits, NOON);
    assert.deepEqual([news!.alert.severity, news!.alert.what, others], ['high', '90 rows (and 1 more like it)', []]);
  });

  test('another process goes on where one ended', () => {
    const one = new Alerts();
    one.take(roundOf({ duplicates: [doubled] }), limits, NOON);
    const kept = JSON.parse(JSON.stringify(one.list)).map((each: unknown) => ALERT.parse(each));
    const other = new Alerts(kept);
    assert.deepEqual(other.take(roundOf({ duplicates: [doubled] }), limits, NOON + MINUTE), []);
    assert.equal(other.standing[0]!.times, 2);
    assert.equal(other.clear(), 1);
    assert.deepEqual(told(other.take(roundOf({ duplicates: [doubled] }), limits, NOON + 2 * MINUTE)), [
      `raised ${doubled.subject}`,
    ]);
  });
});

describe('the text of alerts', () => {
  const alerts = new Alerts();
  const news = alerts.take(
    roundOf({ values: [finding('crossed_book', 'orderbook okx_spot spot BTC-USDT', 'high', '1 row')] }),
    limits,
    NOON,
  );
  const said = (language: 'en' | 'zh') =>
    messageOf({ news, muted: new Map([['nats', 3]]), language, place: 'desk', timeZone: 'Asia/Shanghai', now: NOON });

  test('in English', () => {
    const { title, text, severity } = said('en');
    assert.equal(title, 'MarketPrism desk [high]: raised 1');
    assert.equal(severity, 'high');
    assert.match(
      text,
      /^\[high\] raised · values · crossed book · orderbook okx_spot spot BTC-USDT: 1 row\n {4}fix: .+\n3 more follow from nats being down, and are muted$/,
    );
  });

  test('in Chinese, with times as the readers’ clocks say', () => {
    const { title, text } = said('zh');
    assert.equal(title, 'MarketPrism desk [高]: 新告警 1');
    assert.match(
      text,
      /^\[高\] 新告警 · 数值 · 订单簿交叉 · orderbook okx_spot spot BTC-USDT: 1 row\n {4}处理: .+\nnats 无应答，由此引起的 3 条已静默$/,
    );
    const stood = alerts.take(
      roundOf({ values: [finding('crossed_book', 'orderbook okx_spot spot BTC-USDT', 'critical', '2 rows')] }),
      limits,
      NOON + MINUTE,
    );
    const { text: worse } = messageOf({
      news: stood,
      muted: new Map(),
      language: 'zh',
      place: 'desk',
      timeZone: 'Asia/Shanghai',
      now: NOON,
    });
    assert.equal(
      worse,
      '[严重] 级别上升 · 数值 · 订单簿交叉 · orderbook okx_spot spot BTC-USDT: 2 rows；自 2026-11-24 20:00:00 起 2 次',
    );
  });

  test('is cut where nobody would read on', () => {
    const many = Array.from({ length: 33 }, (_, i) => finding('doubled_in_hot', `stream ${i}`, 'high'));
    const { text } = messageOf({
      news: new Alerts().take(roundOf({ duplicates: many }), limits, NOON),
      ...{ muted: new Map(), language: 'en' as const, place: 'desk', timeZone: 'UTC', now: NOON },
    });
    assert.equal(text.split('\n').filter((line) => line.startsWith('[high] raised')).length, 20);
    assert.match(text, /\n… and 13 more: data\/alerts\/alerts\.jsonl$/);
  });
});

describe('the schedule', () => {
  test('has one round at each quarter of an hour, the deepest that is due', () => {
    const day = { start: new Date('2026-11-24T00:00:00+08:00'), end: Date.parse('2026-11-25T00:00:00+08:00') };
    const due = (Object.entries(SCHEDULE) as [Depth, string][]).flatMap(([depth, pattern]) => {
      const cron = new Cron(pattern, { timezone: 'Asia/Shanghai', paused: true });
      return cron
        .nextRuns(200, new Date(day.start.getTime() - 1000))
        .filter((at) => at.getTime() < day.end)
        .map((at) => ({ depth, at: at.getTime() }));
    });
    const times = due.map(({ at }) => at).sort((one, other) => one - other);
    assert.deepEqual(
      times,
      Array.from({ length: 96 }, (_, i) => day.start.getTime() + i * 15 * MINUTE),
    );
    const deep = due.filter(({ depth }) => depth === 'deep').map(({ at }) => new Date(at).toISOString());
    assert.deepEqual(deep, ['2026-11-23T18:00:00.000Z']);
    assert.equal(due.filter(({ depth }) => depth === 'full').length, 23);
  });

  test('what was missed is made up for by the deepest round of it', () => {
    assert.equal(catchUp({}, NOON), 'deep');
    const fresh = { quick: NOON - MINUTE, full: NOON - MINUTE, deep: NOON - HOUR };
    assert.equal(catchUp(fresh, NOON), 'quick');
    assert.equal(catchUp({ ...fresh, full: NOON - 2 * HOUR }, NOON), 'full');
    assert.equal(catchUp({ ...fresh, deep: NOON - 25 * HOUR }, NOON), 'deep');
  });
});
