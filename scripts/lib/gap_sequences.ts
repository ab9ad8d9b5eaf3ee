/** Everything in which a missing row can be told by a number. */
import { EXCHANGE_MODULES } from '../exchanges/index.ts';
import { readingSequence, type Sequence, TRADES, WHOLE_BOOKS } from './gap_finder.ts';

export function sequences(): Sequence[] {
  const readings = Object.values(EXCHANGE_MODULES).flatMap(({ exchange, readings = [] }) =>
    readings.map((series) => readingSequence(exchange, series)),
  );
  return [TRADES, WHOLE_BOOKS, ...readings];
}
