/** A feed of OKX with all that comes out of it, and small hand-made frames. */
import assert from 'node:assert/strict';
import type { ExchangeModule } from '../scripts/lib/exchange.ts';
import { feedHarness, type HarnessOptions } from './feed_harness.ts';

export const NOW = 1790439600_400_000;
export const SWAP_LIST = '/api/v5/public/instruments?instType=SWAP';

/** A line of an instrument list: what a contract is worth. */
export const listed = (instId: string, ctVal: string, ctValCcy: string, ctType: string, ctMult = '1') => ({
  instId,
  instType: instId.endsWith('-SWAP') ? 'SWAP' : /-[CP]$/.test(instId) ? 'OPTION' : 'FUTURES',
  ctVal,
  ctMult,
  ctValCcy,
  ctType,
});
export const LIST = {
  code: '0',
  msg: '',
  data: [
    listed('BTC-USDT-SWAP', '0.01', 'BTC', 'linear'),
    listed('ETH-USDT-SWAP', '0.1', 'ETH', 'linear'),
    listed('BTC-USD-SWAP', '100', 'USD', 'inverse'),
    listed('BTC-USDT-261225', '0.01', 'BTC', 'linear'),
    listed('BTC-USD-261225-100000-C', '1', 'BTC', '', '0.01'),
    listed('IOST-USDT-SWAP', '1000', 'IOST', 'linear'),
  ],
};

/** A feed whose contracts are worth what `list` tells (null: none is known). */
export function harness(module: ExchangeModule, options: HarnessOptions & { list?: unknown } = {}) {
  const { list = LIST } = options;
  const run = feedHarness(module, NOW, options);
  if (list !== null) run.feed.rest(SWAP_LIST, list, NOW, run.out);
  assert.equal(run.rows.length + run.events.length, 0);
  return { ...run, rest: (path: string, data: unknown) => run.rest(path, { code: '0', msg: '', data }) };
}

export const TRADE = {
  instId: 'BTC-USDT-SWAP',
  tradeId: '2953620280',
  px: '84093.5',
  sz: '24.31',
  side: 'buy',
  ts: '1790439596521',
  source: '0',
  seqId: 342177339042,
};
export const trades = (channel: string, ...data: object[]) => ({
  arg: { channel, instId: (data[0] as { instId: string }).instId },
  data,
});

type Sized = [string, string, string, string];
export const level = (price: string, size: string): Sized => [price, size, '0', '1'];

/** A frame of `books`; unless told otherwise a snapshot of two levels a side at 100. */
function book(instId: string, action: string, change: object = {}) {
  const data = {
    asks: [level('101', '9'), level('102', '8')],
    bids: [level('100', '7'), level('99', '6')],
    ts: '1790439595400',
    checksum: 0,
    seqId: 100,
    prevSeqId: -1,
    ...change,
  };
  return { arg: { channel: 'books', instId }, action, data: [data] };
}
export const snapshot = (instId: string, change: object = {}) => book(instId, 'snapshot', change);
/** One changed bid. */
export const update = (instId: string, prevSeqId: number, seqId: number, change: object = {}) =>
  book(instId, 'update', { asks: [], bids: [level('100', '5')], prevSeqId, seqId, ts: '1790439595500', ...change });
