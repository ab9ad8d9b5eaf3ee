/** Past trades by their ids over REST: the same rows as on the socket, complete over any number of pages. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { WebSocket } from 'ws';
import type { Simulator } from '../scripts/exchange_sim.ts';
import { binanceDerivatives, binanceSpot } from '../scripts/exchanges/binance.ts';
import { deribitDerivatives } from '../scripts/exchanges/deribit.ts';
import { hyperliquid } from '../scripts/exchanges/hyperliquid.ts';
import { okxDerivatives, okxSpot } from '../scripts/exchanges/okx.ts';
import type { Connection, ExchangeModule, History, IdRange, Instrument } from '../scripts/lib/exchange.ts';
import type { Rows } from '../scripts/lib/rows.ts';
import { feedHarness } from './feed_harness.ts';
import { assertSame, start, until } from './sim_client.ts';

/** µs; what comes over REST arrives at another time than what the socket told. */
const LIVE_AT = 1_790_439_600_400_000;
const LATER_AT = LIVE_AT + 60_000_000;
const TIME = 1_790_439_596_521;
const HIGHEST = Number.MAX_SAFE_INTEGER;

type TradeRow = Rows['trade'];

/** What one venue answers for one trade, and what its socket told of it. */
interface Venue {
  module: ExchangeModule;
  /** Of the hand-made trades. */
  instrument: Instrument;
  /** The request for `range`, and the weight that the venue's documents name for it. */
  page(range: IdRange, limit: number): { path: string; weight: number };
  /** The most trades of an answer. */
  pageSize: number;
  /** A frame of the socket with one trade. */
  frame(id: number): object;
  /** The same trade as a row of an answer. */
  row(id: number): object;
  /** An answer with these rows. */
  answer(rows: unknown[]): unknown;
  /** What units of contracts have to be known. */
  list?: { path: string; body: unknown };
  /** Answers under HTTP 200 that are none. */
  refusals: unknown[];
  /** How the venue's refusal of an unknown instrument comes. */
  unknownInstrument: { status: number; reason: RegExp };
}

const NO_LIST: unknown[] = [null, 5, 'ok', {}];

const SPOT: Venue = {
  module: binanceSpot,
  instrument: binanceSpot.instrument('ETH-USDT', 'spot'),
  page: ({ from }, limit) => ({
    path: `/api/v3/historicalTrades?symbol=ETHUSDT&fromId=${from}&limit=${limit}`,
    weight: 25,
  }),
  pageSize: 1000,
  frame: (t) => ({
    stream: 'ethusdt@trade',
    data: {
      e: 'trade',
      E: TIME + 1,
      s: 'ETHUSDT',
      t,
      p: '4.00000100',
      q: '12.00000000',
      T: TIME,
      m: true,
      M: true,
    },
  }),
  row: (id) => ({
    id,
    price: '4.00000100',
    qty: '12.00000000',
    quoteQty: '48.00001200',
    time: TIME,
    isBuyerMaker: true,
    isBestMatch: true,
  }),
  answer: (rows) => rows,
  refusals: [
    ...NO_LIST,
    { code: -1121, msg: 'Invalid symbol.' },
    { code: -1003, msg: 'Way too much request weight used; IP banned until 1573370689735.' },
  ],
  unknownInstrument: { status: 400, reason: /historicalTrades answered an error: .*Invalid symbol/ },
};

const USDM: Venue = {
  module: binanceDerivatives,
  instrument: binanceDerivatives.instrument('ETH-USDT', 'perpetual'),
  page: ({ from }, limit) => ({ path: `/fapi/v1/aggTrades?symbol=ETHUSDT&fromId=${from}&limit=${limit}`, weight: 20 }),
  pageSize: 1000,
  frame: (a) => ({
    stream: 'ethusdt@aggTrade',
    data: {
      e: 'aggTrade',
      E: TIME + 1,
      s: 'ETHUSDT',
      a,
      p: '2681.62',
      q: '1.500',
      nq: '1.000',
      f: 100,
      l: 105,
      T: TIME,
      m: false,
      st: 1,
    },
  }),
  row: (a) => ({ a, p: '2681.62', q: '1.500', nq: '1.000', f: 100, l: 105, T: TIME, m: false }),
  answer: (rows) => rows,
  refusals: [
    ...NO_LIST,
    { code: -1121, msg: 'Invalid symbol.' },
    { status: 'ERROR', type: 'GENERAL', code: '99099990', errorData: 'illegal params.', data: null },
    { status: 'ERROR', data: [{ a: 1, p: '1', q: '1', f: 1, l: 1, T: TIME, m: true }] },
  ],
  unknownInstrument: { status: 400, reason: /aggTrades answered an error: .*Invalid symbol/ },
};

function okx(module: ExchangeModule, instrument: Instrument, list?: Venue['list']): Venue {
  const instId = instrument.instrument;
  const row = (id: number) => ({
    instId,
    tradeId: String(id),
    px: '2681.62',
    sz: '24.31',
    side: 'sell',
    ts: `${TIME}`,
  });
  const answer = (data: unknown[], code = '0', msg = '') => ({ code, msg, data });
  return {
    module,
    instrument,
    page: ({ to }, limit) => ({
      path: `/api/v5/market/history-trades?instId=${instId}&type=1&after=${to + 1}&limit=${limit}`,
      weight: 1,
    }),
    pageSize: 100,
    frame: (id) => ({
      arg: { channel: 'trades-all', instId },
      data: [{ ...row(id), source: '0', seqId: 342177339042 }],
    }),
    row: (id) => ({ ...row(id), source: '0' }),
    answer,
    ...(list && { list }),
    refusals: [
      ...NO_LIST,
      [],
      { code: '0', msg: '' },
      answer([], '51001', "Instrument ID doesn't exist."),
      answer([row(1)], '50011', 'Too Many Requests'),
    ],
    unknownInstrument: { status: 200, reason: /history-trades answered an error: .*51001/ },
  };
}

const OKX_SPOT = okx(okxSpot, okxSpot.instrument('ETH-USDT', 'spot'));
const OKX_SWAP = okx(okxDerivatives, okxDerivatives.instrument('ETH-USDT', 'perpetual'), {
  path: '/api/v5/public/instruments?instType=SWAP',
  body: {
    code: '0',
    msg: '',
    data: [{ instId: 'ETH-USDT-SWAP', instType: 'SWAP', ctVal: '0.1', ctMult: '1', ctValCcy: 'ETH', ctType: 'linear' }],
  },
});

const DERIBIT_TRADE = {
  timestamp: TIME,
  price: 2681.5,
  direction: 'sell',
  index_price: 2680.19,
  instrument_name: 'ETH-PERPETUAL',
  amount: 20,
  mark_price: 2681.87,
  tick_direction: 1,
  contracts: 20,
};
const deribitRow = (sequence: number) => ({ ...DERIBIT_TRADE, trade_seq: sequence, trade_id: `ETH-${sequence}` });
const DERIBIT: Venue = {
  module: deribitDerivatives,
  instrument: deribitDerivatives.instrument('ETH-USDT', 'perpetual'),
  page: ({ from, to }, limit) => ({
    path:
      '/api/v2/public/get_last_trades_by_instrument?instrument_name=ETH-PERPETUAL' +
      `&start_seq=${from}&end_seq=${to}&count=${limit}&sorting=asc`,
    weight: 1,
  }),
  pageSize: 1000,
  frame: (sequence) => ({
    jsonrpc: '2.0',
    method: 'subscription',
    params: { channel: 'trades.ETH-PERPETUAL.100ms', data: [deribitRow(sequence)] },
  }),
  row: deribitRow,
  answer: (trades) => ({ jsonrpc: '2.0', result: { trades, has_more: false }, usIn: 1, usOut: 2, usDiff: 1 }),
  refusals: [
    ...NO_LIST,
    { jsonrpc: '2.0', result: {} },
    { jsonrpc: '2.0', result: { trades: null, has_more: false } },
    { jsonrpc: '2.0', error: { code: 13020, message: 'not_found' } },
    { jsonrpc: '2.0', error: { code: 10028, message: 'too_many_requests' }, result: { trades: [deribitRow(1)] } },
  ],
  unknownInstrument: { status: 400, reason: /get_last_trades_by_instrument answered an error/ },
};

const VENUES = [SPOT, USDM, OKX_SPOT, OKX_SWAP, DERIBIT];

function historyOf({ module }: Venue): History {
  assert.ok(module.tradeHistory, `${module.exchange} serves past trades`);
  return module.tradeHistory;
}

/** A feed with the units that it needs. */
function harness({ module, instrument, list }: Venue, at: number) {
  const run = feedHarness(module, at, { instruments: [instrument] });
  if (list) assert.equal(run.rest(list.path, list.body), true);
  return run;
}

/** Rows without when they came, the one column in which the socket's and the answer's differ. */
function columns(rows: TradeRow[]): Omit<TradeRow, 'received_at'>[] {
  return rows.map(({ received_at: _, ...rest }) => rest);
}

/** The number by which a row is asked for. */
function countOf({ idMember }: History, row: TradeRow): number {
  const count = Number(row[idMember]);
  assert.ok(Number.isSafeInteger(count), `${idMember} of ${JSON.stringify(row)}`);
  return count;
}

/** What the socket tells of one instrument's trades, from subscribing to closing. */
class LiveTrades {
  readonly texts: string[] = [];
  readonly run: ReturnType<typeof harness>;
  private taken = 0;

  private constructor(venue: Venue, socket: WebSocket) {
    this.run = harness(venue, LIVE_AT);
    socket.on('message', (text: Buffer) => this.texts.push(text.toString()));
  }

  static async open(sim: Simulator, venue: Venue): Promise<LiveTrades> {
    const { module, instrument } = venue;
    const isWanted = ({ types }: Connection['channels'][number]): boolean => types.includes('trade');
    const connection = module.connections([instrument]).find(({ channels }) => channels.some(isWanted));
    assert.ok(connection);
    const socket = new WebSocket(`${sim.endpoints[module.exchange]?.ws}${connection.path}`);
    sockets.push(socket);
    const live = new LiveTrades(venue, socket);
    await new Promise((done, failed) => socket.once('open', done).once('error', failed));
    for (const { text } of module.subscribe(connection.channels.filter(isWanted), 1)) socket.send(text);
    return live;
  }

  /** The rows of all frames so far. */
  rows(): TradeRow[] {
    for (; this.taken < this.texts.length; this.taken++) this.run.frame(this.texts[this.taken]);
    return this.run.of('trade');
  }
}

const sockets: WebSocket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.terminate();
});

async function ask(sim: Simulator, venue: Venue, path: string): Promise<{ status: number; body: unknown }> {
  const answer = await fetch(`${sim.endpoints[venue.module.exchange]?.rest}${path}`);
  return { status: answer.status, body: await answer.json() };
}

/** Takes `range` page by page, each from where the one before it ended. @returns the rows, and how many each page had */
async function fetchRange(
  sim: Simulator,
  venue: Venue,
  range: IdRange,
): Promise<{ rows: TradeRow[]; pages: number[] }> {
  const history = historyOf(venue);
  const run = harness(venue, LATER_AT);
  const pages: number[] = [];
  let { from, to } = range;
  while (from <= to) {
    const { path } = history.page(venue.instrument, { from, to });
    const { status, body } = await ask(sim, venue, path);
    assert.equal(status, 200, JSON.stringify(body));
    const before = run.of('trade').length;
    assert.equal(run.rest(path, body), true);
    const ids = run
      .of('trade')
      .slice(before)
      .map((row) => countOf(history, row));
    assert.ok(ids.length > 0, `nothing of ${from}…${to}`);
    pages.push(ids.length);
    // A page has the ids at one end of what is missing, without a hole, and in the order that is promised.
    const isUp = history.order === 'ascending';
    assertSame(
      ids,
      ids.map((_, index) => (isUp ? from + index : to - index)),
      `page ${pages.length}`,
    );
    if (isUp) from += ids.length;
    else to -= ids.length;
  }
  assert.deepEqual(run.events, [], 'nothing was refused or left out');
  assert.equal(run.rows.length, run.of('trade').length, 'nothing but trades');
  return { rows: run.of('trade'), pages };
}

for (const venue of VENUES) {
  const { module, instrument, pageSize } = venue;
  describe(`past trades of ${module.exchange}`, () => {
    it('are asked for by id, as many as one page holds and no more than are missing', () => {
      const history = historyOf(venue);
      const page = (from: number, to: number) => history.page(instrument, { from, to });
      assert.deepEqual(page(700, 700), venue.page({ from: 700, to: 700 }, 1));
      const whole = { from: 700, to: 699 + pageSize };
      assert.deepEqual(page(700, 699 + pageSize), venue.page(whole, pageSize));
      assert.deepEqual(page(700, 698 + pageSize), venue.page({ ...whole, to: whole.to - 1 }, pageSize - 1));
      assert.deepEqual(page(700, 700 + pageSize), venue.page({ ...whole, to: whole.to + 1 }, pageSize));
      assert.deepEqual(page(0, HIGHEST - 1), venue.page({ from: 0, to: HIGHEST - 1 }, pageSize));
      assert.doesNotMatch(page(HIGHEST - 1, HIGHEST).path, /e\+|NaN/, 'ids are written out');
    });

    it('name their instrument as the venue does, whatever its letters', () => {
      const { path } = historyOf(venue).page({ ...instrument, instrument: '币安&X' }, { from: 1, to: 2 });
      assert.ok(path.includes('=%E5%B8%81%E5%AE%89%26X&'), path);
    });

    it('are the rows that the socket’s frames are', () => {
      const [live, later] = [harness(venue, LIVE_AT), harness(venue, LATER_AT)];
      const ids = [700, 701, HIGHEST];
      for (const id of ids) live.frame(venue.frame(id));
      const { path } = historyOf(venue).page(instrument, { from: 700, to: 702 });
      assert.equal(later.rest(path, venue.answer(ids.map(venue.row))), true);
      assert.deepEqual([live.events, later.events], [[], []]);
      assert.deepEqual(columns(later.of('trade')), columns(live.of('trade')));
      assert.equal(later.rows.length, ids.length);
      assert.deepEqual([...new Set(later.of('trade').map((row) => row.received_at))], [LATER_AT]);
      assert.deepEqual(
        later.of('trade').map((row) => countOf(historyOf(venue), row)),
        ids,
        'by the member that counts',
      );
    });

    it('are none where the answer is a refusal, under HTTP 200 too', () => {
      const { path } = historyOf(venue).page(instrument, { from: 1, to: 50 });
      for (const body of venue.refusals) {
        const { rest, rows, kinds } = harness(venue, LATER_AT);
        assert.equal(rest(path, body), false, JSON.stringify(body));
        assert.deepEqual([rows.length, kinds()], [0, ['rejected']], JSON.stringify(body));
      }
    });

    it('are none where the answer is empty: the venue does not keep them any more', () => {
      const { path } = historyOf(venue).page(instrument, { from: 1, to: 50 });
      const { rest, rows, events } = harness(venue, LATER_AT);
      assert.equal(rest(path, venue.answer([])), true);
      assert.deepEqual([rows, events], [[], []]);
    });

    it('lose only the row that is not sound, and tell of it', () => {
      const { path } = historyOf(venue).page(instrument, { from: 1, to: 5 });
      const { rest, of, kinds } = harness(venue, LATER_AT);
      const unsound = Object.fromEntries(Object.keys(venue.row(3)).map((name) => [name, {}]));
      const rows = [venue.row(1), unsound, null, venue.row(4)];
      assert.equal(rest(path, venue.answer(rows)), true);
      assert.deepEqual(
        of('trade').map((row) => countOf(historyOf(venue), row)),
        [1, 4],
      );
      assert.deepEqual(kinds(), ['rejected', 'rejected']);
    });

    it('are complete over several pages, row for row what the simulated venue’s socket told', async () => {
      const sim = await start({
        exchanges: [module.exchange],
        symbols: ['BTC-USDT', 'ETH-USDT'],
        tradesPerSecond: 2000,
      });
      const live = await LiveTrades.open(sim, venue);
      const skipped = 37;
      const count = 2 * pageSize + 50;
      await until(`${count} trades`, () => live.rows().length > 2 * skipped + count);
      const told = live.rows().slice(skipped, skipped + count);
      const history = historyOf(venue);
      const from = countOf(history, told[0]!);
      const to = countOf(history, told.at(-1)!);
      assert.equal(to - from + 1, count, 'the socket told each id once');
      const { rows, pages } = await fetchRange(sim, venue, { from, to });
      assert.deepEqual(pages, [pageSize, pageSize, 50]);
      const ascending = rows.toSorted((one, other) => countOf(history, one) - countOf(history, other));
      assertSame(columns(ascending), columns(told), `trades ${from}…${to}`);
      assert.deepEqual(live.run.told('rejected'), []);
      // One id alone: `after` and the ends of a range are where an answer is off by one.
      const [middle] = told.slice(count / 2);
      const id = countOf(history, middle!);
      const single = await fetchRange(sim, venue, { from: id, to: id });
      assert.deepEqual(columns(single.rows), columns([middle!]));
    });

    it('are refused by the simulated venue for an instrument that it does not have, and become no rows', async () => {
      const sim = await start({ exchanges: [module.exchange], symbols: ['BTC-USDT'] });
      const { path } = historyOf(venue).page(instrument, { from: 1, to: 10 });
      const { status, body } = await ask(sim, venue, path);
      assert.equal(status, venue.unknownInstrument.status, JSON.stringify(body));
      const { rest, rows, told } = harness(venue, LATER_AT);
      assert.equal(rest(path, body), false);
      assert.match(told('rejected')[0]!.reason, venue.unknownInstrument.reason);
      assert.equal(rows.length, 0);
    });
  });
}

describe('past trades of Binance', () => {
  it('pass through the stream’s rules, should the venue ever send what they are about', () => {
    const { path } = historyOf(USDM).page(USDM.instrument, { from: 1, to: 10 });
    const { rest, of, told } = harness(USDM, LATER_AT);
    const marks = [{ X: 'ADL' }, { X: 'INSURANCE_FUND' }, { X: 'NA', p: '0', q: '0' }, { st: 2 }];
    const rows = [...marks.map((mark, index) => ({ ...USDM.row(index + 1), ...mark })), { ...USDM.row(5), X: 'RPI' }];
    assert.equal(rest(path, rows), true);
    assert.deepEqual(
      of('trade').map((row) => row.trade_id),
      ['5'],
    );
    assert.deepEqual(
      told('ignored').map(({ reason }) => reason),
      ['trade ADL', 'trade INSURANCE_FUND', 'trade NA', 'COIN-M'],
    );
  });

  it('are of the symbol in the request, and none without one', () => {
    const { rest, rows, of, kinds } = harness(SPOT, LATER_AT);
    assert.equal(rest('/api/v3/historicalTrades?symbol=BTCUSDT&fromId=1&limit=1', [SPOT.row(1)]), true);
    assert.deepEqual(
      of('trade').map((row) => [row.instrument, row.symbol]),
      [['BTCUSDT', 'BTC-USDT']],
    );
    assert.equal(rest('/api/v3/historicalTrades?fromId=1&limit=1', [SPOT.row(1)]), false);
    assert.deepEqual([rows.length, kinds()], [1, ['rejected']]);
  });

  it('of spot do not come from its aggregates, whose ids are others', () => {
    const { rest, rows } = harness(SPOT, LATER_AT);
    assert.equal(rest('/api/v3/aggTrades?symbol=ETHUSDT&fromId=1', [USDM.row(1)]), false);
    assert.equal(rows.length, 0);
  });

  it('whose id no double holds are told and are no rows', () => {
    const { path } = historyOf(SPOT).page(SPOT.instrument, { from: 1, to: 2 });
    const { rest, rows, kinds } = harness(SPOT, LATER_AT);
    assert.equal(rest(path, [SPOT.row(HIGHEST + 1)]), true);
    assert.deepEqual([rows.length, kinds()], [0, ['rejected']]);
  });
});

describe('past trades by id', () => {
  it('are not to be had from Hyperliquid: its ids do not count', () => {
    assert.equal(hyperliquid.tradeHistory, undefined);
  });
});
