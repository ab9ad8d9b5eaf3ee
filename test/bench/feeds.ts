/** Our side of the comparisons. */
import { binanceDerivatives, binanceSpot } from '../../scripts/exchanges/binance.ts';
import type { Batcher } from '../../scripts/lib/batcher.ts';
import type { Feed, FeedEvent, FeedOutput } from '../../scripts/lib/exchange.ts';
import type { DataType, LevelTexts, Rows } from '../../scripts/lib/rows.ts';
import type { Session } from './market.ts';

/** A feed as the collector makes it, for the session's one instrument. */
export function createFeed({ product, instrument }: Session, orderbookIntervalMs: number): Feed {
  const module = product === 'spot' ? binanceSpot : binanceDerivatives;
  const symbol = `${instrument.slice(0, -4)}-${instrument.slice(-4)}`;
  const instruments = [module.instrument(symbol, module.marketTypes[0]!)];
  return module.createFeed({ instruments, dataSource: 'live', orderbookIntervalMs });
}

/** Keeps the last row, and stops at whatever is no row: a refused frame would make us look fast. */
export class LastRow implements FeedOutput {
  last: Rows[DataType] | undefined;
  count = 0;

  row<T extends DataType>(_type: T, row: Rows[T]): void {
    this.last = row;
    this.count += 1;
  }

  event(event: FeedEvent): void {
    noRow(event);
  }
}

/** Rows into a batcher, as the collector does it. */
export class BatcherOutput implements FeedOutput {
  constructor(private readonly batcher: Batcher) {}

  row<T extends DataType>(type: T, row: Rows[T], texts?: LevelTexts): void {
    this.batcher.add(type, row, texts);
  }

  event(event: FeedEvent): void {
    noRow(event);
  }
}

function noRow(event: FeedEvent): never {
  throw new Error(`a frame gave no row: ${JSON.stringify(event)}`);
}
