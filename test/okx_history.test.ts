/** What OKX still tells of past readings: how it is asked for, and what becomes of the answers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { okxDerivatives, okxSpot } from '../scripts/exchanges/okx.ts';
import type { FundingRateRow, OpenInterestRow } from '../scripts/lib/rows.ts';
import { harness, NOW } from './okx_frames.ts';

const FUNDING = '/api/v5/public/funding-rate-history?instId=BTC-USDT-SWAP&after=1790438400001&limit=3';
const OPEN_INTEREST = '/api/v5/rubik/stat/contracts/open-interest-history?instId=BTC-USDT-SWAP&period=5m';
/** A settlement, and one that the venue foretold otherwise than it was paid. */
const SETTLED = {
  instType: 'SWAP',
  instId: 'BTC-USDT-SWAP',
  formulaType: 'withRate',
  fundingRate: '0.0000252378080097',
  realizedRate: '0.0000252378080096',
  fundingTime: '1790438400000',
  method: 'current_period',
};
const EARLIER = { ...SETTLED, fundingTime: '1790409600000' };
/** The last period of five minutes that is over at NOW, and the one under way. */
const OVER = 1790439300000;
const PERIOD_MS = 300_000;
const interest = (ts: unknown, oi = '2874486.99000000925', oiCcy = '28744.8699000000925', oiUsd = '2385812703.75') => [
  ts,
  oi,
  oiCcy,
  oiUsd,
];

test('a settled rate is a row at its settlement, with the rate that was paid', () => {
  const { rest, of, events } = harness(okxDerivatives);
  assert.equal(rest(FUNDING, [SETTLED, { ...EARLIER, realizedRate: '', fundingRate: '-0.00001' }]), true);
  const [settled, earlier] = of('funding_rate');
  assert.deepEqual(settled, {
    exchange: 'okx_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTC-USDT-SWAP',
    timestamp: 1790438400000,
    received_at: NOW,
    data_source: 'live',
    funding_rate: '0.0000252378080096',
    funding_time: 1790438400000,
    next_funding_time: null,
    funding_interval_hours: null,
    mark_price: null,
    index_price: null,
  } satisfies FundingRateRow);
  // Where the venue tells no paid rate, the announced one is what it has.
  assert.deepEqual(
    [earlier?.funding_rate, earlier?.timestamp, earlier?.funding_time],
    ['-0.00001', 1790409600000, 1790409600000],
  );
  assert.deepEqual(events, []);
});

test('past readings neither wait for a new minute nor keep a live one from its minute', () => {
  const { frame, rest, of, events } = harness(okxDerivatives);
  const live = (channel: string, data: object) =>
    frame({ arg: { channel, instId: 'BTC-USDT-SWAP' }, data: [{ instId: 'BTC-USDT-SWAP', ...data }] });
  rest(FUNDING, [SETTLED]);
  rest(OPEN_INTEREST, [interest(String(OVER))]);
  live('funding-rate', { ts: '1790438400500', fundingRate: '0.1', fundingTime: '1790467200000' });
  live('open-interest', { ts: String(OVER + 500), oiCcy: '1' });
  rest(FUNDING, [SETTLED, EARLIER]);
  rest(OPEN_INTEREST, [interest(String(OVER)), interest(String(OVER - PERIOD_MS))]);
  assert.deepEqual(
    of('funding_rate').map((row) => row.timestamp),
    [1790438400000, 1790438400500, 1790438400000, 1790409600000],
  );
  assert.deepEqual(
    of('open_interest').map((row) => row.timestamp),
    [OVER, OVER + 500, OVER, OVER - PERIOD_MS],
  );
  assert.deepEqual(events, []);
});

test('past open interest has base units, value and contracts, to digits that no double holds', () => {
  const { rest, of, events } = harness(okxDerivatives);
  assert.equal(rest(OPEN_INTEREST, [interest(String(OVER)), interest('1790439000000', '', '0', '')]), true);
  const [row, bare] = of('open_interest');
  assert.deepEqual(row, {
    exchange: 'okx_derivatives',
    market_type: 'perpetual',
    symbol: 'BTC-USDT',
    instrument: 'BTC-USDT-SWAP',
    timestamp: OVER,
    received_at: NOW,
    data_source: 'live',
    open_interest: '28744.8699000000925',
    open_interest_value: '2385812703.75',
    contracts: '2874486.99000000925',
  } satisfies OpenInterestRow);
  assert.deepEqual([bare?.open_interest, bare?.open_interest_value, bare?.contracts], ['0', null, null]);
  assert.deepEqual(events, []);
});

test('open interest of five minutes that are not over may still change, and is no row yet', () => {
  const { rest, of, events } = harness(okxDerivatives);
  rest(OPEN_INTEREST, [interest(String(OVER + PERIOD_MS)), interest(String(OVER))]);
  assert.deepEqual(
    of('open_interest').map((row) => row.timestamp),
    [OVER],
  );
  assert.deepEqual(events, [{ kind: 'ignored', reason: 'open interest of a period that is not over' }]);
});

test('open interest of other periods, which nothing in its table would tell apart, is refused as a whole', () => {
  const { rest, rows, told } = harness(okxDerivatives);
  const answer = [interest(String(OVER))];
  assert.equal(rest(OPEN_INTEREST.replace('period=5m', 'period=1D'), answer), false);
  assert.equal(rest('/api/v5/rubik/stat/contracts/open-interest-history', answer), false);
  assert.equal(rows.length, 0);
  assert.equal(told('rejected').length, 2);
  // Five minutes are what the venue answers when no period is named.
  assert.equal(rest(OPEN_INTEREST.replace('&period=5m', ''), answer), true);
  assert.equal(rows.length, 1);
});

test('an unsound past reading is rejected by itself, and the ones beside it stand', () => {
  const { rest, take } = harness(okxDerivatives);
  const kinds = () => {
    const { rows, events } = take();
    return [rows.length, events.map((event) => event.kind)];
  };
  for (const change of [
    { fundingTime: '' },
    { fundingTime: '1790438400' },
    { fundingTime: undefined },
    { realizedRate: 'NaN' },
    { realizedRate: '', fundingRate: '' },
    { realizedRate: undefined, fundingRate: undefined },
    { instId: 'BTC-USDT' },
    { instId: null },
  ]) {
    rest(FUNDING, [{ ...SETTLED, ...change }, EARLIER]);
    assert.deepEqual(kinds(), [1, ['rejected']], JSON.stringify(change));
  }
  rest(FUNDING, [null, [], 'x', EARLIER]);
  assert.deepEqual(kinds(), [1, ['rejected', 'rejected', 'rejected']]);
  const time = String(OVER);
  for (const unsound of [
    interest(''),
    interest('1790439300'),
    interest(null),
    interest(time, 'x'),
    interest(time, '-1'),
    interest(time, '1', ''),
    interest(time, '1', '-1'),
    interest(time, '1', '1', 'NaN'),
    [time],
    [],
    {},
    null,
  ]) {
    rest(OPEN_INTEREST, [unsound, interest('1790439000000')]);
    assert.deepEqual(kinds(), [1, ['rejected']], JSON.stringify(unsound));
  }
});

test('settled rates of an instrument that was not asked for are passed over and counted', () => {
  const instruments = [okxDerivatives.instrument('ETH-USDT', 'perpetual')];
  const { rest, of, events } = harness(okxDerivatives, { instruments });
  rest(FUNDING, [SETTLED, { ...SETTLED, instId: 'ETH-USDT-SWAP' }]);
  assert.deepEqual(
    of('funding_rate').map((row) => row.instrument),
    ['ETH-USDT-SWAP'],
  );
  assert.deepEqual(events, [{ kind: 'ignored', reason: 'instrument that was not asked for' }]);
});

test('the series of readings name their steps, and ask for the past within the venue’s limits', () => {
  assert.equal(okxSpot.readings, undefined);
  const instrument = okxDerivatives.instrument('BTC-USDT', 'perpetual');
  const [from, to] = [1790438400000, 1790439300000];
  assert.deepEqual(
    okxDerivatives.readings?.map(({ history, ...series }) => {
      assert.ok(history);
      const { page, ...rules } = history;
      return { ...series, ...rules, page: page(instrument, { from, to }) };
    }),
    [
      {
        type: 'funding_rate',
        stepMs: 60_000,
        quietSteps: 1,
        marketTypes: ['perpetual'],
        idMember: 'timestamp',
        order: 'descending',
        keeps: 'only the rates that were settled',
        page: {
          path: '/api/v5/public/funding-rate-history?instId=BTC-USDT-SWAP&after=1790439300001&limit=1',
          weight: 2,
        },
      },
      {
        type: 'open_interest',
        stepMs: 60_000,
        quietSteps: 4,
        marketTypes: ['perpetual', 'futures'],
        idMember: 'timestamp',
        order: 'descending',
        keeps: 'only one reading in five minutes',
        page: { path: `${OPEN_INTEREST}&begin=1790438399999&end=1790439300001&limit=100`, weight: 2 },
      },
      ...(['lsr_top_position', 'lsr_all_account'] as const).map((type) => ({
        type,
        stepMs: 300_000,
        quietSteps: 0,
        of: { name: 'period', value: '5m' },
        marketTypes: ['perpetual'],
        idMember: 'timestamp',
        order: 'descending',
        page: {
          path: `/api/v5/rubik/stat/contracts/${
            type === 'lsr_top_position'
              ? 'long-short-position-ratio-contract-top-trader'
              : 'long-short-account-ratio-contract'
          }?instId=BTC-USDT-SWAP&period=5m&begin=1790438399999&end=1790439300001&limit=100`,
          weight: 4,
        },
      })),
    ],
  );
});

test('a page of settlements has room for every one that can be in its range, up to the venue’s 100', () => {
  const history = okxDerivatives.readings?.find(({ type }) => type === 'funding_rate')?.history;
  const instrument = okxDerivatives.instrument('BTC-USDT', 'perpetual');
  const limit = (hours: number, more = 0) => {
    const to = 1790438400000;
    const path = history?.page(instrument, { from: to - hours * 3_600_000 + more, to }).path ?? '';
    return Number(new URLSearchParams(path.split('?')[1]).get('limit'));
  };
  // Both ends of a range count: an hour from settlement to settlement has two.
  assert.deepEqual([limit(0), limit(1), limit(1, 1), limit(98), limit(99), limit(5000)], [1, 2, 1, 99, 100, 100]);
});
